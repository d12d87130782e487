#include <algorithm>

#include "text/jinja_parser.h"

namespace rk::text::jinja {

Result<std::unique_ptr<Template>> Parser::run() {
  out_->loop_id = name_id("loop");
  out_->caller_id = name_id("caller");
  out_->body = parse_body({});
  if (failed()) return status_;
  return std::move(out_);
}

/// Statements up to a tag named in `ends` (it is left standing after its {%) or the end.
Body Parser::parse_body(std::initializer_list<std::string_view> ends) {
  Nested nested(*this);
  Body body;
  while (!failed() && current().kind != TokenKind::kEnd) {
    const Token& token = current();
    if (token.kind == TokenKind::kData) {
      auto stmt = std::make_unique<Stmt>();
      stmt->kind = StmtKind::kData;
      stmt->line = token.line;
      stmt->data = Value(std::make_shared<const Text>(token.text));
      body.push_back(std::move(stmt));
      next();
    } else if (token.kind == TokenKind::kPrintBegin) {
      auto stmt = std::make_unique<Stmt>();
      stmt->kind = StmtKind::kPrint;
      stmt->line = token.line;
      next();
      stmt->expr = parse_tuple();
      if (current().kind != TokenKind::kPrintEnd)
        fail(cat("expected '}}', got ", describe(current())));
      next();
      body.push_back(std::move(stmt));
    } else {
      next();
      for (const std::string_view end : ends) {
        if (current().is_name(end)) return body;
      }
      if (auto stmt = parse_statement()) body.push_back(std::move(stmt));
    }
  }
  if (ends.size() > 0 && !failed()) {
    fail(cat("the template ends, expected '", *(ends.end() - 1), "'"));
  }
  return body;
}

void Parser::end_block() {
  if (current().kind != TokenKind::kBlockEnd) fail(cat("expected '%}', got ", describe(current())));
  next();
}

void Parser::end_tag(std::string_view name) {
  if (!skip_name(name)) fail(cat("expected '", name, "'"));
  end_block();
}

std::unique_ptr<Stmt> Parser::parse_statement() {
  auto stmt = std::make_unique<Stmt>();
  stmt->line = current().line;
  const std::string tag = expect_name();
  if (tag == "if") {
    parse_if(*stmt);
  } else if (tag == "for") {
    parse_for(*stmt);
  } else if (tag == "set") {
    parse_set(*stmt);
  } else if (tag == "macro") {
    parse_macro(*stmt);
  } else if (tag == "call") {
    parse_call_block(*stmt);
  } else if (tag == "filter") {
    parse_filter_block(*stmt);
  } else if (tag == "with") {
    parse_with(*stmt);
  } else if (tag == "break" || tag == "continue") {
    stmt->kind = tag == "break" ? StmtKind::kBreak : StmtKind::kContinue;
    if (loops_ == 0) fail(cat("'", tag, "' outside a loop"));
    end_block();
  } else if (tag == "generation") {  // marks the assistant's part for training; the text stays
    stmt->kind = StmtKind::kGroup;
    end_block();
    stmt->bodies.push_back(parse_body({"endgeneration"}));
    end_tag("endgeneration");
  } else {
    static constexpr std::string_view kOther[] = {"block", "extends", "include",   "import",
                                                  "from",  "print",   "autoescape"};
    const bool known = std::find(std::begin(kOther), std::end(kOther), tag) != std::end(kOther);
    fail(cat(known ? "unsupported tag '" : "unknown tag '", tag, "'"),
         known ? Code::kUnimplemented : Code::kInvalidArgument);
  }
  if (failed()) return nullptr;
  return stmt;
}

void Parser::parse_if(Stmt& stmt) {
  stmt.kind = StmtKind::kIf;
  do {
    stmt.conditions.push_back(parse_tuple(false));
    end_block();
    stmt.bodies.push_back(parse_body({"elif", "else", "endif"}));
  } while (skip_name("elif"));
  if (skip_name("else")) {
    end_block();
    stmt.bodies.push_back(parse_body({"endif"}));
  }
  end_tag("endif");
}

void Parser::parse_targets(Stmt& stmt, bool with_attributes) {
  const bool parenthesised = skip_op("(");
  do {
    if (!stmt.targets.empty() && current().kind != TokenKind::kName) break;  // trailing comma
    Target target;
    const std::string name = expect_name();
    static constexpr std::string_view kReserved[] = {"true", "false", "none",
                                                     "True", "False", "None"};
    if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
      fail(cat("cannot assign to '", name, "'"));
    }
    target.name_id = name_id(name);
    if (with_attributes && skip_op(".")) target.attribute = expect_name();
    stmt.targets.push_back(std::move(target));
    if (current().is_op(",")) stmt.unpack = true;
  } while (!failed() && skip_op(","));
  if (parenthesised) expect_op(")");
}

