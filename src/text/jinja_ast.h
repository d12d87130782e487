// The parsed template. Immutable after parsing; every path through it is at most kMaxDepth nodes
// long, so that recursion over it is safe.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace rk::text::jinja {

inline constexpr int kMaxDepth = 120;

enum class ExprKind {
  kLiteral,
  kName,
  kList,  ///< also tuples
  kDict,  ///< args: key, value, key, value, ...
  kNeg,
  kPos,
  kNot,
  kAnd,
  kOr,
  kMath,  ///< op
  kConcat,
  kCompare,  ///< args[0] ops[0] args[1] ops[1] ...
  kCond,     ///< args: condition, then, else (may be missing)
  kAttr,     ///< args[0].name
  kItem,     ///< args[0][args[1]]
  kSlice,    ///< args: object, start, stop, step; null where left out
  kCall,     ///< args[0](args[1:], kwargs)
  kFilter,   ///< args[0] | name(args[1:], kwargs)
  kTest,     ///< args[0] is name(args[1:])
};

enum class Op {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;  ///< nodes on the longest path down
  bool tuple = false;
  Op op = Op::kAdd;
  int name_id = -1;
  Value literal;
  std::string name;
  std::vector<ExprPtr> args;
  std::vector<Op> ops;
  std::vector<std::pair<std::string, ExprPtr>> kwargs;
};

using FilterFunction = Value (*)(Machine&, const std::vector<Value>& args, const Kwargs& kwargs);

enum class StmtKind {
  kData,
  kPrint,
  kIf,   ///< conditions and bodies; one more body for else
  kFor,  ///< expr: items; condition; bodies[0] and the else in bodies[1]
  kSet,
  kSetBlock,  ///< filters in `expr` over a literal that stands for the body
  kMacro,
  kCallBlock,  ///< expr: the call; parameters and body as a macro's
  kFilterBlock,
  kWith,  ///< targets and conditions (their values)
  kBreak,
  kContinue,
  kGroup,  ///< bodies[0] as it is
};

struct Target {
  int name_id = -1;
  std::string attribute;  ///< not empty: namespace attribute
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Stmt {
  StmtKind kind;
  int line = 0;
  Value data;
  ExprPtr expr;
  std::vector<ExprPtr> conditions;
  std::vector<Body> bodies;
  std::vector<Target> targets;
  bool unpack = false;  ///< targets are a tuple even if there is one
  std::string name;
  std::vector<ExprPtr> defaults;  ///< of the last targets of a macro
  std::vector<std::string> parameters;
};

struct Template {
  Body body;
  std::map<std::string, int, std::less<>> names;  ///< ids of all names that are read or set
  int loop_id = -1, caller_id = -1;
  /// Id of a name for a variable from outside, -1 where the template never mentions it.
  int find_name(std::string_view name) const {
    const auto it = names.find(name);
    return it == names.end() ? -1 : it->second;
  }
};

/// Errors: kInvalidArgument with line and reason; kUnimplemented for what the subset leaves out.
Result<std::unique_ptr<Template>> parse_template(std::string_view source);

bool is_known_filter(std::string_view name);
bool is_known_test(std::string_view name);

}  // namespace rk::text::jinja
