// Tests: `value is name(args)`.
#include <algorithm>
#include <iterator>

#include "text/jinja_ops.h"

namespace rk::text::jinja {
namespace {

using TestFunction = bool (*)(Machine& machine, const std::vector<Value>& args);
using Args = const std::vector<Value>&;

template <Op op>
bool compares(Machine& machine, Args args) {
  return compare(machine, op, args[0], args[1]);
}

template <bool odd>
bool parity(Machine& machine, Args args) {
  if (!args[0].is_integral())
    machine.fail(cat("odd/even: not an integer but ", type_name(args[0])));
  return args[0].is_integral() && (args[0].integer() % 2 != 0) == odd;
}

bool divisible(Machine& machine, Args args) {
  const Value rest = arithmetic(machine, Op::kMod, args[0], args[1]);
  return !machine.failed() && !truthy(rest);
}

template <bool upper>
bool letters(Machine& machine, Args args) {
  const Value text(to_text(machine, args[0]));
  return truthy(call_method(machine, text, upper ? "isupper" : "islower", {}, {}));
}

bool same_as(Machine& machine, Args args) {
  return args[0].v.index() == args[1].v.index() && equal(machine, args[0], args[1]);
}

struct Test {
  std::string_view name;
  size_t arguments;
  TestFunction function;
};

constexpr Test kTests[] = {
    {"defined", 0, [](Machine&, Args a) { return !a[0].is_undefined(); }},
    {"undefined", 0, [](Machine&, Args a) { return a[0].is_undefined(); }},
    {"none", 0, [](Machine&, Args a) { return a[0].is_none(); }},
    {"string", 0, [](Machine&, Args a) { return a[0].text() != nullptr; }},
    {"mapping", 0, [](Machine&, Args a) { return a[0].dict() != nullptr; }},
    {"number", 0, [](Machine&, Args a) { return a[0].is_number(); }},
    {"integer", 0, [](Machine&, Args a) { return a[0].is<int64_t>(); }},
    {"float", 0, [](Machine&, Args a) { return a[0].is<double>(); }},
    {"boolean", 0, [](Machine&, Args a) { return a[0].is<bool>(); }},
    {"true", 0, [](Machine&, Args a) { return a[0].is<bool>() && a[0].integer() == 1; }},
    {"false", 0, [](Machine&, Args a) { return a[0].is<bool>() && a[0].integer() == 0; }},
    {"iterable", 0, [](Machine&, Args a) { return length(a[0]).has_value() || a[0].loop(); }},
    {"sequence", 0, [](Machine&, Args a) { return length(a[0]).has_value(); }},
    {"callable", 0, [](Machine&, Args a) { return a[0].callable() != nullptr; }},
    {"upper", 0, letters<true>},
    {"lower", 0, letters<false>},
    {"odd", 0, parity<true>},
    {"even", 0, parity<false>},
    {"divisibleby", 1, divisible},
    {"sameas", 1, same_as},
    {"eq", 1, compares<Op::kEq>},
    {"equalto", 1, compares<Op::kEq>},
    {"ne", 1, compares<Op::kNe>},
    {"lt", 1, compares<Op::kLt>},
    {"lessthan", 1, compares<Op::kLt>},
    {"le", 1, compares<Op::kLe>},
    {"gt", 1, compares<Op::kGt>},
    {"greaterthan", 1, compares<Op::kGt>},
    {"ge", 1, compares<Op::kGe>},
    {"in", 1, compares<Op::kIn>},
    {"filter", 0,
     [](Machine&, Args a) { return a[0].text() && is_known_filter(a[0].text()->bytes); }},
    {"test", 0, [](Machine&, Args a) { return a[0].text() && is_known_test(a[0].text()->bytes); }},
};

const Test* find_test(std::string_view name) {
  const auto* test = std::find_if(std::begin(kTests), std::end(kTests),
                                  [&](const Test& t) { return t.name == name; });
  return test == std::end(kTests) ? nullptr : test;
}

}  // namespace

bool is_known_test(std::string_view name) { return find_test(name) != nullptr; }

bool call_test(Machine& machine, std::string_view name, const std::vector<Value>& args) {
  const Test* test = find_test(name);
  if (!test) {
    machine.unimplemented(cat("no test named '", name.substr(0, 60), "'"));
    return false;
  }
  if (args.size() != test->arguments + 1) {
    machine.fail(
        cat("test '", name, "' takes ", test->arguments, " argument(s), got ", args.size() - 1));
    return false;
  }
  return test->function(machine, args);
}

}  // namespace rk::text::jinja
