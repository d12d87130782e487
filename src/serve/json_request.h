// Strict reading of JSON that strangers sent: bounded nesting, no duplicate keys, valid UTF-8,
// exact types and ranges. Unknown fields are ignored. Plain values; one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace boost::json {
class object;
class value;
}  // namespace boost::json

namespace rk::serve {

constexpr int kMaxJsonDepth = 32;
constexpr int64_t kMaxJsonKeys = 1 << 18;    ///< of one object
constexpr int64_t kMaxJsonValues = 1 << 21;  ///< in one body: bounds its memory

/// A parsed request body; the value lives as long as this does.
class JsonBody {
 public:
  /// Errors: kInvalidArgument naming the byte and the reason; also for anything but an object.
  static Result<JsonBody> parse(std::string_view text);
  const boost::json::object& object() const;

 private:
  explicit JsonBody(std::shared_ptr<const boost::json::value> value) : value_(std::move(value)) {}
  std::shared_ptr<const boost::json::value> value_;
};

/// Reads an object's fields. The first error sticks: later reads leave their targets alone, so a
/// caller reads everything and asks once. An absent or null field leaves its target unchanged.
class JsonFields {
 public:
  /// `where` precedes field names in messages: "messages[3].".
  explicit JsonFields(const boost::json::object& object, std::string where = "");

  bool has(const char* name) const;  ///< present and not null
  void integer(const char* name, int64_t low, int64_t high, int64_t& out);
  void integer(const char* name, int low, int high, int& out);
  void number(const char* name, double low, double high, double& out);
  void number(const char* name, double low, double high, float& out);
  void boolean(const char* name, bool& out);
  void string(const char* name, size_t max_bytes, std::string& out);
  /// A string, or an array of at most `max_items` of them.
  void strings(const char* name, size_t max_items, size_t max_bytes, std::vector<std::string>& out);
  /// Null when absent or wrong (then an error stands).
  const boost::json::object* object(const char* name);
  const boost::json::value* find(const char* name) const;

  /// Records an error about a field, unless one stands already.
  void fail(const std::string& name, const std::string& what);
  /// Takes over the error of a nested object's fields.
  void adopt(const JsonFields& inner);
  bool ok() const { return param_.empty(); }
  /// The field of the first error ("messages[3].role"), and "field: reason".
  const std::string& param() const { return param_; }
  Status status() const;

 private:
  const boost::json::object& object_;
  std::string where_, param_, message_;
};

/// "a boolean", "an integer", "a string", ... for messages.
const char* json_kind(const boost::json::value& value);
/// JSON text of a string, quotes included; invalid UTF-8 becomes U+FFFD.
std::string json_quote(std::string_view text);

}  // namespace rk::serve
