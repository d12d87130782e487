#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace rk::text::jinja {

Value Evaluator::eval(const Expr& expr, Scope& scope) {
  if (!machine_.step()) return {};
  if (expr.kind == ExprKind::kLiteral) return expr.literal;
  if (expr.kind == ExprKind::kName) return eval_name(expr, scope);
  if (++machine_.depth > machine_.limits.depth) {
    machine_.fail(Code::kExhausted, cat("nested more than ", machine_.limits.depth, " deep"));
  }
  Value out;
  if (!machine_.failed()) out = eval_node(expr, scope);
  --machine_.depth;
  return out;
}

Value Evaluator::eval_node(const Expr& expr, Scope& scope) {
  const auto arg = [&](size_t i) { return eval(*expr.args[i], scope); };
  switch (expr.kind) {
    case ExprKind::kList:
    case ExprKind::kDict:
      return eval_sequence(expr, scope);
    case ExprKind::kNeg:
    case ExprKind::kPos:
      return negate(machine_, arg(0), expr.kind == ExprKind::kNeg);
    case ExprKind::kNot:
      return Value(!truthy(arg(0)));
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      Value left = arg(0);
      return truthy(left) == (expr.kind == ExprKind::kOr) ? left : arg(1);
    }
    case ExprKind::kMath: {
      const Value left = arg(0), right = arg(1);
      return machine_.failed() ? Value() : arithmetic(machine_, expr.op, left, right);
    }
    case ExprKind::kConcat:
      return eval_concat(expr, scope);
    case ExprKind::kCompare:
      return eval_compare(expr, scope);
    case ExprKind::kCond:
      return eval_cond(expr, scope);
    case ExprKind::kAttr: {
      const Value object = arg(0);
      return machine_.failed() ? Value() : get_attribute(machine_, object, expr.name, expr.literal);
    }
    case ExprKind::kItem: {
      const Value object = arg(0), key = arg(1);
      return machine_.failed() ? Value() : get_item(machine_, object, key);
    }
    case ExprKind::kSlice:
      return eval_slice(expr, scope);
    case ExprKind::kCall:
      return eval_call(expr, scope);
    case ExprKind::kFilter:
      return eval_filter(expr, scope);
    case ExprKind::kTest:
      return eval_test(expr, scope);
    default:
      return expr.literal;
  }
}

Value Evaluator::eval_name(const Expr& expr, Scope& scope) {
  if (const Value* value = scope.find(expr.name_id)) return *value;
  if (is_global_function(expr.name)) {
    auto function = std::make_shared<Callable>();
    function->name = expr.name;
    return Value(std::shared_ptr<const Callable>(std::move(function)));
  }
  return machine_.undefined(cat("'", expr.name, "' is undefined"));
}

Value Evaluator::eval_sequence(const Expr& expr, Scope& scope) {
  std::vector<Value> items;
  for (const ExprPtr& arg : expr.args) items.push_back(eval(*arg, scope));
  if (machine_.failed()) return {};
  if (expr.kind == ExprKind::kList) return machine_.list(std::move(items), expr.tuple);
  std::vector<std::pair<Value, Value>> pairs;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i].dict() || (items[i].list() && !items[i].list()->tuple)) {
      return machine_.fail(cat("unhashable type: '", type_name(items[i]), "'"));
    }
    size_t at = 0;
    while (at < pairs.size() && !equal(machine_, pairs[at].first, items[i])) ++at;
    if (at == pairs.size()) {
      pairs.emplace_back(std::move(items[i]), std::move(items[i + 1]));
    } else {
      pairs[at].second = std::move(items[i + 1]);
    }
  }
  return machine_.dict(std::move(pairs));
}

