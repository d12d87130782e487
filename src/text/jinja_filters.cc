// Filters of single values; those of lists are in jinja_filters_lists.cc.
#include "text/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>

#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

using Args = const std::vector<Value>&;
using Kw = const Kwargs&;

bool flag(Args args, Kw kwargs, size_t position, std::string_view name, bool fallback) {
  const Value* value = argument(args, kwargs, position, name);
  return value ? truthy(*value) : fallback;
}

/// The first argument as a text, with the filter's own arguments as a method's.
template <const char* method>
Value as_method(Machine& machine, Args args, Kw kwargs) {
  const Value self(to_text(machine, args[0]));
  if (machine.failed()) return {};
  return call_method(machine, self, method, std::vector<Value>(args.begin() + 1, args.end()),
                     kwargs);
}
constexpr char kStrip[] = "strip", kUpper[] = "upper", kLower[] = "lower", kTitle[] = "title",
               kCapitalize[] = "capitalize", kReplace[] = "replace";

Value to_json(Machine& machine, Args args, Kw kwargs) {
  const Value* indent = argument(args, kwargs, 2, "indent");
  if (argument(args, kwargs, 3, "separators"))
    return machine.unimplemented("tojson with separators");
  Text out;
  print_json(machine, args[0], indent && !indent->is_none() ? indent : nullptr,
             flag(args, kwargs, 1, "ensure_ascii", false),
             flag(args, kwargs, 4, "sort_keys", false), out);
  return machine.text(std::move(out));
}

Value filter_default(Machine& machine, Args args, Kw kwargs) {
  const bool falsy_too = flag(args, kwargs, 2, "boolean", false);
  if (!args[0].is_undefined() && !(falsy_too && !truthy(args[0]))) return args[0];
  const Value* value = argument(args, kwargs, 1, "default_value");
  return value ? *value : machine.text("");
}

Value filter_length(Machine& machine, Args args, Kw) {
  const auto size = length(args[0]);
  if (const Text* text = args[0].text();
      text && !machine.step(static_cast<int64_t>(text->size() / 64)))
    return {};
  return size ? Value(*size)
              : machine.fail(cat("object of type '", type_name(args[0]), "' has no len()"));
}

Value filter_string(Machine& machine, Args args, Kw) { return Value(to_text(machine, args[0])); }

Value filter_int(Machine& machine, Args args, Kw kwargs) {
  const Value* fallback = argument(args, kwargs, 1, "default");
  const Value other = fallback ? *fallback : Value(int64_t{0});
  const Value& value = args[0];
  if (value.is_undefined()) return machine.fail_undefined(value);
  bool untrusted = value.untrusted;
  double real = 0;
  if (value.is_integral()) return Value(value.integer(), untrusted);
  if (const Text* text = value.text()) {
    const Text::Run run = strip_range(text->bytes, nullptr, true, true);
    const char *begin = text->bytes.data() + run.begin, *end = text->bytes.data() + run.end;
    if (begin != end && *begin == '+') ++begin;
    untrusted = text->any_untrusted();
    int64_t integer = 0;
    if (const auto [stop, code] = std::from_chars(begin, end, integer);
        code == std::errc() && stop == end) {
      return Value(integer, untrusted);
    }
    if (const auto [stop, code] = std::from_chars(begin, end, real);
        code != std::errc() || stop != end)
      return other;
  } else if (value.is<double>()) {
    real = value.real();
  } else {
    return other;
  }
  if (!(std::fabs(real) < 9e18)) return other;
  return Value(static_cast<int64_t>(real), untrusted);
}

Value filter_float(Machine& machine, Args args, Kw kwargs) {
  const Value* fallback = argument(args, kwargs, 1, "default");
  const Value& value = args[0];
  if (value.is_undefined()) return machine.fail_undefined(value);
  if (value.is_number()) return Value(value.real(), value.untrusted);
  if (const Text* text = value.text()) {
    const Text::Run run = strip_range(text->bytes, nullptr, true, true);
    const char* end = text->bytes.data() + run.end;
    double real = 0;
    const auto [stop, code] = std::from_chars(text->bytes.data() + run.begin, end, real);
    if (code == std::errc() && stop == end) return Value(real, text->any_untrusted());
  }
  return fallback ? *fallback : Value(0.0);
}

Value filter_abs(Machine& machine, Args args, Kw) {
  const Value& value = args[0];
  const bool negative = value.is_number() && value.real() < 0;
  return negate(machine, value, negative);
}

