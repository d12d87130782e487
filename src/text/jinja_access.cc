// Iteration, lengths, attributes, items and slices of values.
#include <algorithm>

#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

Value no_attribute(Machine& machine, const Value& value, std::string_view name) {
  if (value.is_undefined()) return machine.fail_undefined(value);
  return machine.undefined(
      cat("'", type_name(value), " object' has no attribute '", name.substr(0, 100), "'"));
}

Value loop_attribute(Machine& machine, const Loop& loop, std::string_view name) {
  const auto number = [](size_t n) { return Value(static_cast<int64_t>(n)); };
  const size_t size = loop.items->size();
  if (name == "index") return number(loop.index + 1);
  if (name == "index0") return number(loop.index);
  if (name == "revindex") return number(size - loop.index);
  if (name == "revindex0") return number(size - loop.index - 1);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index + 1 == size);
  if (name == "length") return number(size);
  if (name == "depth") return Value(static_cast<int64_t>(loop.depth));
  if (name == "depth0") return Value(static_cast<int64_t>(loop.depth - 1));
  if (name == "previtem") {
    return loop.index > 0 ? (*loop.items)[loop.index - 1]
                          : machine.undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return loop.index + 1 < size ? (*loop.items)[loop.index + 1]
                                 : machine.undefined("there is no next item");
  }
  if (name == "changed") return machine.unimplemented("loop.changed");
  return machine.undefined(
      cat("'LoopContext object' has no attribute '", name.substr(0, 100), "'"));
}

Value bound_method(Machine& machine, const Value& self, std::string_view name) {
  if (!machine.take(128)) return {};
  auto method = std::make_shared<Callable>();
  method->self = self;
  method->name = name;
  return Value(std::shared_ptr<const Callable>(std::move(method)));
}

/// Python's rules for one end of a slice; `fallback` where it is left out.
int64_t slice_end(Machine& machine, const Value& value, int64_t size, bool forward,
                  int64_t fallback) {
  if (value.is_none()) return fallback;
  if (!value.is_integral()) {
    if (value.is_undefined()) {
      machine.fail_undefined(value);
    } else {
      machine.fail("slice indices must be integers or None");
    }
    return 0;
  }
  int64_t at = value.integer();
  if (at < 0) at = at < -size ? -1 : at + size;
  if (value.integer() < -size) return forward ? 0 : -1;
  return std::min(at, forward ? size : size - 1);
}

}  // namespace

std::optional<int64_t> length(const Value& value) {
  if (const Text* text = value.text()) return static_cast<int64_t>(count_chars(text->bytes));
  if (const List* list = value.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->items.size());
  if (value.is_undefined()) return 0;
  return std::nullopt;
}

std::vector<Value> iterate(Machine& machine, const Value& value) {
  std::vector<Value> out;
  const int64_t size = length(value).value_or(0);
  if (!machine.step(size) || !machine.take(size * static_cast<int64_t>(sizeof(Value)))) return out;
  if (const List* list = value.list()) return list->items;
  out.reserve(static_cast<size_t>(size));
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, item] : dict->items) out.push_back(key);
  } else if (const Text* text = value.text()) {
    for (size_t pos = 0; pos < text->size() && !machine.failed();) {
      const size_t bytes = char_bytes(text->bytes, pos);
      out.push_back(machine.slice(*text, pos, pos + bytes));
      pos += bytes;
    }
  } else if (!value.is_undefined()) {
    machine.fail(cat("'", type_name(value), "' object is not iterable"));
  }
  return out;
}

const Value* find_key(Machine& machine, const Dict& dict, const Value& key) {
  if (!machine.step(static_cast<int64_t>(dict.items.size() / 8))) return nullptr;
  for (const auto& [candidate, item] : dict.items) {
    if (const Text* a = candidate.text(), *b = key.text(); a && b) {
      if (a->bytes == b->bytes) return &item;
    } else if (candidate.v.index() == key.v.index() || (candidate.is_number() && key.is_number())) {
      if (equal(machine, candidate, key)) return &item;
    }
  }
  return nullptr;
}