void Parser::parse_for(Stmt& stmt) {
  stmt.kind = StmtKind::kFor;
  parse_targets(stmt, false);
  if (!skip_name("in")) fail(cat("expected 'in', got ", describe(current())));
  stmt.expr = parse_tuple(false);
  if (skip_name("if")) stmt.conditions.push_back(parse_expression());
  if (current().is_name("recursive"))
    fail("recursive loops are not supported", Code::kUnimplemented);
  end_block();
  ++loops_;
  stmt.bodies.push_back(parse_body({"else", "endfor"}));
  --loops_;
  if (skip_name("else")) {
    end_block();
    stmt.bodies.push_back(parse_body({"endfor"}));
  }
  end_tag("endfor");
}

void Parser::parse_set(Stmt& stmt) {
  stmt.kind = StmtKind::kSet;
  parse_targets(stmt, true);
  if (skip_op("=")) {
    stmt.expr = parse_tuple();
    end_block();
    return;
  }
  stmt.kind = StmtKind::kSetBlock;
  if (stmt.unpack) fail("a set block has one target");
  stmt.expr = parse_filters(make(ExprKind::kLiteral), false);
  end_block();
  stmt.bodies.push_back(parse_body({"endset"}));
  end_tag("endset");
}

void Parser::parse_parameters(Stmt& stmt) {
  expect_op("(");
  while (!failed() && !current().is_op(")")) {
    if (!stmt.targets.empty()) expect_op(",");
    if (current().is_op(")")) break;
    const std::string name = expect_name();
    stmt.targets.push_back({name_id(name), ""});
    stmt.parameters.push_back(name);
    if (skip_op("=")) {
      stmt.defaults.push_back(parse_expression());
    } else if (!stmt.defaults.empty()) {
      fail("a parameter without a default after one with");
    }
  }
  expect_op(")");
}

void Parser::parse_macro(Stmt& stmt) {
  stmt.kind = StmtKind::kMacro;
  stmt.name = expect_name();
  const int id = name_id(stmt.name);
  parse_parameters(stmt);
  end_block();
  const int loops = std::exchange(loops_, 0);
  stmt.bodies.push_back(parse_body({"endmacro"}));
  loops_ = loops;
  end_tag("endmacro");
  stmt.targets.push_back({id, ""});  // where the macro goes, after its parameters
}

void Parser::parse_call_block(Stmt& stmt) {
  stmt.kind = StmtKind::kCallBlock;
  stmt.name = "caller";
  if (current().is_op("(")) parse_parameters(stmt);
  stmt.expr = parse_expression();
  if (stmt.expr && stmt.expr->kind != ExprKind::kCall) fail("expected a call");
  end_block();
  const int loops = std::exchange(loops_, 0);
  stmt.bodies.push_back(parse_body({"endcall"}));
  loops_ = loops;
  end_tag("endcall");
}

void Parser::parse_filter_block(Stmt& stmt) {
  stmt.kind = StmtKind::kFilterBlock;
  stmt.expr = parse_filters(parse_filter(make(ExprKind::kLiteral)), false);
  end_block();
  const int loops = std::exchange(loops_, 0);
  stmt.bodies.push_back(parse_body({"endfilter"}));
  loops_ = loops;
  end_tag("endfilter");
}

void Parser::parse_with(Stmt& stmt) {
  stmt.kind = StmtKind::kWith;
  while (!failed() && current().kind != TokenKind::kBlockEnd) {
    if (!stmt.targets.empty()) expect_op(",");
    stmt.targets.push_back({name_id(expect_name()), ""});
    expect_op("=");
    stmt.conditions.push_back(parse_expression());
  }
  end_block();
  stmt.bodies.push_back(parse_body({"endwith"}));
  end_tag("endwith");
}

}  // namespace rk::text::jinja
