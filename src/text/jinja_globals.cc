// The functions that templates may call: raise_exception, strftime_now, range, namespace, dict.
#include <algorithm>
#include <ctime>

#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

constexpr std::string_view kNames[] = {"raise_exception", "strftime_now", "range", "namespace",
                                       "dict"};

Value call_range(Machine& machine, const std::vector<Value>& args) {
  if (args.empty() || args.size() > 3)
    return machine.fail(cat("range takes 1 to 3 arguments, got ", args.size()));
  int64_t numbers[3] = {0, 0, 1};
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].is_undefined()) return machine.fail_undefined(args[i]);
    if (!args[i].is_integral())
      return machine.fail(cat("'", type_name(args[i]), "' cannot be interpreted as an integer"));
    numbers[args.size() == 1 ? 1 : i] = args[i].integer();
  }
  const auto [start, stop, step] = numbers;
  if (step == 0) return machine.fail("range() step must not be zero");
  std::vector<Value> items;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (static_cast<int64_t>(items.size()) >= machine.limits.range_items) {
      return machine.fail(Code::kExhausted,
                          cat("range too big, the limit is ", machine.limits.range_items));
    }
    if (!machine.step()) return {};
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return machine.list(std::move(items));
}

Value call_strftime(Machine& machine, const std::vector<Value>& args) {
  const Text* format = args.size() == 1 ? args[0].text() : nullptr;
  if (!format) return machine.fail("strftime_now takes one text");
  if (format->size() == 0) return machine.text("");
  if (format->size() > 200)
    return machine.fail(cat("strftime_now: format of ", format->size(), " bytes, limit 200"));
  const std::time_t seconds = machine.unix_time;
  std::tm parts{};
  if (!gmtime_r(&seconds, &parts)) return machine.fail("strftime_now: the time does not fit");
  char buffer[2048];
  const size_t size = std::strftime(buffer, sizeof buffer, format->bytes.c_str(), &parts);
  return machine.text(Text(std::string_view(buffer, size), format->any_untrusted()));
}

/// Positional dicts, then keyword arguments, as pairs in order.
std::vector<std::pair<Value, Value>> merge(Machine& machine, const std::vector<Value>& args,
                                           const Kwargs& kwargs) {
  std::vector<std::pair<Value, Value>> out;
  const auto put = [&](const Value& key, const Value& value) {
    for (auto& [old_key, old_value] : out) {
      if (!machine.failed() && equal(machine, old_key, key)) {
        old_value = value;
        return;
      }
    }
    out.emplace_back(key, value);
  };
  for (const Value& arg : args) {
    if (!arg.dict()) {
      machine.fail(cat("expected a dict, got '", type_name(arg), "'"));
      return out;
    }
    for (const auto& [key, value] : arg.dict()->items) put(key, value);
  }
  for (const auto& [name, value] : kwargs) put(machine.text(name), value);
  return out;
}

Value call_namespace(Machine& machine, const std::vector<Value>& args, const Kwargs& kwargs) {
  auto ns = std::make_shared<Namespace>();
  if (!machine.take(64)) return {};
  for (const auto& [key, value] : merge(machine, args, kwargs)) {
    if (is_pinned(value))
      return machine.unimplemented(cat("a ", type_name(value), " inside a namespace"));
    if (!key.text()) return machine.fail("namespace: keys are texts");
    ns->items.emplace_back(key.text()->bytes, value);
  }
  return Value(std::move(ns));
}

}  // namespace

bool is_global_function(std::string_view name) {
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

Value call_global_function(Machine& machine, std::string_view name, const std::vector<Value>& args,
                           const Kwargs& kwargs) {
  if (name == "namespace") return call_namespace(machine, args, kwargs);
  if (name == "dict") {
    auto items = merge(machine, args, kwargs);
    return machine.failed() ? Value() : machine.dict(std::move(items));
  }
  if (!kwargs.empty()) return machine.fail(cat(name, " takes no keyword arguments"));
  if (name == "range") return call_range(machine, args);
  if (name == "strftime_now") return call_strftime(machine, args);
  if (args.size() != 1) return machine.fail("raise_exception takes one argument");
  const TextPtr message = to_text(machine, args[0]);
  return machine.fail(std::string_view(message->bytes).substr(0, 1000));
}

}  // namespace rk::text::jinja
