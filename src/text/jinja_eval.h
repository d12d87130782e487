// Runs a parsed template. One Evaluator per rendering; engine or server thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace rk::text::jinja {

/// Variables of one block. Scopes live on the evaluator's stack; macros point to the one they were
/// made in, and as pinned values never outlive it.
struct Scope {
  const Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> variables = {};

  const Value* find(int id) const {
    for (const Scope* scope = this; scope; scope = scope->parent) {
      for (const auto& [name, value] : scope->variables) {
        if (name == id) return &value;
      }
    }
    return nullptr;
  }
  void set(int id, Value value) {
    for (auto& [name, old] : variables) {
      if (name == id) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(id, std::move(value));
  }
};

class Evaluator {
 public:
  Evaluator(const Template& program, Machine& machine) : program_(program), machine_(machine) {}

  /// The output; look at the machine for an error.
  Text run(Scope& globals);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // jinja_eval.cc: statements
  Flow run_body(const Body& body, Scope& scope, Text& out);
  Flow run_statement(const Stmt& stmt, Scope& scope, Text& out);
  Flow run_if(const Stmt& stmt, Scope& scope, Text& out);
  Flow run_for(const Stmt& stmt, Scope& scope, Text& out);
  Flow run_set(const Stmt& stmt, Scope& scope);
  Flow run_set_block(const Stmt& stmt, Scope& scope);
  Flow run_with(const Stmt& stmt, Scope& scope, Text& out);
  void assign(const Stmt& stmt, Value value, Scope& scope, bool in_loop);
  void assign_one(const Target& target, Value value, Scope& scope);
  std::vector<Value> filter_items(const Stmt& stmt, std::vector<Value> items, Scope& scope);

  // jinja_eval_expr.cc
  Value eval(const Expr& expr, Scope& scope);
  Value eval_node(const Expr& expr, Scope& scope);
  Value eval_name(const Expr& expr, Scope& scope);
  Value eval_sequence(const Expr& expr, Scope& scope);
  Value eval_compare(const Expr& expr, Scope& scope);
  Value eval_cond(const Expr& expr, Scope& scope);
  Value eval_concat(const Expr& expr, Scope& scope);
  Value eval_slice(const Expr& expr, Scope& scope);
  Value eval_test(const Expr& expr, Scope& scope);
  Value eval_filter(const Expr& expr, Scope& scope);
  Value eval_call(const Expr& expr, Scope& scope, const Value* caller = nullptr);
  /// A chain of filters over `input`, which stands where the chain's literal is.
  Value eval_filter_chain(const Expr& expr, Value input, Scope& scope);
  void eval_arguments(const Expr& expr, Scope& scope, std::vector<Value>& args, Kwargs& kwargs);
  Value call(const Value& callee, const std::vector<Value>& args, const Kwargs& kwargs,
             const Value* caller);
  Value call_macro(const Callable& macro, const std::vector<Value>& args, const Kwargs& kwargs,
                   const Value* caller);
  /// Sets the parameters of a macro; false after an error.
  void bind_parameters(const Stmt& macro, const std::vector<Value>& args, const Kwargs& kwargs,
                       Scope& scope);

  const Template& program_;
  Machine& machine_;
  int loop_depth_ = 0;
};

// jinja_globals.cc
bool is_global_function(std::string_view name);
Value call_global_function(Machine& machine, std::string_view name, const std::vector<Value>& args,
                           const Kwargs& kwargs);

}  // namespace rk::text::jinja
