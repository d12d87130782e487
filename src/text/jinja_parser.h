// Recursive-descent parser over jinja_lexer's tokens; grammar and precedence as jinja2's. After the
// first error it stands at the last token, so all loops end.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace rk::text::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Result<std::unique_ptr<Template>> run();

 private:
  // jinja_parser.cc: expressions
  ExprPtr parse_expression(bool with_condition = true);
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters = true);
  ExprPtr parse_primary();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filters(ExprPtr node, bool tests_too = true);
  ExprPtr parse_filter(ExprPtr node);
  ExprPtr parse_test(ExprPtr node);
  ExprPtr parse_call(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_tuple(bool with_condition = true, bool parenthesised = false);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  void parse_arguments(Expr& node);
  ExprPtr binary(ExprKind kind, Op op, ExprPtr left, ExprPtr right);
  ExprPtr make(ExprKind kind);
  ExprPtr check_depth(ExprPtr node);

  // jinja_parser_statements.cc
  Body parse_body(std::initializer_list<std::string_view> ends);
  std::unique_ptr<Stmt> parse_statement();
  void parse_if(Stmt& stmt);
  void parse_for(Stmt& stmt);
  void parse_set(Stmt& stmt);
  void parse_macro(Stmt& stmt);
  void parse_call_block(Stmt& stmt);
  void parse_filter_block(Stmt& stmt);
  void parse_with(Stmt& stmt);
  void parse_parameters(Stmt& stmt);
  void parse_targets(Stmt& stmt, bool with_attributes);
  void end_block();
  void end_tag(std::string_view name);

  const Token& current() const { return tokens_[pos_]; }
  const Token& ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  void next() { pos_ = std::min(pos_ + 1, tokens_.size() - 1); }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_op(std::string_view op);
  std::string expect_name();
  int name_id(const std::string& name);
  bool failed() const { return !status_.ok(); }
  void fail(std::string_view what, Code code = Code::kInvalidArgument);
  std::string describe(const Token& token) const;

  /// Counts nesting while it lives; false where there is too much.
  struct Nested {
    explicit Nested(Parser& p) : parser(p) {
      if (++parser.depth_ > kMaxDepth) parser.fail("nested too deeply");
    }
    ~Nested() { --parser.depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    Parser& parser;
  };

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int depth_ = 0;
  int loops_ = 0;
  Status status_;
  std::unique_ptr<Template> out_ = std::make_unique<Template>();
};

}  // namespace rk::text::jinja
