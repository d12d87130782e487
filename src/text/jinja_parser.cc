#include "text/jinja_parser.h"

#include <algorithm>

namespace rk::text::jinja {

Result<std::unique_ptr<Template>> parse_template(std::string_view source) {
  RK_TRY(auto tokens, lex(source));
  return Parser(std::move(tokens)).run();
}

void Parser::fail(std::string_view what, Code code) {
  if (status_.ok()) status_ = Status(code, cat("chat template, line ", current().line, ": ", what));
  pos_ = tokens_.size() - 1;
}

std::string Parser::describe(const Token& token) const {
  switch (token.kind) {
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kPrintEnd:
      return "'}}'";
    default:
      return cat("'", token.text.substr(0, 60), "'");
  }
}

bool Parser::skip_op(std::string_view op) {
  if (!current().is_op(op)) return false;
  next();
  return true;
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

void Parser::expect_op(std::string_view op) {
  if (!skip_op(op)) fail(cat("expected '", op, "', got ", describe(current())));
}

std::string Parser::expect_name() {
  if (current().kind != TokenKind::kName) {
    fail(cat("expected a name, got ", describe(current())));
    return "";
  }
  std::string name = current().text;
  next();
  return name;
}

int Parser::name_id(const std::string& name) {
  return out_->names.emplace(name, static_cast<int>(out_->names.size())).first->second;
}

ExprPtr Parser::make(ExprKind kind) {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = current().line;
  return node;
}

ExprPtr Parser::check_depth(ExprPtr node) {
  for (const ExprPtr& arg : node->args) {
    if (arg) node->depth = std::max(node->depth, arg->depth + 1);
  }
  for (const auto& [name, arg] : node->kwargs) {
    if (arg) node->depth = std::max(node->depth, arg->depth + 1);
  }
  if (node->depth > kMaxDepth) fail("expression nested too deeply");
  return node;
}

ExprPtr Parser::binary(ExprKind kind, Op op, ExprPtr left, ExprPtr right) {
  ExprPtr node = make(kind);
  if (left) node->line = left->line;
  node->op = op;
  node->args.push_back(std::move(left));
  node->args.push_back(std::move(right));
  return check_depth(std::move(node));
}

ExprPtr Parser::parse_expression(bool with_condition) {
  Nested nested(*this);
  ExprPtr left = parse_or();
  while (with_condition && skip_name("if")) {
    ExprPtr node = make(ExprKind::kCond);
    node->args.push_back(parse_or());
    node->args.push_back(std::move(left));
    if (skip_name("else")) node->args.push_back(parse_expression());
    left = check_depth(std::move(node));
  }
  return left;
}

ExprPtr Parser::parse_or() {
  ExprPtr left = parse_and();
  while (skip_name("or")) left = binary(ExprKind::kOr, Op::kAdd, std::move(left), parse_and());
  return left;
}

ExprPtr Parser::parse_and() {
  ExprPtr left = parse_not();
  while (skip_name("and")) left = binary(ExprKind::kAnd, Op::kAdd, std::move(left), parse_not());
  return left;
}

ExprPtr Parser::parse_not() {
  if (!current().is_name("not")) return parse_compare();
  Nested nested(*this);
  ExprPtr node = make(ExprKind::kNot);
  next();
  node->args.push_back(parse_not());
  return check_depth(std::move(node));
}

ExprPtr Parser::parse_compare() {
  static constexpr std::pair<std::string_view, Op> kOps[] = {{"==", Op::kEq}, {"!=", Op::kNe},
                                                             {"<", Op::kLt},  {"<=", Op::kLe},
                                                             {">", Op::kGt},  {">=", Op::kGe}};
  ExprPtr left = parse_sum();
  ExprPtr node;
  while (!failed()) {
    std::optional<Op> op;
    for (const auto& [text, code] : kOps) {
      if (current().is_op(text)) op = code;
    }
    if (current().is_name("in")) op = Op::kIn;
    if (current().is_name("not") && ahead().is_name("in")) {
      next();
      op = Op::kNotIn;
    }
    if (!op) break;
    if (!node) {
      node = make(ExprKind::kCompare);
      node->args.push_back(std::move(left));
    }
    next();
    node->ops.push_back(*op);
    node->args.push_back(parse_sum());
  }
  return node ? check_depth(std::move(node)) : std::move(left);
}

ExprPtr Parser::parse_sum() {
  ExprPtr left = parse_concat();
  while (current().is_op("+") || current().is_op("-")) {
    const Op op = current().text == "+" ? Op::kAdd : Op::kSub;
    next();
    left = binary(ExprKind::kMath, op, std::move(left), parse_concat());
  }
  return left;
}

ExprPtr Parser::parse_concat() {
  ExprPtr left = parse_product();
  if (!current().is_op("~")) return left;
  ExprPtr node = make(ExprKind::kConcat);
  node->args.push_back(std::move(left));
  while (skip_op("~")) node->args.push_back(parse_product());
  return check_depth(std::move(node));
}

ExprPtr Parser::parse_product() {
  static constexpr std::pair<std::string_view, Op> kOps[] = {
      {"*", Op::kMul}, {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}};
  ExprPtr left = parse_power();
  while (current().kind == TokenKind::kOp) {
    const auto* found = std::find_if(std::begin(kOps), std::end(kOps),
                                     [&](const auto& op) { return op.first == current().text; });
    if (found == std::end(kOps)) break;
    next();
    left = binary(ExprKind::kMath, found->second, std::move(left), parse_power());
  }
  return left;
}

ExprPtr Parser::parse_power() {
  ExprPtr left = parse_unary();
  while (skip_op("**")) left = binary(ExprKind::kMath, Op::kPow, std::move(left), parse_unary());
  return left;
}

ExprPtr Parser::parse_unary(bool with_filters) {
  ExprPtr node;
  if (current().is_op("-") || current().is_op("+")) {
    Nested nested(*this);
    node = make(current().is_op("-") ? ExprKind::kNeg : ExprKind::kPos);
    next();
    node->args.push_back(parse_unary(false));
    node = check_depth(std::move(node));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters(std::move(node)) : std::move(node);
}

ExprPtr Parser::parse_primary() {
  const Token& token = current();
  ExprPtr node = make(ExprKind::kLiteral);
  if (token.kind == TokenKind::kName) {
    if (token.text == "true" || token.text == "True" || token.text == "false" ||
        token.text == "False") {
      node->literal = Value(token.text == "true" || token.text == "True");
    } else if (token.text == "none" || token.text == "None") {
      node->literal = Value(None{});
    } else {
      node->kind = ExprKind::kName;
      node->name = token.text;
      node->name_id = name_id(token.text);
    }
    next();
  } else if (token.kind == TokenKind::kString) {
    std::string text;
    for (; current().kind == TokenKind::kString; next()) text += current().text;
    node->literal = Value(std::make_shared<const Text>(text));
  } else if (token.kind == TokenKind::kInt || token.kind == TokenKind::kFloat) {
    node->literal = token.kind == TokenKind::kInt ? Value(token.integer) : Value(token.real);
    next();
  } else if (skip_op("(")) {
    node = parse_tuple(true, true);
    expect_op(")");
  } else if (skip_op("[")) {
    node = parse_list();
  } else if (skip_op("{")) {
    node = parse_dict();
  } else {
    fail(cat("unexpected ", describe(token)));
  }
  return node;
}

ExprPtr Parser::parse_tuple(bool with_condition, bool parenthesised) {
  ExprPtr node = make(ExprKind::kList);
  node->tuple = true;
  bool is_tuple = false;
  const auto at_end = [&] {
    const Token& t = current();
    return t.kind == TokenKind::kBlockEnd || t.kind == TokenKind::kPrintEnd ||
           t.kind == TokenKind::kEnd || t.is_op(")");
  };
  while (!at_end()) {
    if (!node->args.empty() && !is_tuple) break;
    node->args.push_back(parse_expression(with_condition));
    if (!skip_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && node->args.size() == 1) return std::move(node->args[0]);
  if (node->args.empty() && !parenthesised)
    fail(cat("expected an expression, got ", describe(current())));
  return check_depth(std::move(node));
}

ExprPtr Parser::parse_list() {
  ExprPtr node = make(ExprKind::kList);
  while (!failed() && !current().is_op("]")) {
    if (!node->args.empty()) expect_op(",");
    if (current().is_op("]")) break;
    node->args.push_back(parse_expression());
  }
  expect_op("]");
  return check_depth(std::move(node));
}

ExprPtr Parser::parse_dict() {
  ExprPtr node = make(ExprKind::kDict);
  while (!failed() && !current().is_op("}")) {
    if (!node->args.empty()) expect_op(",");
    if (current().is_op("}")) break;
    node->args.push_back(parse_expression());
    expect_op(":");
    node->args.push_back(parse_expression());
  }
  expect_op("}");
  return check_depth(std::move(node));
}

ExprPtr Parser::parse_postfix(ExprPtr node) {
  while (!failed()) {
    if (current().is_op(".")) {
      next();
      ExprPtr outer = make(ExprKind::kAttr);
      if (current().kind == TokenKind::kInt) {
        ExprPtr index = make(ExprKind::kLiteral);
        index->literal = Value(current().integer);
        next();
        outer = binary(ExprKind::kItem, Op::kAdd, std::move(node), std::move(index));
      } else {
        outer->name = expect_name();
        outer->literal = Value(std::make_shared<const Text>(outer->name));
        outer->args.push_back(std::move(node));
        outer = check_depth(std::move(outer));
      }
      node = std::move(outer);
    } else if (skip_op("[")) {
      node = parse_subscript(std::move(node));
    } else if (current().is_op("(")) {
      node = parse_call(std::move(node));
    } else {
      break;
    }
  }
  return node;
}

ExprPtr Parser::parse_subscript(ExprPtr node) {
  ExprPtr out = make(ExprKind::kSlice);
  out->args.push_back(std::move(node));
  ExprPtr part;
  bool slice = false;
  const auto ends = [&] { return current().is_op("]") || current().is_op(":"); };
  if (!ends()) part = parse_expression();
  while (!failed() && out->args.size() < 4 && skip_op(":")) {
    slice = true;
    out->args.push_back(std::move(part));
    part = ends() ? nullptr : parse_expression();
  }
  if (!slice) {
    out->kind = ExprKind::kItem;
    if (!part) fail("expected an index");
  }
  out->args.push_back(std::move(part));
  if (slice) out->args.resize(4);
  if (current().is_op(",")) fail("tuples as indices are not supported", Code::kUnimplemented);
  expect_op("]");
  return check_depth(std::move(out));
}

ExprPtr Parser::parse_call(ExprPtr node) {
  ExprPtr out = make(ExprKind::kCall);
  out->args.push_back(std::move(node));
  parse_arguments(*out);
  return check_depth(std::move(out));
}

void Parser::parse_arguments(Expr& node) {
  expect_op("(");
  bool first = true;
  while (!failed() && !current().is_op(")")) {
    if (!first) expect_op(",");
    first = false;
    if (current().is_op(")")) break;
    if (current().is_op("*") || current().is_op("**")) {
      fail("* and ** arguments are not supported", Code::kUnimplemented);
    } else if (current().kind == TokenKind::kName && ahead().is_op("=")) {
      std::string name = expect_name();
      next();
      node.kwargs.emplace_back(std::move(name), parse_expression());
    } else {
      if (!node.kwargs.empty()) fail("a positional argument after keyword arguments");
      node.args.push_back(parse_expression());
    }
  }
  expect_op(")");
}

ExprPtr Parser::parse_filters(ExprPtr node, bool tests_too) {
  while (!failed()) {
    if (skip_op("|")) {
      node = parse_filter(std::move(node));
    } else if (tests_too && skip_name("is")) {
      node = parse_test(std::move(node));
    } else if (tests_too && current().is_op("(")) {
      node = parse_call(std::move(node));
    } else {
      break;
    }
  }
  return node;
}

ExprPtr Parser::parse_filter(ExprPtr node) {
  ExprPtr out = make(ExprKind::kFilter);
  out->name = expect_name();
  while (skip_op(".")) out->name += "." + expect_name();
  if (!failed() && !is_known_filter(out->name)) {
    fail(cat("no filter named '", out->name, "'"), Code::kUnimplemented);
  }
  out->args.push_back(std::move(node));
  if (current().is_op("(")) parse_arguments(*out);
  return check_depth(std::move(out));
}

ExprPtr Parser::parse_test(ExprPtr node) {
  const bool negated = skip_name("not");
  ExprPtr out = make(ExprKind::kTest);
  out->name = expect_name();
  if (!failed() && !is_known_test(out->name)) {
    fail(cat("no test named '", out->name, "'"), Code::kUnimplemented);
  }
  out->args.push_back(std::move(node));
  const Token& token = current();
  const bool starts_value = token.kind == TokenKind::kName || token.kind == TokenKind::kString ||
                            token.kind == TokenKind::kInt || token.kind == TokenKind::kFloat ||
                            token.is_op("[") || token.is_op("{");
  if (token.is_op("(")) {
    parse_arguments(*out);
  } else if (starts_value && !token.is_name("else") && !token.is_name("or") &&
             !token.is_name("and")) {
    if (token.is_name("is")) fail("tests cannot be chained with 'is'");
    out->args.push_back(parse_postfix(parse_primary()));
  }
  if (!out->kwargs.empty())
    fail("keyword arguments of tests are not supported", Code::kUnimplemented);
  out = check_depth(std::move(out));
  if (!negated) return out;
  ExprPtr inverse = make(ExprKind::kNot);
  inverse->args.push_back(std::move(out));
  return check_depth(std::move(inverse));
}

}  // namespace rk::text::jinja
