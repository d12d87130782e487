// Errors as values. Every function of ours that can fail returns Status or Result<T>; none throws.
//
// A message names the object and both numbers: "page pool: 3 pages wanted, 2 free". Callers branch
// on codes, people read messages. Thread rule: plain values.
#pragma once

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

namespace rk {

enum class Code {
  kOk = 0,
  kInvalidArgument,  ///< the caller's or the file's fault; do not retry
  kNotFound,
  kExhausted,    ///< normal load: memory, pages, queue; the caller waits or evicts
  kUnavailable,  ///< not now: shutting down, network
  kDeadline,
  kCancelled,
  kDataLoss,       ///< bytes are not what they should be
  kUnimplemented,  ///< known and not built
  kInternal,       ///< our own bug
};

/// Stable lower-case name of a code, for logs and JSON: "invalid_argument".
const char* code_name(Code code);

/// Joins its arguments with operator<<. Bytes of any type that prints.
template <class... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

#define RK_STATUS_FACTORY(name, code)              \
  template <class... Args>                         \
  Status name(const Args&... args) {               \
    return Status(Code::code, ::rk::cat(args...)); \
  }
RK_STATUS_FACTORY(invalid_argument, kInvalidArgument)
RK_STATUS_FACTORY(not_found, kNotFound)
RK_STATUS_FACTORY(exhausted, kExhausted)
RK_STATUS_FACTORY(unavailable, kUnavailable)
RK_STATUS_FACTORY(deadline, kDeadline)
RK_STATUS_FACTORY(cancelled, kCancelled)
RK_STATUS_FACTORY(data_loss, kDataLoss)
RK_STATUS_FACTORY(unimplemented, kUnimplemented)
RK_STATUS_FACTORY(internal, kInternal)
#undef RK_STATUS_FACTORY

[[noreturn]] void result_without_value(const Status& status);

/// A value or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit on purpose
  template <class U>
  requires std::is_convertible_v<U, T> &&
      (!std::is_same_v<std::decay_t<U>, Status>)&&(!std::is_same_v<std::decay_t<U>, T>)
          Result(U&& value)
      : value_(std::forward<U>(value)) {}  // NOLINT: implicit on purpose

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  Code code() const { return status_.code(); }
  /// Requires: ok(); aborts otherwise.
  T& value() & { return check(), *value_; }
  const T& value() const& { return check(), *value_; }
  T value() && { return check(), std::move(*value_); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }

 private:
  void check() const {
    if (!value_) result_without_value(status_);
  }
  std::optional<T> value_;
  Status status_;
};

}  // namespace rk

#define RK_CONCAT_INNER(a, b) a##b
#define RK_CONCAT(a, b) RK_CONCAT_INNER(a, b)
/// RK_TRY(const auto x, expr): declares x from a Result, or returns its Status.
#define RK_TRY(decl, ...) RK_TRY_IMPL(RK_CONCAT(rk_result_, __LINE__), decl, __VA_ARGS__)
#define RK_TRY_IMPL(tmp, decl, ...)   \
  auto tmp = (__VA_ARGS__);           \
  if (!tmp.ok()) return tmp.status(); \
  decl = std::move(tmp).value()
#define RK_RETURN_IF_ERROR(...)                                    \
  do {                                                             \
    if (::rk::Status rk_status = (__VA_ARGS__); !rk_status.ok()) { \
      return rk_status;                                            \
    }                                                              \
  } while (false)