Value Evaluator::eval_compare(const Expr& expr, Scope& scope) {
  Value left = eval(*expr.args[0], scope);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = eval(*expr.args[i + 1], scope);
    if (machine_.failed() || !compare(machine_, expr.ops[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Evaluator::eval_cond(const Expr& expr, Scope& scope) {
  if (truthy(eval(*expr.args[0], scope))) return eval(*expr.args[1], scope);
  if (expr.args.size() > 2) return eval(*expr.args[2], scope);
  return machine_.undefined(
      "the inline if-expression evaluated to false and no else section was defined");
}

Value Evaluator::eval_concat(const Expr& expr, Scope& scope) {
  Text out;
  for (const ExprPtr& arg : expr.args) print(machine_, eval(*arg, scope), out);
  return machine_.text(std::move(out));
}

Value Evaluator::eval_slice(const Expr& expr, Scope& scope) {
  const Value object = eval(*expr.args[0], scope);
  Value ends[3] = {Value(None{}), Value(None{}), Value(None{})};
  for (size_t i = 0; i < 3; ++i) {
    if (expr.args[i + 1]) ends[i] = eval(*expr.args[i + 1], scope);
  }
  return machine_.failed() ? Value() : get_slice(machine_, object, ends[0], ends[1], ends[2]);
}

void Evaluator::eval_arguments(const Expr& expr, Scope& scope, std::vector<Value>& args,
                               Kwargs& kwargs) {
  for (size_t i = 1; i < expr.args.size(); ++i) args.push_back(eval(*expr.args[i], scope));
  for (const auto& [name, arg] : expr.kwargs) kwargs.emplace_back(name, eval(*arg, scope));
}

Value Evaluator::eval_test(const Expr& expr, Scope& scope) {
  std::vector<Value> args;
  Kwargs kwargs;
  args.push_back(eval(*expr.args[0], scope));
  eval_arguments(expr, scope, args, kwargs);
  return machine_.failed() ? Value() : Value(call_test(machine_, expr.name, args));
}

Value Evaluator::eval_filter(const Expr& expr, Scope& scope) {
  std::vector<Value> args;
  Kwargs kwargs;
  args.push_back(eval(*expr.args[0], scope));
  eval_arguments(expr, scope, args, kwargs);
  return machine_.failed() ? Value() : call_filter(machine_, expr.name, args, kwargs);
}

Value Evaluator::eval_filter_chain(const Expr& expr, Value input, Scope& scope) {
  if (expr.kind != ExprKind::kFilter) return input;
  std::vector<Value> args;
  Kwargs kwargs;
  args.push_back(eval_filter_chain(*expr.args[0], std::move(input), scope));
  eval_arguments(expr, scope, args, kwargs);
  return machine_.failed() ? Value() : call_filter(machine_, expr.name, args, kwargs);
}

Value Evaluator::eval_call(const Expr& expr, Scope& scope, const Value* caller) {
  const Expr& target = *expr.args[0];
  std::vector<Value> args;
  Kwargs kwargs;
  if (target.kind == ExprKind::kAttr) {  // a method, called without making it a value first
    const Value self = eval(*target.args[0], scope);
    if (machine_.failed()) return {};
    if (has_method(self, target.name)) {
      eval_arguments(expr, scope, args, kwargs);
      return machine_.failed() ? Value() : call_method(machine_, self, target.name, args, kwargs);
    }
    const Value callee = get_attribute(machine_, self, target.name, target.literal);
    eval_arguments(expr, scope, args, kwargs);
    return call(callee, args, kwargs, caller);
  }
  const Value callee = eval(target, scope);
  eval_arguments(expr, scope, args, kwargs);
  return call(callee, args, kwargs, caller);
}

Value Evaluator::call(const Value& callee, const std::vector<Value>& args, const Kwargs& kwargs,
                      const Value* caller) {
  if (machine_.failed()) return {};
  if (callee.is_undefined()) return machine_.fail_undefined(callee);
  const Callable* function = callee.callable();
  if (!function) return machine_.fail(cat("'", type_name(callee), "' object is not callable"));
  if (function->macro) return call_macro(*function, args, kwargs, caller);
  if (!function->self.is_undefined())
    return call_method(machine_, function->self, function->name, args, kwargs);
  return call_global_function(machine_, function->name, args, kwargs);
}

Value Evaluator::call_macro(const Callable& macro, const std::vector<Value>& args,
                            const Kwargs& kwargs, const Value* caller) {
  const int line = machine_.line;
  if (++machine_.depth > machine_.limits.depth)
    machine_.fail(Code::kExhausted, "macros nested too deeply");
  Scope scope{macro.scope};
  Text out;
  bind_parameters(*macro.macro, args, kwargs, scope);
  if (caller) scope.set(program_.caller_id, *caller);
  if (!machine_.failed()) run_body(macro.macro->bodies[0], scope, out);
  --machine_.depth;
  if (!machine_.failed()) machine_.line = line;
  return machine_.text(std::move(out));
}

void Evaluator::bind_parameters(const Stmt& macro, const std::vector<Value>& args,
                                const Kwargs& kwargs, Scope& scope) {
  const size_t count = macro.parameters.size();
  if (args.size() > count) {
    machine_.fail(cat("macro '", macro.name, "' takes not more than ", count, " argument(s)"));
  }
  size_t used = 0;
  for (size_t i = 0; i < count && !machine_.failed(); ++i) {
    const Value* given = i < args.size() ? &args[i] : nullptr;
    for (const auto& [name, value] : kwargs) {
      if (name != macro.parameters[i]) continue;
      if (given) machine_.fail(cat("macro '", macro.name, "' got two values for '", name, "'"));
      given = &value;
      ++used;
    }
    const size_t without = count - macro.defaults.size();
    Value value;
    if (given) {
      value = *given;
    } else if (i >= without) {
      value = eval(*macro.defaults[i - without], scope);
    } else {
      value = machine_.undefined(cat("parameter '", macro.parameters[i], "' was not provided"));
    }
    scope.set(macro.targets[i].name_id, std::move(value));
  }
  if (used < kwargs.size() && !machine_.failed()) {
    machine_.fail(cat("macro '", macro.name, "' got an unexpected keyword argument"));
  }
}

}  // namespace rk::text::jinja
