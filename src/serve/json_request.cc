#include "serve/json_request.h"

#include <boost/json.hpp>
#include <boost/json/basic_parser_impl.hpp>
#include <cmath>
#include <unordered_set>

namespace rk::serve {
namespace json = boost::json;
namespace {

json::parse_options options() {
  json::parse_options o;
  o.max_depth = kMaxJsonDepth;
  return o;
}

// Boost's own parser keeps the last of equal keys silently; two readers of one body could then
// disagree, so a first pass refuses them. Numbers and strings are only skipped here.
struct KeyCheck {
  static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);

  std::vector<std::unordered_set<std::string>> open;
  std::string key, problem;

  using error_code = boost::system::error_code;
  bool refuse(error_code& ec, std::string what) {
    problem = std::move(what);
    ec = json::error::extra_data;
    return false;
  }
  int64_t values = 0;
  bool count(error_code& ec) {
    return ++values <= kMaxJsonValues || refuse(ec, cat("more than ", kMaxJsonValues, " values"));
  }
  bool on_document_begin(error_code&) { return true; }
  bool on_document_end(error_code&) { return true; }
  bool on_object_begin(error_code& ec) {
    open.emplace_back();
    return count(ec);
  }
  bool on_object_end(std::size_t, error_code&) {
    open.pop_back();
    return true;
  }
  bool on_array_begin(error_code& ec) { return count(ec); }
  bool on_array_end(std::size_t, error_code&) { return true; }
  bool on_key_part(json::string_view s, std::size_t, error_code&) {
    key.append(s.data(), s.size());
    return true;
  }
  bool on_key(json::string_view s, std::size_t, error_code& ec) {
    key.append(s.data(), s.size());
    if (open.back().size() >= static_cast<size_t>(kMaxJsonKeys)) {
      return refuse(ec, cat("an object has more than ", kMaxJsonKeys, " keys"));
    }
    if (!open.back().insert(key).second) {
      return refuse(ec, cat("duplicate key ", json_quote(key.substr(0, 64))));
    }
    key.clear();
    return true;
  }
  bool on_string_part(json::string_view, std::size_t, error_code&) { return true; }
  bool on_string(json::string_view, std::size_t, error_code& ec) { return count(ec); }
  bool on_number_part(json::string_view, error_code&) { return true; }
  bool on_int64(int64_t, json::string_view, error_code& ec) { return count(ec); }
  bool on_uint64(uint64_t, json::string_view, error_code& ec) { return count(ec); }
  bool on_double(double, json::string_view, error_code& ec) { return count(ec); }
  bool on_bool(bool, error_code& ec) { return count(ec); }
  bool on_null(error_code& ec) { return count(ec); }
  bool on_comment_part(json::string_view, error_code&) { return true; }
  bool on_comment(json::string_view, error_code&) { return true; }
};

Status check_keys(std::string_view text) {
  json::basic_parser<KeyCheck> parser(options());
  boost::system::error_code ec;
  const size_t used = parser.write_some(false, text.data(), text.size(), ec);
  const std::string& problem = parser.handler().problem;
  if (!problem.empty()) return invalid_argument("request body: byte ", used, ": ", problem);
  if (ec == json::error::too_deep) {
    return invalid_argument("request body: byte ", used, ": nested deeper than ", kMaxJsonDepth);
  }
  if (ec == json::error::incomplete) {
    return invalid_argument("request body: JSON ends early, after ", text.size(), " bytes");
  }
  if (ec) return invalid_argument("request body: byte ", used, ": not JSON: ", ec.message());
  if (text.find_first_not_of(" \t\r\n", used) != std::string_view::npos) {
    return invalid_argument("request body: byte ", used, ": more text after the JSON value");
  }
  return {};
}

// An integer that int64 can hold; floats, booleans and strings are none.
bool as_int64(const json::value& value, int64_t& out) {
  if (const int64_t* i = value.if_int64()) return out = *i, true;
  return false;
}

std::string shown(const json::value& value) {
  if (value.is_number()) return json::serialize(value);
  return json_kind(value);
}

}  // namespace

const char* json_kind(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
      return "an integer";
    case json::kind::double_:
      return "a number with a fraction or exponent";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "?";
}

std::string json_quote(std::string_view text) {
  const json::string value(text.data(), text.size());
  return json::serialize(json::value(value));
}

