#include <algorithm>

#include "text/jinja_filters.h"
#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

using Args = const std::vector<Value>&;
using Kw = const Kwargs&;

bool flag(Args args, Kw kwargs, size_t position, std::string_view name) {
  const Value* value = argument(args, kwargs, position, name);
  return value && truthy(*value);
}

/// item.a.b for the path "a.b"; a number is an index.
Value follow(Machine& machine, Value item, const Value& path) {
  if (path.is_integral()) return get_item(machine, item, path);
  const Text* text = path.text();
  if (!text) return machine.fail(cat("an attribute's name is a ", type_name(path)));
  for (size_t pos = 0; pos <= text->size() && !machine.failed();) {
    const size_t end = std::min(text->bytes.find('.', pos), text->size());
    const std::string part = text->bytes.substr(pos, end - pos);
    const bool number =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    item = get_item(machine, item, number ? Value(int64_t{std::stoi(part)}) : machine.text(part));
    pos = end + 1;
  }
  return item;
}

/// What sort, unique, min, max and sum compare: the item or its attribute, texts in lower case.
Value key_of(Machine& machine, const Value& item, const Value* attribute, bool ignore_case) {
  Value key = attribute && !attribute->is_none() ? follow(machine, item, *attribute) : item;
  if (ignore_case && key.text()) return call_method(machine, key, "lower", {}, {});
  return key;
}

/// A stable merge sort that stops at an error; std::sort must not see an order that breaks off.
void sort_pairs(Machine& machine, std::vector<std::pair<Value, Value>>& pairs, bool reverse) {
  std::vector<std::pair<Value, Value>> other(pairs.size());
  for (size_t width = 1; width < pairs.size() && !machine.failed(); width *= 2) {
    for (size_t begin = 0; begin < pairs.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, pairs.size());
      const size_t end = std::min(begin + 2 * width, pairs.size());
      size_t a = begin, b = middle;
      for (size_t out = begin; out < end; ++out) {
        const auto right_first = [&] {
          return reverse ? less(machine, pairs[a].first, pairs[b].first)
                         : less(machine, pairs[b].first, pairs[a].first);
        };
        const bool right = a >= middle || (b < end && right_first());
        other[out] = pairs[right ? b++ : a++];
      }
    }
    pairs.swap(other);
  }
}

Value extreme(Machine& machine, Args args, Kw kwargs, bool largest) {
  const bool ignore_case = !flag(args, kwargs, 1, "case_sensitive");
  const Value* attribute = argument(args, kwargs, 2, "attribute");
  const std::vector<Value> items = iterate(machine, args[0]);
  if (items.empty()) return machine.undefined("No aggregated item, sequence was empty.");
  const Value* best = &items[0];
  Value best_key = key_of(machine, items[0], attribute, ignore_case);
  for (const Value& item : items) {
    Value key = key_of(machine, item, attribute, ignore_case);
    if (machine.failed()) return {};
    if (largest ? less(machine, best_key, key) : less(machine, key, best_key)) {
      best = &item;
      best_key = std::move(key);
    }
  }
  return *best;
}

Value choose(Machine& machine, Args args, Kw kwargs, bool by_attribute, bool wanted) {
  const size_t first = by_attribute ? 2 : 1;
  if (args.size() < first || !kwargs.empty())
    return machine.fail("select: an argument is missing or unknown");
  std::vector<Value> out;
  for (const Value& item : iterate(machine, args[0])) {
    std::vector<Value> test_args = {by_attribute ? follow(machine, item, args[1]) : item};
    if (machine.failed()) return {};
    bool holds = false;
    if (args.size() <= first) {
      holds = truthy(test_args[0]);
    } else {
      test_args.insert(test_args.end(), args.begin() + static_cast<long>(first) + 1, args.end());
      holds = call_test(machine, to_text(machine, args[first])->bytes, test_args);
    }
    if (holds == wanted) out.push_back(item);
    if (!machine.step()) return {};
  }
  return machine.list(std::move(out));
}

}  // namespace

Value filter_join(Machine& machine, Args args, Kw kwargs) {
  const Value* separator = argument(args, kwargs, 1, "d");
  const Value* attribute = argument(args, kwargs, 2, "attribute");
  Text out;
  bool first = true;
  for (const Value& item : iterate(machine, args[0])) {
    if (machine.failed()) return {};
    if (!first && separator) print(machine, *separator, out);
    first = false;
    print(machine, key_of(machine, item, attribute, false), out);
  }
  return machine.text(std::move(out));
}

Value filter_list(Machine& machine, Args args, Kw) {
  std::vector<Value> items = iterate(machine, args[0]);
  return machine.failed() ? Value() : machine.list(std::move(items));
}

Value filter_items(Machine& machine, Args args, Kw) {
  if (args[0].is_undefined()) return machine.list({});
  if (!args[0].dict()) return machine.fail("Can only get item pairs from a mapping.");
  return call_method(machine, args[0], "items", {}, {});
}

Value filter_first(Machine& machine, Args args, Kw) {
  const std::vector<Value> items = iterate(machine, args[0]);
  return items.empty() ? machine.undefined("No first item, sequence was empty.") : items.front();
}

