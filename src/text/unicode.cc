#include "text/unicode.h"

#include <utf8proc.h>

#include <vector>

namespace rk::text {
namespace {

constexpr uint32_t kNumCodePoints = 0x110000;

bool is_white_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

uint8_t classify(uint32_t c) {
  uint8_t bits = is_white_space(c) ? kSpace : 0;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      bits |= kLetter | kWordChar;
      break;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      bits |= kMark | kWordChar;
      break;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      bits |= kNumber | kWordChar;
      break;
    case UTF8PROC_CATEGORY_NO:
      bits |= kNumber;
      break;
    case UTF8PROC_CATEGORY_PC:
      bits |= kPunct | kWordChar;
      break;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      bits |= kPunct;
      break;
    default:
      break;
  }
  const bool ascii_symbol = c == '$' || c == '+' || (c >= '<' && c <= '>') || c == '^' ||
                            c == '`' || c == '|' || c == '~';
  return ascii_symbol ? bits | kPunct : bits;
}

}  // namespace

const uint8_t* char_classes() {
  static const std::vector<uint8_t> table = [] {
    std::vector<uint8_t> bits(kNumCodePoints);
    for (uint32_t c = 0; c < kNumCodePoints; ++c) bits[c] = classify(c);
    return bits;
  }();
  return table.data();
}

void append_utf8(std::string& out, uint32_t c) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

Utf8Step next_utf8(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(pos);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // Bounds of the second byte exclude overlong forms, surrogates and what is above U+10FFFF.
  unsigned low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < size; ++i) {
    if (pos + i >= text.size()) return {i, false, true};
    if (byte(pos + i) < low || byte(pos + i) > high) return {i, false, false};
    low = 0x80, high = 0xBF;
  }
  return {size, true, false};
}

bool is_valid_utf8(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = next_utf8(text, pos);
    if (!step.valid) return false;
    pos += step.size;
  }
  return true;
}

void append_repaired(std::string& out, std::string_view text) {
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = next_utf8(text, pos);
    if (!step.valid) {
      out.append(text.substr(begin, pos - begin)).append(kReplacementChar);
      begin = pos + step.size;
    }
    pos += step.size;
  }
  out.append(text.substr(begin));
}

}  // namespace rk::text
