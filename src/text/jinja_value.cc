#include "text/jinja_value.h"

#include <algorithm>

namespace rk::text::jinja {

Value Machine::fail(Code code, std::string_view message) {
  if (status_.ok()) status_ = Status(code, cat("chat template, line ", line, ": ", message));
  return {};
}

Value Machine::fail_undefined(const Value& value) {
  const auto* undefined = std::get_if<Undefined>(&value.v);
  return fail(undefined && undefined->why ? undefined->why->bytes : "a value is undefined");
}

bool Machine::take(int64_t bytes) {
  if ((limits.bytes -= bytes) >= 0) return !failed();
  fail(Code::kExhausted, "too many bytes in intermediate values");
  return false;
}

bool Machine::take_text(int64_t bytes) {
  if (bytes > limits.text_bytes) {
    fail(Code::kExhausted, cat("a text of ", bytes, " bytes, limit ", limits.text_bytes));
    return false;
  }
  return take(bytes + 64);
}

Value Machine::text(Text text) {
  if (!take_text(static_cast<int64_t>(text.size()))) return {};
  return Value(std::make_shared<const Text>(std::move(text)));
}

Value Machine::slice(const Text& text, size_t begin, size_t end) {
  return this->text(text.slice(begin, end));
}

Value Machine::list(std::vector<Value> items, bool tuple) {
  if (!take(64 + static_cast<int64_t>(items.size() * sizeof(Value)))) return {};
  auto out = std::make_shared<List>();
  out->tuple = tuple;
  for (const Value& item : items) {
    out->depth = std::max(out->depth, 1 + value_depth(item));
    out->pinned = out->pinned || is_pinned(item);
  }
  out->items = std::move(items);
  if (out->depth > limits.value_depth) {
    return fail(Code::kExhausted, cat("lists nested more than ", limits.value_depth, " deep"));
  }
  return Value(Value::ListPtr(std::move(out)));
}

Value Machine::dict(std::vector<std::pair<Value, Value>> items) {
  if (!take(64 + static_cast<int64_t>(items.size() * 2 * sizeof(Value)))) return {};
  auto out = std::make_shared<Dict>();
  for (const auto& [key, item] : items) {
    out->depth = std::max({out->depth, 1 + value_depth(item), 1 + value_depth(key)});
    out->pinned = out->pinned || is_pinned(item) || is_pinned(key);
  }
  out->items = std::move(items);
  if (out->depth > limits.value_depth) {
    return fail(Code::kExhausted, cat("dicts nested more than ", limits.value_depth, " deep"));
  }
  return Value(Value::DictPtr(std::move(out)));
}

Value Machine::undefined(std::string_view why) {
  if (!take_text(static_cast<int64_t>(why.size()))) return {};
  return Value(Undefined{std::make_shared<const Text>(why)});
}

bool is_pinned(const Value& value) {
  if (const List* list = value.list()) return list->pinned;
  if (const Dict* dict = value.dict()) return dict->pinned;
  if (const Callable* call = value.callable()) return call->macro || is_pinned(call->self);
  return value.ns() || value.loop();
}

int value_depth(const Value& value) {
  if (const List* list = value.list()) return list->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  if (const Callable* call = value.callable()) return 1 + value_depth(call->self);
  return 0;
}

const char* type_name(const Value& value) {
  if (const List* list = value.list()) return list->tuple ? "tuple" : "list";
  static constexpr const char* kNames[] = {"Undefined", "NoneType",    "bool",    "int",
                                           "float",     "str",         "list",    "dict",
                                           "Namespace", "LoopContext", "function"};
  return kNames[value.v.index()];
}

}  // namespace rk::text::jinja