Value filter_round(Machine& machine, Args args, Kw kwargs) {
  if (!args[0].is_number())
    return machine.fail(cat("round: not a number but ", type_name(args[0])));
  const Value* digits = argument(args, kwargs, 1, "precision");
  if (digits && !digits->is_integral()) return machine.fail("round: precision is not an integer");
  const int64_t precision = digits ? digits->integer() : 0;
  const Value* how = argument(args, kwargs, 2, "method");
  const std::string method = how ? to_text(machine, *how)->bytes : "common";
  if (precision < -300 || precision > 300)
    return machine.fail(cat("round: precision ", precision, ", limit 300"));
  const double scale = std::pow(10.0, static_cast<double>(precision)), value = args[0].real();
  double out = 0;
  if (method == "ceil" || method == "floor") {
    out = (method == "ceil" ? std::ceil(value * scale) : std::floor(value * scale)) / scale;
  } else if (precision == 0) {
    out = std::nearbyint(value);
  } else if (precision > 0) {  // rounds the decimal digits, as Python does
    char buffer[700];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed,
                                   static_cast<int>(precision))
                         .ptr;
    std::from_chars(buffer, end, out);
  } else {
    out = std::nearbyint(value * scale) / scale;
  }
  return Value(out, args[0].untrusted);
}

Value filter_escape(Machine& machine, Args args, Kw) {
  const TextPtr text = to_text(machine, args[0]);
  if (!machine.take_text(5 * static_cast<int64_t>(text->size()))) return {};
  Text out;
  for (size_t pos = 0; pos < text->size(); ++pos) {
    const char c = text->bytes[pos];
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '\'' ? "&#39;"
                                    : c == '"'  ? "&#34;"
                                                : "";
    if (entity.empty()) {
      out.append(*text, pos, pos + 1);
    } else {
      out.append(entity, text->any_untrusted(pos, pos + 1));
    }
  }
  return machine.text(std::move(out));
}

Value filter_indent(Machine& machine, Args args, Kw kwargs) {
  const TextPtr text = to_text(machine, args[0]);
  const Value* width = argument(args, kwargs, 1, "width");
  Value pad = width && width->text() ? *width
                                     : arithmetic(machine, Op::kMul, machine.text(" "),
                                                  width ? *width : Value(int64_t{4}));
  if (machine.failed()) return {};
  const bool first = flag(args, kwargs, 2, "first", false),
             blank = flag(args, kwargs, 3, "blank", false);
  Text out;
  bool start = true;
  for (size_t pos = 0; pos < text->size() && machine.step();) {
    const size_t newline = text->bytes.find('\n', pos);
    const size_t end = newline == std::string::npos ? text->size() : newline + 1;
    const bool is_blank = end - pos == (newline == std::string::npos ? 0U : 1U);
    if (start ? first : (blank || !is_blank)) print(machine, pad, out);
    if (!machine.take(static_cast<int64_t>(end - pos))) return {};
    out.append(*text, pos, end);
    pos = end;
    start = false;
  }
  return machine.text(std::move(out));
}

struct Filter {
  std::string_view name;
  FilterFunction function;
};

constexpr Filter kFilters[] = {
    {"tojson", to_json},
    {"default", filter_default},
    {"d", filter_default},
    {"length", filter_length},
    {"count", filter_length},
    {"string", filter_string},
    {"safe", filter_string},
    {"trim", as_method<kStrip>},
    {"upper", as_method<kUpper>},
    {"lower", as_method<kLower>},
    {"title", as_method<kTitle>},
    {"capitalize", as_method<kCapitalize>},
    {"replace", as_method<kReplace>},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"round", filter_round},
    {"escape", filter_escape},
    {"e", filter_escape},
    {"indent", filter_indent},
    {"join", filter_join},
    {"list", filter_list},
    {"items", filter_items},
    {"first", filter_first},
    {"last", filter_last},
    {"reverse", filter_reverse},
    {"sort", filter_sort},
    {"dictsort", filter_dictsort},
    {"unique", filter_unique},
    {"min", filter_min},
    {"max", filter_max},
    {"sum", filter_sum},
    {"map", filter_map},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
};

const Filter* find_filter(std::string_view name) {
  const auto* filter = std::find_if(std::begin(kFilters), std::end(kFilters),
                                    [&](const Filter& f) { return f.name == name; });
  return filter == std::end(kFilters) ? nullptr : filter;
}

}  // namespace

bool is_known_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value call_filter(Machine& machine, std::string_view name, const std::vector<Value>& args,
                  const Kwargs& kwargs) {
  const Filter* filter = find_filter(name);
  if (!filter) return machine.unimplemented(cat("no filter named '", name.substr(0, 60), "'"));
  return filter->function(machine, args, kwargs);
}

}  // namespace rk::text::jinja
