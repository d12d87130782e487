#include "text/jinja_lexer.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "text/jinja_text.h"

namespace rk::text::jinja {
namespace {

std::string normalise_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      out.push_back('\n');
    } else {
      continue;  // the \n of \r\n comes next
    }
  }
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_name_char(char c) { return is_name_start(c) || is_digit(c); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalise_newlines(source)) {
    if (!text_.empty() && text_.back() == '\n') text_.pop_back();
    source_ = text_;
  }

  Result<std::vector<Token>> run() {
    while (pos_ < source_.size()) {
      RK_RETURN_IF_ERROR(lex_data());
    }
    push(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  Status error(std::string_view what) const {
    return invalid_argument("chat template, line ", line_, ": ", what);
  }
  bool at(std::string_view what) const { return source_.substr(pos_, what.size()) == what; }
  void skip(size_t count) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + pos_, source_.begin() + pos_ + count, '\n'));
    pos_ += count;
  }
  void skip_space() {
    const std::string_view rest = source_.substr(pos_);
    skip(strip_range(rest, nullptr, true, false).begin);
  }
  void push(TokenKind kind, std::string text = "") {
    tokens_.push_back({kind, line_, std::move(text)});
  }

  /// Template text up to a tag, less what the tag's sign and lstrip_blocks take from its end.
  void push_data(std::string_view data, char sign, bool may_lstrip) {
    const int line = line_;
    skip(data.size());
    if (sign == '-') {
      data = data.substr(0, strip_range(data, nullptr, false, true).end);
    } else if (sign != '+' && may_lstrip) {
      const size_t newline = data.rfind('\n');
      const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      if (start > 0 || line_starting_) {
        const Text::Run rest = strip_range(data.substr(start), nullptr, true, false);
        if (rest.begin == rest.end) data = data.substr(0, start);
      }
    }
    if (!data.empty()) tokens_.push_back({TokenKind::kData, line, std::string(data)});
  }

  char sign_at(size_t pos) const {
    const char c = pos < source_.size() ? source_[pos] : '\0';
    return c == '-' || c == '+' ? c : '\0';
  }

  Status lex_data() {
    size_t tag = pos_;
    while ((tag = source_.find('{', tag)) != std::string_view::npos) {
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    if (tag == std::string_view::npos) {
      push_data(source_.substr(pos_), '+', false);
      return {};
    }
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    push_data(source_.substr(pos_, tag - pos_), sign, kind != '{');
    skip(sign ? 3 : 2);
    line_starting_ = false;
    if (kind == '#') return lex_comment();
    if (kind == '%' && lex_raw_begin()) return lex_raw();
    push(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kPrintBegin);
    return lex_tag(kind == '%');
  }

  /// After the closing mark of a block, comment or raw block whose sign is `sign`.
  void after_close(char sign) {
    const size_t before = pos_;
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && at("\n")) {
      skip(1);
    }
    line_starting_ = pos_ > before && source_[pos_ - 1] == '\n';
  }

  Status lex_comment() {
    const size_t close = source_.find("#}", pos_);
    if (close == std::string_view::npos) return error("comment without an end");
    const char sign = close > pos_ ? sign_at(close - 1) : '\0';
    skip(close + 2 - pos_);
    after_close(sign);
    return {};
  }

  /// {% raw %}: true and past it, or false and nothing changed.
  bool lex_raw_begin() {
    const auto [pos, line] = std::pair(pos_, line_);
    skip_space();
    if (at("raw")) {
      skip(3);
      skip_space();
      const bool strip = at("-%}");
      if (strip || at("%}")) {
        skip(strip ? 3 : 2);
        if (strip) skip_space();
        line_starting_ = strip && source_[pos_ - 1] == '\n';
        return true;
      }
    }
    pos_ = pos, line_ = line;
    return false;
  }

  Status lex_raw() {
    for (size_t tag = pos_; (tag = source_.find("{%", tag)) != std::string_view::npos; tag += 2) {
      const char sign = sign_at(tag + 2);
      size_t end = tag + (sign ? 3 : 2);
      const auto space = [&] {
        end += strip_range(source_.substr(end), nullptr, true, false).begin;
      };
      space();
      if (source_.substr(end, 6) != "endraw") continue;
      end += 6;
      space();
      const char close_sign = sign_at(end);
      if (close_sign) ++end;
      if (source_.substr(end, 2) != "%}") continue;
      push_data(source_.substr(pos_, tag - pos_), sign, true);
      skip(end + 2 - pos_);
      after_close(close_sign);
      return {};
    }
    return error("raw block without an end");
  }

  Status lex_tag(bool block) {
    std::string open;  // brackets that wait for their end
    while (true) {
      skip_space();
      if (pos_ >= source_.size()) return error("the template ends inside a tag");
      if (open.empty()) {
        const char sign = sign_at(pos_);
        const std::string_view close = block ? "%}" : "}}";
        const bool with_sign = sign == '-' || (sign == '+' && block);
        if (source_.substr(pos_ + (with_sign ? 1 : 0), 2) == close) {
          push(block ? TokenKind::kBlockEnd : TokenKind::kPrintEnd);
          skip(with_sign ? 3 : 2);
          after_close(block || sign == '-' ? sign : '+');
          return {};
        }
      }
      const char c = source_[pos_];
      if (is_digit(c)) {
        RK_RETURN_IF_ERROR(lex_number());
      } else if (is_name_start(c)) {
        size_t end = pos_;
        while (end < source_.size() && is_name_char(source_[end])) ++end;
        push(TokenKind::kName, std::string(source_.substr(pos_, end - pos_)));
        pos_ = end;
      } else if (c == '\'' || c == '"') {
        RK_RETURN_IF_ERROR(lex_string(c));
      } else {
        RK_RETURN_IF_ERROR(lex_operator(open));
      }
    }
  }

  Status lex_operator(std::string& open) {
    static constexpr std::string_view kOps[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOps) {
      if (!at(op)) continue;
      const char c = op[0];
      if (c == '(' || c == '[' || c == '{') {
        open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
      } else if (c == ')' || c == ']' || c == '}') {
        if (open.empty()) return error(cat("unexpected '", c, "'"));
        if (open.back() != c)
          return error(cat("unexpected '", c, "', expected '", open.back(), "'"));
        open.pop_back();
      }
      push(TokenKind::kOp, std::string(op));
      skip(op.size());
      return {};
    }
    return error(
        cat("unexpected character '", source_.substr(pos_, char_bytes(source_, pos_)), "'"));
  }

  Status lex_number() {
    std::string digits;
    const auto take_digits = [&] {
      while (pos_ < source_.size() &&
             (is_digit(source_[pos_]) ||
              (source_[pos_] == '_' && pos_ + 1 < source_.size() && is_digit(source_[pos_ + 1])))) {
        if (source_[pos_] != '_') digits.push_back(source_[pos_]);
        ++pos_;
      }
    };
    const auto digit_at = [&](size_t pos) {
      return pos < source_.size() && is_digit(source_[pos]);
    };
    const bool after_dot = !tokens_.empty() && tokens_.back().is_op(".");
    bool real = false;
    take_digits();
    if (!after_dot && at(".") && digit_at(pos_ + 1)) {
      real = true;
      digits.push_back(source_[pos_++]);
      take_digits();
    }
    if (!after_dot && (at("e") || at("E"))) {
      const size_t sign = sign_at(pos_ + 1) ? 1 : 0;
      if (digit_at(pos_ + 1 + sign)) {
        real = true;
        digits.append(source_.substr(pos_, 1 + sign));
        pos_ += 1 + sign;
        take_digits();
      }
    }
    Token token{real ? TokenKind::kFloat : TokenKind::kInt, line_, digits};
    const char* end = digits.data() + digits.size();
    const std::errc code = real ? std::from_chars(digits.data(), end, token.real).ec
                                : std::from_chars(digits.data(), end, token.integer).ec;
    if (code != std::errc())
      return error(cat("the number ", digits.substr(0, 40), " does not fit"));
    tokens_.push_back(std::move(token));
    return {};
  }

  /// Digits of \x, \u, \U and octal escapes.
  std::optional<uint32_t> escape_number(size_t count, int base) {
    uint32_t value = 0;
    if (pos_ + count > source_.size()) return std::nullopt;
    const char* begin = source_.data() + pos_;
    const auto [end, code] = std::from_chars(begin, begin + count, value, base);
    if (code != std::errc() || end != begin + count) return std::nullopt;
    pos_ += count;
    return value;
  }

  Status lex_escape(std::string& out) {
    static constexpr std::string_view kNames = "\\'\"abfnrtv", kBytes = "\\'\"\a\b\f\n\r\t\v";
    const char c = source_[pos_];
    if (const size_t i = kNames.find(c); i != std::string_view::npos) {
      out.push_back(kBytes[i]);
      ++pos_;
    } else if (c == '\n') {
      skip(1);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      ++pos_;
      const auto value = escape_number(c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
      if (!value || *value > 0x10FFFF || (*value >= 0xD800 && *value < 0xE000)) {
        return error(cat("bad escape \\", c, " in a string"));
      }
      append_utf8(out, *value);
    } else if (c >= '0' && c <= '7') {
      size_t count = 1;
      while (count < 3 && pos_ + count < source_.size() && source_[pos_ + count] >= '0' &&
             source_[pos_ + count] <= '7') {
        ++count;
      }
      append_utf8(out, escape_number(count, 8).value_or(0));
    } else if (c == 'N') {
      return unimplemented("chat template, line ", line_, ": \\N escapes");
    } else {
      out.push_back('\\');
    }
    return {};
  }

  Status lex_string(char quote) {
    Token token{TokenKind::kString, line_, ""};
    ++pos_;
    while (pos_ < source_.size() && source_[pos_] != quote) {
      if (source_[pos_] == '\\' && pos_ + 1 < source_.size()) {
        ++pos_;
        RK_RETURN_IF_ERROR(lex_escape(token.text));
      } else {
        token.text.push_back(source_[pos_]);
        skip(1);
      }
    }
    if (pos_ >= source_.size()) return error("a string without an end");
    ++pos_;
    tokens_.push_back(std::move(token));
    return {};
  }

  std::string text_;
  std::string_view source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> lex(std::string_view source) { return Lexer(source).run(); }

}  // namespace rk::text::jinja
