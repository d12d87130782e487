#include "text/jinja_ops.h"

#include <algorithm>
#include <cmath>

namespace rk::text::jinja {
namespace {

Value type_error(Machine& machine, std::string_view symbol, const Value& left, const Value& right) {
  if (left.is_undefined()) return machine.fail_undefined(left);
  if (right.is_undefined()) return machine.fail_undefined(right);
  return machine.fail(cat("unsupported operand types for ", symbol, ": '", type_name(left),
                          "' and '", type_name(right), "'"));
}

Value overflow(Machine& machine) { return machine.fail("integer overflow"); }

Value repeat(Machine& machine, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  const int64_t size = length(value).value_or(0);
  const Text* text = value.text();
  const int64_t bytes =
      text ? static_cast<int64_t>(text->size()) : size * static_cast<int64_t>(sizeof(Value));
  int64_t total = 0;
  if (__builtin_mul_overflow(bytes, count, &total) || total > machine.limits.text_bytes) {
    return machine.fail(Code::kExhausted, cat("a value of ", bytes, " bytes times ", count));
  }
  if (bytes == 0 || !machine.step(count))
    return text ? machine.text("") : machine.list({}, value.list()->tuple);
  if (text) {
    if (!machine.take_text(total)) return {};
    Text out;
    for (int64_t i = 0; i < count; ++i) out.append(*text);
    return Value(std::make_shared<const Text>(std::move(out)));
  }
  if (!machine.take(total)) return {};
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
  }
  return machine.list(std::move(items), value.list()->tuple);
}

Value add(Machine& machine, const Value& left, const Value& right) {
  if (const Text* a = left.text(), *b = right.text(); a && b) {
    if (!machine.take_text(static_cast<int64_t>(a->size() + b->size()))) return {};
    auto out = std::make_shared<Text>();
    out->bytes.reserve(a->size() + b->size());
    out->append(*a);
    out->append(*b);
    return Value(TextPtr(std::move(out)));
  }
  const List *a = left.list(), *b = right.list();
  if (!a || !b || a->tuple != b->tuple) return type_error(machine, "+", left, right);
  if (!machine.take(static_cast<int64_t>((a->items.size() + b->items.size()) * sizeof(Value))))
    return {};
  std::vector<Value> items = a->items;
  items.insert(items.end(), b->items.begin(), b->items.end());
  return machine.list(std::move(items), a->tuple);
}

Value integer_power(Machine& machine, int64_t base, int64_t exponent) {
  if (exponent < 0)
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t out = 1;
  for (int64_t i = 0; i < exponent; ++i) {
    if (base == 0 || base == 1) return Value(base);
    if (base == -1) return Value(exponent % 2 ? int64_t{-1} : int64_t{1});
    if (__builtin_mul_overflow(out, base, &out)) return overflow(machine);
  }
  return Value(out);
}

Value integers(Machine& machine, Op op, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (op) {
    case Op::kAdd:
      return __builtin_add_overflow(a, b, &out) ? overflow(machine) : Value(out);
    case Op::kSub:
      return __builtin_sub_overflow(a, b, &out) ? overflow(machine) : Value(out);
    case Op::kMul:
      return __builtin_mul_overflow(a, b, &out) ? overflow(machine) : Value(out);
    case Op::kPow:
      return integer_power(machine, a, b);
    default:
      break;
  }
  if (b == 0) return machine.fail("division by zero");
  if (op == Op::kDiv) return Value(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) return op == Op::kMod ? Value(int64_t{0}) : integers(machine, Op::kSub, 0, a);
  const int64_t rest = a % b;
  const bool down = rest != 0 && (rest < 0) != (b < 0);
  return op == Op::kMod ? Value(rest + (down ? b : 0)) : Value(a / b - (down ? 1 : 0));
}

Value reals(Machine& machine, Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value(a + b);
    case Op::kSub:
      return Value(a - b);
    case Op::kMul:
      return Value(a * b);
    case Op::kPow:
      return Value(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) return machine.fail("division by zero");
  if (op == Op::kDiv) return Value(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return op == Op::kMod ? Value(rest) : Value(std::floor(a / b));
}

const char* symbol_of(Op op) {
  static constexpr const char* kSymbols[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSymbols[static_cast<int>(op)];
}

}  // namespace

Value arithmetic(Machine& machine, Op op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    Value out = left.is_integral() && right.is_integral()
                    ? integers(machine, op, left.integer(), right.integer())
                    : reals(machine, op, left.real(), right.real());
    out.untrusted = left.untrusted || right.untrusted;
    return out;
  }
  if (op == Op::kAdd) return add(machine, left, right);
  const auto sequence = [](const Value& v) { return v.text() || v.list(); };
  if (op == Op::kMul && sequence(left) && right.is_integral())
    return repeat(machine, left, right.integer());
  if (op == Op::kMul && left.is_integral() && sequence(right))
    return repeat(machine, right, left.integer());
  if (op == Op::kMod && left.text()) return machine.unimplemented("formatting of texts with %");
  return type_error(machine, symbol_of(op), left, right);
}

Value negate(Machine& machine, const Value& value, bool minus) {
  if (value.is_undefined()) return machine.fail_undefined(value);
  if (!value.is_number())
    return machine.fail(cat("bad operand type for unary -: '", type_name(value), "'"));
  Value out;
  if (value.is<double>()) {
    out = Value(minus ? -value.real() : value.real());
  } else {
    out = integers(machine, minus ? Op::kSub : Op::kAdd, 0, value.integer());
  }
  out.untrusted = value.untrusted;
  return out;
}

bool equal(Machine& machine, const Value& left, const Value& right) {
  if (!machine.step()) return false;
  if (left.is_integral() && right.is_integral()) return left.integer() == right.integer();
  if (left.is_number() && right.is_number()) return left.real() == right.real();
  if (const Text* a = left.text(), *b = right.text(); a && b) {
    return machine.step(static_cast<int64_t>(a->size() / 256)) && a->bytes == b->bytes;
  }
  if (const List* a = left.list(), *b = right.list(); a && b) {
    if (a->tuple != b->tuple || a->items.size() != b->items.size()) return false;
    for (size_t i = 0; i < a->items.size(); ++i) {
      if (!equal(machine, a->items[i], b->items[i])) return false;
    }
    return true;
  }
  if (const Dict* a = left.dict(), *b = right.dict(); a && b) {
    if (a->items.size() != b->items.size()) return false;
    for (const auto& [key, item] : a->items) {
      const Value* other = find_key(machine, *b, key);
      if (!other || !equal(machine, item, *other)) return false;
    }
    return true;
  }
  if (left.v.index() != right.v.index()) return false;
  if (left.ns() || left.loop() || left.callable()) {
    return left.ns() == right.ns() && left.loop() == right.loop() &&
           left.callable() == right.callable();
  }
  return left.is_none() || left.is_undefined();
}

bool less(Machine& machine, const Value& left, const Value& right) {
  if (!machine.step()) return false;
  if (left.is_integral() && right.is_integral()) return left.integer() < right.integer();
  if (left.is_number() && right.is_number()) return left.real() < right.real();
  if (const Text* a = left.text(), *b = right.text(); a && b) {
    return machine.step(static_cast<int64_t>(a->size() / 256)) && a->bytes < b->bytes;
  }
  if (const List* a = left.list(), *b = right.list(); a && b && a->tuple == b->tuple) {
    for (size_t i = 0; i < a->items.size() && i < b->items.size() && !machine.failed(); ++i) {
      if (!equal(machine, a->items[i], b->items[i])) return less(machine, a->items[i], b->items[i]);
    }
    return a->items.size() < b->items.size();
  }
  type_error(machine, "<", left, right);
  return false;
}

bool contains(Machine& machine, const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (!item.text()) {
      if (item.is_undefined()) {
        machine.fail_undefined(item);
      } else {
        machine.fail(cat("'in <string>' requires string as left operand, not ", type_name(item)));
      }
      return false;
    }
    return machine.step(static_cast<int64_t>(text->size() / 256)) &&
           find_bytes(text->bytes, item.text()->bytes, 0) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) return find_key(machine, *dict, item) != nullptr;
  if (const List* list = container.list()) {
    for (const Value& candidate : list->items) {
      if (equal(machine, candidate, item)) return true;
    }
    return false;
  }
  if (!container.is_undefined()) {
    machine.fail(cat("argument of type '", type_name(container), "' is not iterable"));
  }
  return false;
}

bool compare(Machine& machine, Op op, const Value& left, const Value& right) {
  switch (op) {
    case Op::kEq:
      return equal(machine, left, right);
    case Op::kNe:
      return !equal(machine, left, right);
    case Op::kLt:
      return less(machine, left, right);
    case Op::kGt:
      return less(machine, right, left);
    case Op::kLe:
    case Op::kGe:
      if (left.is<double>() || right.is<double>()) {  // NaN is neither less nor greater
        if (left.is_number() && right.is_number()) {
          return op == Op::kLe ? left.real() <= right.real() : left.real() >= right.real();
        }
      }
      return op == Op::kLe ? !less(machine, right, left) : !less(machine, left, right);
    case Op::kIn:
      return contains(machine, right, left);
    default:
      return !contains(machine, right, left);
  }
}

}  // namespace rk::text::jinja