Value filter_last(Machine& machine, Args args, Kw) {
  const std::vector<Value> items = iterate(machine, args[0]);
  return items.empty() ? machine.undefined("No last item, sequence was empty.") : items.back();
}

Value filter_reverse(Machine& machine, Args args, Kw) {
  if (args[0].text())
    return get_slice(machine, args[0], Value(None{}), Value(None{}), Value(int64_t{-1}));
  std::vector<Value> items = iterate(machine, args[0]);
  std::reverse(items.begin(), items.end());
  return machine.failed() ? Value() : machine.list(std::move(items));
}

Value filter_sort(Machine& machine, Args args, Kw kwargs) {
  const bool reverse = flag(args, kwargs, 1, "reverse"),
             ignore_case = !flag(args, kwargs, 2, "case_sensitive");
  const Value* attribute = argument(args, kwargs, 3, "attribute");
  std::vector<std::pair<Value, Value>> pairs;
  for (const Value& item : iterate(machine, args[0])) {
    pairs.emplace_back(key_of(machine, item, attribute, ignore_case), item);
    if (machine.failed()) return {};
  }
  sort_pairs(machine, pairs, reverse);
  std::vector<Value> out;
  for (auto& [key, item] : pairs) out.push_back(std::move(item));
  return machine.list(std::move(out));
}

Value filter_dictsort(Machine& machine, Args args, Kw kwargs) {
  const bool ignore_case = !flag(args, kwargs, 1, "case_sensitive"),
             reverse = flag(args, kwargs, 3, "reverse");
  const Value* by = argument(args, kwargs, 2, "by");
  const bool by_value = by && by->text() && by->text()->bytes == "value";
  if (!args[0].dict()) return machine.fail(cat("dictsort: a ", type_name(args[0])));
  std::vector<std::pair<Value, Value>> pairs;
  for (const auto& [key, item] : args[0].dict()->items) {
    pairs.emplace_back(key_of(machine, by_value ? item : key, nullptr, ignore_case),
                       machine.list({key, item}, true));
    if (!machine.step()) return {};
  }
  sort_pairs(machine, pairs, reverse);
  std::vector<Value> out;
  for (auto& [key, item] : pairs) out.push_back(std::move(item));
  return machine.list(std::move(out));
}

Value filter_unique(Machine& machine, Args args, Kw kwargs) {
  const bool ignore_case = !flag(args, kwargs, 1, "case_sensitive");
  const Value* attribute = argument(args, kwargs, 2, "attribute");
  std::vector<Value> keys, out;
  for (const Value& item : iterate(machine, args[0])) {
    Value key = key_of(machine, item, attribute, ignore_case);
    const bool seen = std::any_of(keys.begin(), keys.end(),
                                  [&](const Value& k) { return equal(machine, k, key); });
    if (machine.failed()) return {};
    if (seen) continue;
    keys.push_back(std::move(key));
    out.push_back(item);
  }
  return machine.list(std::move(out));
}

Value filter_min(Machine& machine, Args args, Kw kwargs) {
  return extreme(machine, args, kwargs, false);
}
Value filter_max(Machine& machine, Args args, Kw kwargs) {
  return extreme(machine, args, kwargs, true);
}

Value filter_sum(Machine& machine, Args args, Kw kwargs) {
  const Value* attribute = argument(args, kwargs, 1, "attribute");
  const Value* start = argument(args, kwargs, 2, "start");
  Value total = start ? *start : Value(int64_t{0});
  for (const Value& item : iterate(machine, args[0])) {
    total = arithmetic(machine, Op::kAdd, total, key_of(machine, item, attribute, false));
    if (machine.failed()) return {};
  }
  return total;
}

Value filter_map(Machine& machine, Args args, Kw kwargs) {
  const Value* attribute = argument({}, kwargs, 0, "attribute");
  const Value* fallback = argument({}, kwargs, 0, "default");
  if (!attribute && args.size() < 2) return machine.fail("map requires a filter argument");
  std::vector<Value> out;
  for (const Value& item : iterate(machine, args[0])) {
    Value mapped;
    if (attribute) {
      mapped = follow(machine, item, *attribute);
      if (mapped.is_undefined() && fallback) mapped = *fallback;
    } else {
      std::vector<Value> filter_args = {item};
      filter_args.insert(filter_args.end(), args.begin() + 2, args.end());
      const TextPtr name = to_text(machine, args[1]);
      if (name->bytes == "map")
        return machine.unimplemented("map('map')");  // recursion without a bound
      mapped = call_filter(machine, name->bytes, filter_args, kwargs);
    }
    if (!machine.step()) return {};
    out.push_back(std::move(mapped));
  }
  return machine.list(std::move(out));
}

Value filter_select(Machine& m, Args args, Kw kwargs) {
  return choose(m, args, kwargs, false, true);
}
Value filter_reject(Machine& m, Args args, Kw kwargs) {
  return choose(m, args, kwargs, false, false);
}
Value filter_selectattr(Machine& m, Args args, Kw kwargs) {
  return choose(m, args, kwargs, true, true);
}
Value filter_rejectattr(Machine& m, Args args, Kw kwargs) {
  return choose(m, args, kwargs, true, false);
}

}  // namespace rk::text::jinja
