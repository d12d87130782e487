#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"

namespace rk::text {
namespace {

/// Scripts whose characters are their own NFC and never combine with a neighbour among them.
bool is_inert(uint32_t c) {
  return c < 0x300 || (c >= 0x400 && c <= 0x482) || (c >= 0x2010 && c <= 0x2027) ||
         (c >= 0x3001 && c <= 0x3029) || (c >= 0x3041 && c <= 0x3096) ||
         (c >= 0x30A1 && c <= 0x30FA) || (c >= 0x3400 && c <= 0x4DB5) ||
         (c >= 0x4E00 && c <= 0x9FEF) || (c >= 0xAC00 && c <= 0xD7A3) ||
         (c >= 0xFF01 && c <= 0xFFEE) || (c >= 0x1F300 && c <= 0x1F6FF);
}

bool all_inert(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_utf8(&text[pos]);
    if (!is_inert(c.value)) return false;
    pos += c.size;
  }
  return true;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

/// Marks behind each starter in the order of their combining class. The library's own loop is
/// quadratic in a run of marks, which a text from outside may make as long as it likes.
void order_marks(std::vector<utf8proc_int32_t>& chars) {
  const auto marks_first = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  auto begin = std::find_if(chars.begin(), chars.end(), marks_first);
  while (begin != chars.end()) {
    const auto end = std::find_if_not(begin, chars.end(), marks_first);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = std::find_if(end, chars.end(), marks_first);
  }
}

std::string strip_accents(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_utf8(&text[pos]);
    const bool accent = (char_classes()[c.value] & kMark) != 0;
    if (!accent) out.append(text.substr(pos, c.size));
    pos += c.size;
  }
  return out;
}

std::string strip(std::string_view text, bool left, bool right) {
  const uint8_t* classes = char_classes();
  const auto space_at = [&](size_t pos) {
    return (classes[decode_utf8(&text[pos]).value] & kSpace) != 0;
  };
  while (left && !text.empty() && space_at(0)) text.remove_prefix(decode_utf8(&text[0]).size);
  while (right && !text.empty()) {
    const size_t last = previous_char(text, text.size());
    if (!space_at(last)) break;
    text = text.substr(0, last);
  }
  return std::string(text);
}

std::string replace_literal(std::string_view text, std::string_view pattern,
                            std::string_view content) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t begin = 0;
  for (size_t pos; (pos = text.find(pattern, begin)) != std::string_view::npos;) {
    out.append(text.substr(begin, pos - begin)).append(content);
    begin = pos + pattern.size();
  }
  return out.append(text.substr(begin));
}

std::string replace_regex(std::string_view text, const Regex& regex, std::string_view content) {
  std::string out;
  size_t done = 0;
  Regex::Search search(regex, text);
  for (size_t begin, end; search.next(begin, end); done = end) {
    out.append(text.substr(done, begin - done)).append(content);
  }
  return out.append(text.substr(done));
}

}  // namespace

std::string normal_form(std::string_view text, NormalForm form) {
  if (form == NormalForm::kNfc ? all_inert(text) : is_ascii(text)) return std::string(text);
  const bool compat = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compat ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> chars;
  chars.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_utf8(&text[pos]);
    pos += c.size;
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    int boundary = 0;
    const auto code_point = static_cast<utf8proc_int32_t>(c.value);
    const auto num = utf8proc_decompose_char(code_point, parts, 32, options, &boundary);
    if (num < 1 || num > 32) {
      chars.push_back(code_point);
    } else {
      chars.insert(chars.end(), parts, parts + num);
    }
  }
  order_marks(chars);
  if (compose && !chars.empty()) {
    const auto num = utf8proc_normalize_utf32(
        chars.data(), static_cast<utf8proc_ssize_t>(chars.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (num >= 0) chars.resize(static_cast<size_t>(num));
  }
  std::string out;
  out.reserve(text.size());
  for (const utf8proc_int32_t c : chars) append_utf8(out, static_cast<uint32_t>(c));
  return out;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_utf8(&text[pos]);
    pos += c.size;
    if (c.value == 0x130) {  // the one character whose lower case is two
      out.append("i\xCC\x87");
    } else {
      append_utf8(out,
                  static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))));
    }
  }
  return out;
}

Status Normalizer::add_replace_regex(std::string_view pattern, std::string content) {
  RK_TRY(Regex regex, Regex::compile(pattern));
  steps_.push_back({.kind = Kind::kReplaceRegex,
                    .content = std::move(content),
                    .regex = std::make_shared<const Regex>(std::move(regex))});
  return Status();
}

std::string Normalizer::run(std::string_view text) const {
  const size_t limit = text.size() * 16 + 65536;
  std::string out(text);
  for (const Step& step : steps_) {
    if (out.size() > limit) break;
    out = run_step(step, std::move(out));
  }
  return out;
}

std::string Normalizer::run_step(const Step& step, std::string text) {
  switch (step.kind) {
    case Kind::kForm:
      return normal_form(text, step.form);
    case Kind::kLowercase:
      return lower_case(text);
    case Kind::kStripAccents:
      return strip_accents(text);
    case Kind::kStrip:
      return strip(text, step.left, step.right);
    case Kind::kPrepend:
      return text.empty() ? text : text.insert(0, step.content);
    case Kind::kReplace:
      return replace_literal(text, step.pattern, step.content);
    case Kind::kReplaceRegex:
      return replace_regex(text, *step.regex, step.content);
  }
  return text;
}

}  // namespace rk::text
