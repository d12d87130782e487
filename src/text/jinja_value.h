// Values of the template interpreter and the machine they are made on, which counts steps and
// bytes. Containers never change after they are made, so values form no cycles; a namespace may
// hold only values without namespaces, macros and loops ("pinned" values), so it forms none either.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"
#include "text/jinja_text.h"

namespace rk::text::jinja {

struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;
struct Stmt;
struct Scope;

struct Undefined {
  TextPtr why;  ///< what a use of it says
};
struct None {};

struct Value {
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;
  std::variant<Undefined, None, bool, int64_t, double, TextPtr, ListPtr, DictPtr,
               std::shared_ptr<Namespace>, const Loop*, std::shared_ptr<const Callable>>
      v;
  bool untrusted = false;  ///< numbers and the like from outside; texts have their own marks

  Value() = default;
  template <class T>
  explicit Value(T value, bool from_outside = false)
      : v(std::move(value)), untrusted(from_outside) {}

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(v);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_none() const { return is<None>(); }
  const Text* text() const { return get_shared<TextPtr>(); }
  const List* list() const { return get_shared<ListPtr>(); }
  const Dict* dict() const { return get_shared<DictPtr>(); }
  Namespace* ns() const {
    const auto* p = std::get_if<std::shared_ptr<Namespace>>(&v);
    return p ? p->get() : nullptr;
  }
  const Loop* loop() const {
    const auto* p = std::get_if<const Loop*>(&v);
    return p ? *p : nullptr;
  }
  const Callable* callable() const { return get_shared<std::shared_ptr<const Callable>>(); }
  bool is_number() const { return is<bool>() || is<int64_t>() || is<double>(); }
  bool is_integral() const { return is<bool>() || is<int64_t>(); }
  /// Requires: is_integral().
  int64_t integer() const { return is<bool>() ? std::get<bool>(v) : std::get<int64_t>(v); }
  /// Requires: is_number().
  double real() const {
    return is<double>() ? std::get<double>(v) : static_cast<double>(integer());
  }

 private:
  template <class P>
  auto get_shared() const -> decltype(std::get<P>(v).get()) {
    const auto* p = std::get_if<P>(&v);
    return p ? p->get() : nullptr;
  }
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  bool pinned = false;
  int depth = 1;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  ///< in order of insertion
  bool pinned = false;
  int depth = 1;
};
struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};
struct Loop {
  const std::vector<Value>* items = nullptr;
  size_t index = 0;
  int depth = 1;
};
struct Callable {
  const Stmt* macro = nullptr;  ///< a macro or a call block's body, with the scope it was made in
  Scope* scope = nullptr;
  Value self;  ///< otherwise a method of `self`, or a global function where self is undefined
  std::string name;
};

using Kwargs = std::vector<std::pair<std::string, Value>>;

/// Bounds of one rendering.
struct Limits {
  int64_t steps = 20'000'000;
  int64_t bytes = int64_t{256} << 20;      ///< of all texts and lists ever made; input adds to it
  int64_t text_bytes = int64_t{64} << 20;  ///< of one text, and of the output
  int depth = 400;                         ///< of nested evaluations, macros included
  int value_depth = 100;                   ///< of nested lists and dicts
  int64_t range_items = 100'000;           ///< as jinja2's sandbox
};

/// Counts, makes values, and keeps the first error; after one everything unwinds with empty values.
class Machine {
 public:
  Limits limits;
  int line = 0;
  int64_t unix_time = 0;
  int depth = 0;

  bool failed() const { return !status_.ok(); }
  const Status& status() const { return status_; }
  /// Records the error (the first one stays) and returns an empty value.
  Value fail(Code code, std::string_view message);
  Value fail(std::string_view message) { return fail(Code::kInvalidArgument, message); }
  Value unimplemented(std::string_view what) { return fail(Code::kUnimplemented, what); }
  /// Using an undefined value: jinja2's UndefinedError.
  Value fail_undefined(const Value& value);

  /// False after an error or when the steps are used up.
  bool step(int64_t count = 1) {
    if ((limits.steps -= count) >= 0) return !failed();
    fail(Code::kExhausted, "too many steps");
    return false;
  }
  /// Takes bytes from the budget before they are allocated; false (with an error) when it is spent.
  bool take(int64_t bytes);
  /// For a text of `bytes` that is about to be built.
  bool take_text(int64_t bytes);

  Value text(Text text);
  Value text(std::string_view text) { return this->text(Text(text)); }
  Value slice(const Text& text, size_t begin, size_t end);
  Value list(std::vector<Value> items, bool tuple = false);
  Value dict(std::vector<std::pair<Value, Value>> items);
  Value undefined(std::string_view why);

 private:
  Status status_;
};

bool is_pinned(const Value& value);
int value_depth(const Value& value);
/// Python's name of the type, for messages and reprs.
const char* type_name(const Value& value);

}  // namespace rk::text::jinja