Result<JsonBody> JsonBody::parse(std::string_view text) {
  if (text.empty()) return invalid_argument("request body: empty, a JSON object is wanted");
  RK_RETURN_IF_ERROR(check_keys(text));
  boost::system::error_code ec;
  try {
    auto value = std::make_shared<json::value>(
        json::parse(json::string_view(text.data(), text.size()), ec, {}, options()));
    if (ec) return invalid_argument("request body: not JSON: ", ec.message());
    if (!value->is_object()) {
      return invalid_argument("request body: ", json_kind(*value), ", a JSON object is wanted");
    }
    return JsonBody(std::move(value));
  } catch (const std::exception& error) {
    return invalid_argument("request body: ", error.what());
  }
}

const json::object& JsonBody::object() const { return value_->get_object(); }

JsonFields::JsonFields(const json::object& object, std::string where)
    : object_(object), where_(std::move(where)) {}

const json::value* JsonFields::find(const char* name) const {
  const json::value* value = object_.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool JsonFields::has(const char* name) const { return find(name) != nullptr; }

void JsonFields::fail(const std::string& name, const std::string& what) {
  if (!ok()) return;
  param_ = where_ + name;
  message_ = cat(param_, ": ", what);
}

void JsonFields::adopt(const JsonFields& inner) {
  if (!ok() || inner.ok()) return;
  param_ = inner.param_;
  message_ = inner.message_;
}

Status JsonFields::status() const { return ok() ? Status() : invalid_argument(message_); }

void JsonFields::integer(const char* name, int64_t low, int64_t high, int64_t& out) {
  const json::value* value = find(name);
  if (value == nullptr || !ok()) return;
  int64_t number = 0;
  if (!as_int64(*value, number)) {
    if (value->is_uint64()) return fail(name, cat(shown(*value), " is outside ", low, "..", high));
    return fail(name, cat(json_kind(*value), ", an integer is wanted"));
  }
  if (number < low || number > high) {
    return fail(name, cat(number, " is outside ", low, "..", high));
  }
  out = number;
}

void JsonFields::integer(const char* name, int low, int high, int& out) {
  int64_t wide = out;
  integer(name, int64_t{low}, int64_t{high}, wide);
  out = static_cast<int>(wide);
}

void JsonFields::number(const char* name, double low, double high, float& out) {
  double number = out;
  this->number(name, low, high, number);
  out = static_cast<float>(number);
}

void JsonFields::number(const char* name, double low, double high, double& out) {
  const json::value* value = find(name);
  if (value == nullptr || !ok()) return;
  if (!value->is_number()) return fail(name, cat(json_kind(*value), ", a number is wanted"));
  const double number = value->to_number<double>();
  if (!(number >= low && number <= high)) {  // also NaN and infinity
    return fail(name, cat(shown(*value), " is outside ", low, "..", high));
  }
  out = number;
}

void JsonFields::boolean(const char* name, bool& out) {
  const json::value* value = find(name);
  if (value == nullptr || !ok()) return;
  if (!value->is_bool()) return fail(name, cat(json_kind(*value), ", a boolean is wanted"));
  out = value->get_bool();
}

void JsonFields::string(const char* name, size_t max_bytes, std::string& out) {
  const json::value* value = find(name);
  if (value == nullptr || !ok()) return;
  if (!value->is_string()) return fail(name, cat(json_kind(*value), ", a string is wanted"));
  const json::string& text = value->get_string();
  if (text.size() > max_bytes) {
    return fail(name, cat(text.size(), " bytes long, ", max_bytes, " allowed"));
  }
  out.assign(text.data(), text.size());
}

void JsonFields::strings(const char* name, size_t max_items, size_t max_bytes,
                         std::vector<std::string>& out) {
  const json::value* value = find(name);
  if (value == nullptr || !ok()) return;
  const auto add = [&](const json::value& item) {
    if (!item.is_string()) {
      return fail(name, cat(json_kind(item), ", a string or an array of strings is wanted"));
    }
    const json::string& text = item.get_string();
    if (text.size() > max_bytes) {
      return fail(name, cat(text.size(), " bytes long, ", max_bytes, " allowed"));
    }
    out.emplace_back(text.data(), text.size());
  };
  if (!value->is_array()) return add(*value);
  const json::array& items = value->get_array();
  if (items.size() > max_items) {
    return fail(name, cat(items.size(), " items, ", max_items, " allowed"));
  }
  for (const json::value& item : items) add(item);
}

const json::object* JsonFields::object(const char* name) {
  const json::value* value = find(name);
  if (value == nullptr || !ok()) return nullptr;
  if (!value->is_object()) fail(name, cat(json_kind(*value), ", an object is wanted"));
  return value->if_object();
}

}  // namespace rk::serve
