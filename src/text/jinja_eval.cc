#include "text/jinja_eval.h"

#include "text/jinja_ops.h"

namespace rk::text::jinja {

Text Evaluator::run(Scope& globals) {
  Text out;
  run_body(program_.body, globals, out);
  return out;
}

Evaluator::Flow Evaluator::run_body(const Body& body, Scope& scope, Text& out) {
  for (const auto& stmt : body) {
    if (!machine_.step()) return Flow::kBreak;
    machine_.line = stmt->line;
    if (++machine_.depth > machine_.limits.depth)
      machine_.fail(Code::kExhausted, "nested too deeply");
    const Flow flow = machine_.failed() ? Flow::kBreak : run_statement(*stmt, scope, out);
    --machine_.depth;
    if (flow != Flow::kNext) return flow;
  }
  return machine_.failed() ? Flow::kBreak : Flow::kNext;
}

Evaluator::Flow Evaluator::run_statement(const Stmt& stmt, Scope& scope, Text& out) {
  switch (stmt.kind) {
    case StmtKind::kData:
      print(machine_, stmt.data, out);
      return Flow::kNext;
    case StmtKind::kPrint: {
      const Value value = eval(*stmt.expr, scope);
      print(machine_, value, out);
      return Flow::kNext;
    }
    case StmtKind::kIf:
      return run_if(stmt, scope, out);
    case StmtKind::kFor:
      return run_for(stmt, scope, out);
    case StmtKind::kSet:
      return run_set(stmt, scope);
    case StmtKind::kSetBlock:
      return run_set_block(stmt, scope);
    case StmtKind::kMacro:
    case StmtKind::kCallBlock: {
      auto macro = std::make_shared<Callable>();
      macro->macro = &stmt;
      macro->scope = &scope;
      macro->name = stmt.name;
      Value value(std::shared_ptr<const Callable>(std::move(macro)));
      if (stmt.kind == StmtKind::kMacro) {
        scope.set(stmt.targets.back().name_id, std::move(value));
      } else {
        print(machine_, eval_call(*stmt.expr, scope, &value), out);
      }
      return Flow::kNext;
    }
    case StmtKind::kFilterBlock: {
      Text body;
      Scope inner{&scope};
      run_body(stmt.bodies[0], inner, body);
      print(machine_, eval_filter_chain(*stmt.expr, machine_.text(std::move(body)), scope), out);
      return Flow::kNext;
    }
    case StmtKind::kWith:
      return run_with(stmt, scope, out);
    case StmtKind::kGroup:
      return run_body(stmt.bodies[0], scope, out);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_if(const Stmt& stmt, Scope& scope, Text& out) {
  for (size_t i = 0; i < stmt.bodies.size(); ++i) {
    const bool otherwise = i >= stmt.conditions.size();
    if (otherwise || truthy(eval(*stmt.conditions[i], scope))) {
      return machine_.failed() ? Flow::kBreak : run_body(stmt.bodies[i], scope, out);
    }
  }
  return Flow::kNext;
}

std::vector<Value> Evaluator::filter_items(const Stmt& stmt, std::vector<Value> items,
                                           Scope& scope) {
  if (stmt.conditions.empty()) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    Scope inner{&scope};
    assign(stmt, item, inner, true);
    if (truthy(eval(*stmt.conditions[0], inner))) kept.push_back(std::move(item));
    if (machine_.failed()) break;
  }
  return kept;
}

Evaluator::Flow Evaluator::run_for(const Stmt& stmt, Scope& scope, Text& out) {
  const std::vector<Value> items =
      filter_items(stmt, iterate(machine_, eval(*stmt.expr, scope)), scope);
  if (machine_.failed()) return Flow::kBreak;
  if (items.empty()) {
    if (stmt.bodies.size() < 2) return Flow::kNext;
    Scope inner{&scope};
    return run_body(stmt.bodies[1], inner, out);
  }
  Loop loop{&items, 0, ++loop_depth_};
  for (; loop.index < items.size() && machine_.step(); ++loop.index) {
    Scope inner{&scope};
    inner.set(program_.loop_id, Value(static_cast<const Loop*>(&loop)));
    assign(stmt, items[loop.index], inner, true);
    if (machine_.failed() || run_body(stmt.bodies[0], inner, out) == Flow::kBreak) break;
  }
  --loop_depth_;
  return machine_.failed() ? Flow::kBreak : Flow::kNext;
}

void Evaluator::assign_one(const Target& target, Value value, Scope& scope) {
  if (target.attribute.empty()) {
    scope.set(target.name_id, std::move(value));
    return;
  }
  const Value* found = scope.find(target.name_id);
  Namespace* ns = found ? found->ns() : nullptr;
  if (!ns) {
    machine_.fail("cannot assign attribute on non-namespace object");
  } else if (is_pinned(value)) {
    machine_.unimplemented(cat("a ", type_name(value), " inside a namespace"));
  } else if (machine_.step(static_cast<int64_t>(ns->items.size() / 8))) {
    for (auto& [name, old] : ns->items) {
      if (name == target.attribute) {
        old = std::move(value);
        return;
      }
    }
    ns->items.emplace_back(target.attribute, std::move(value));
  }
}

void Evaluator::assign(const Stmt& stmt, Value value, Scope& scope, bool in_loop) {
  if (!stmt.unpack && stmt.targets.size() == 1) {
    assign_one(stmt.targets[0], std::move(value), scope);
    return;
  }
  if (in_loop && value.is_undefined()) machine_.fail_undefined(value);
  std::vector<Value> items = iterate(machine_, value);
  if (machine_.failed()) return;
  if (items.size() != stmt.targets.size()) {
    machine_.fail(
        cat("cannot unpack ", items.size(), " values into ", stmt.targets.size(), " names"));
    return;
  }
  for (size_t i = 0; i < items.size(); ++i) assign_one(stmt.targets[i], std::move(items[i]), scope);
}

Evaluator::Flow Evaluator::run_set(const Stmt& stmt, Scope& scope) {
  Value value = eval(*stmt.expr, scope);
  if (!machine_.failed()) assign(stmt, std::move(value), scope, false);
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_set_block(const Stmt& stmt, Scope& scope) {
  Text body;
  Scope inner{&scope};
  const Flow flow = run_body(stmt.bodies[0], inner, body);
  if (flow != Flow::kNext) return flow;
  assign_one(stmt.targets[0], eval_filter_chain(*stmt.expr, machine_.text(std::move(body)), scope),
             scope);
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_with(const Stmt& stmt, Scope& scope, Text& out) {
  Scope inner{&scope};
  for (size_t i = 0; i < stmt.targets.size(); ++i) {
    assign_one(stmt.targets[i], eval(*stmt.conditions[i], scope), inner);
  }
  return machine_.failed() ? Flow::kBreak : run_body(stmt.bodies[0], inner, out);
}

}  // namespace rk::text::jinja