Value get_attribute(Machine& machine, const Value& value, std::string_view name, const Value& key) {
  if (value.is_undefined()) return machine.fail_undefined(value);
  if (const Loop* loop = value.loop()) {
    if (name == "cycle") return bound_method(machine, value, name);
    return loop_attribute(machine, *loop, name);
  }
  if (name.substr(0, 2) == "__") {
    return machine.fail(cat("access to attribute '", name.substr(0, 100), "' is unsafe"));
  }
  if (const Namespace* ns = value.ns()) {
    for (const auto& [candidate, item] : ns->items) {
      if (candidate == name) return item;
    }
    return no_attribute(machine, value, name);
  }
  if (has_method(value, name)) return bound_method(machine, value, name);
  if (const Dict* dict = value.dict()) {
    if (const Value* item = find_key(machine, *dict, key)) return *item;
  }
  return no_attribute(machine, value, name);
}

Value get_item(Machine& machine, const Value& value, const Value& key) {
  if (value.is_undefined()) return machine.fail_undefined(value);
  if (const Dict* dict = value.dict()) {
    if (const Value* item = find_key(machine, *dict, key)) return *item;
  }
  const List* list = value.list();
  const Text* text = value.text();
  if ((list || text) && key.is_integral()) {
    const int64_t size = *length(value);
    int64_t at = key.integer();
    if (at < 0) at += size;
    if (at < 0 || at >= size)
      return machine.undefined(
          cat("'", type_name(value), " object' has no element ", key.integer()));
    if (list) return list->items[static_cast<size_t>(at)];
    if (!machine.step(size / 64)) return {};
    size_t pos = 0;
    for (; at > 0; --at) pos += char_bytes(text->bytes, pos);
    return machine.slice(*text, pos, pos + char_bytes(text->bytes, pos));
  }
  if (const Text* name = key.text()) return get_attribute(machine, value, name->bytes, key);
  if (key.is_undefined() && !value.dict()) return machine.fail_undefined(key);
  return no_attribute(machine, value, to_text(machine, key)->bytes);
}

Value get_slice(Machine& machine, const Value& value, const Value& start, const Value& stop,
                const Value& step_value) {
  if (value.is_undefined()) return machine.fail_undefined(value);
  const List* list = value.list();
  const Text* text = value.text();
  if (!list && !text) return machine.fail(cat("'", type_name(value), "' cannot be sliced"));
  if (!step_value.is_none() && !step_value.is_integral())
    return machine.fail("slice indices must be integers or None");
  const int64_t step = step_value.is_none() ? 1 : step_value.integer();
  if (step == 0) return machine.fail("slice step cannot be zero");
  const int64_t size = *length(value);
  const bool forward = step > 0;
  const int64_t from = slice_end(machine, start, size, forward, forward ? 0 : size - 1);
  const int64_t to = slice_end(machine, stop, size, forward, forward ? size : -1);
  if (!machine.step(size / 8)) return {};
  std::vector<size_t> offsets;
  if (text) {
    if (!machine.take(8 * static_cast<int64_t>(text->size()))) return {};
    offsets = char_offsets(text->bytes);
    if (step == 1) {
      return machine.slice(*text, offsets[static_cast<size_t>(from)],
                           offsets[static_cast<size_t>(std::max(from, to))]);
    }
  }
  std::vector<Value> items;
  Text out;
  for (int64_t at = from; forward ? at < to : at > to;) {
    const size_t i = static_cast<size_t>(at);
    if (list) {
      items.push_back(list->items[i]);
    } else {
      out.append(*text, offsets[i], offsets[i + 1]);
    }
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return list ? machine.list(std::move(items), list->tuple) : machine.text(std::move(out));
}

}  // namespace rk::text::jinja
