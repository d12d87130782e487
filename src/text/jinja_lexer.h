// Cuts a template into tokens as jinja2's lexer does with trim_blocks and lstrip_blocks; white
// space control, comments and raw blocks end here. Knows nothing of grammar.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace rk::text::jinja {

enum class TokenKind {
  kData,
  kBlockBegin,
  kBlockEnd,
  kPrintBegin,
  kPrintEnd,
  kName,
  kString,
  kInt,
  kFloat,
  kOp,
  kEnd
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;  ///< data and strings: unescaped; operators and names: as written
  int64_t integer = 0;
  double real = 0;

  bool is_op(std::string_view op) const { return kind == TokenKind::kOp && text == op; }
  bool is_name(std::string_view name) const { return kind == TokenKind::kName && text == name; }
};

/// Ends with one kEnd token. Errors: kInvalidArgument with line and reason.
Result<std::vector<Token>> lex(std::string_view source);

}  // namespace rk::text::jinja
