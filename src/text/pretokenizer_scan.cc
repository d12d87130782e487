// Hand-written scanners for the patterns that nearly all models use; 20 times a regex engine's
// speed.
#include "text/pretokenizer.h"
#include "text/unicode.h"

namespace rk::text {
namespace {

struct Scan {
  std::string_view text;
  const uint8_t* classes;

  /// Class bits and size of the character at pos; bits 0 and size 0 at the end.
  uint8_t bits(size_t pos, uint32_t& size) const {
    if (pos >= text.size()) return size = 0, 0;
    const auto lead = static_cast<unsigned char>(text[pos]);
    if (lead < 0x80) return size = 1, classes[lead];
    const CodePoint c = decode_utf8(&text[pos]);
    size = c.size;
    return classes[c.value];
  }
  /// End of the run of characters from pos on that have (or lack, if !want) one of `mask`'s bits.
  size_t run(size_t pos, uint8_t mask, bool want) const {
    while (pos < text.size()) {
      uint32_t size;
      if (((bits(pos, size) & mask) != 0) != want) break;
      pos += size;
    }
    return pos;
  }
  /// `\s+(?!\S)|\s+` for the run of spaces [pos, end).
  size_t spaces(size_t pos, size_t end) const {
    if (end == text.size()) return end;
    const size_t last = previous_char(text, end);
    return last > pos ? last : end;
  }
};

constexpr uint8_t kNotOther = kLetter | kNumber | kSpace;

/// Bytes of 's 't 're 've 'm 'll 'd at pos, 0 where there is none.
size_t contraction(std::string_view text, size_t pos, bool ignore_case) {
  const auto at = [&](size_t i) -> char {
    if (pos + i >= text.size()) return 0;
    const char c = text[pos + i];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  if (at(0) != '\'') return 0;
  const char a = at(1), b = at(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  // U+017F, the long s, is an s to a pattern that ignores case.
  if (ignore_case && text.substr(pos + 1).starts_with("\xC5\xBF")) return 3;
  return 0;
}

}  // namespace

size_t scan_gpt2(std::string_view text, size_t pos, const uint8_t* classes) {
  const Scan scan{text, classes};
  if (const size_t bytes = contraction(text, pos, false)) return pos + bytes;
  const size_t first = text[pos] == ' ' ? pos + 1 : pos;
  uint32_t size;
  const uint8_t bits = scan.bits(first, size);
  if (bits & kLetter) return scan.run(first, kLetter, true);
  if (bits & kNumber) return scan.run(first, kNumber, true);
  if (size > 0 && !(bits & kSpace)) return scan.run(first, kNotOther, false);
  return scan.spaces(pos, scan.run(pos, kSpace, true));
}

size_t scan_cl100k(std::string_view text, size_t pos, int max_digits, const uint8_t* classes) {
  const Scan scan{text, classes};
  if (const size_t bytes = contraction(text, pos, true)) return pos + bytes;
  uint32_t size, next_size;
  const uint8_t bits = scan.bits(pos, size);
  if (bits & kLetter) return scan.run(pos + size, kLetter, true);
  if (bits & kNumber) {
    size_t end = pos + size;
    for (int i = 1; i < max_digits && (scan.bits(end, size) & kNumber); ++i) end += size;
    return end;
  }
  const bool newline = text[pos] == '\r' || text[pos] == '\n';
  const uint8_t next_bits = scan.bits(pos + size, next_size);
  if (!newline && (next_bits & kLetter)) return scan.run(pos + size, kLetter, true);
  const bool spaced_other = text[pos] == ' ' && next_size > 0 && !(next_bits & kNotOther);
  if (spaced_other || !(bits & kSpace)) {
    size_t end = scan.run(pos + size, kNotOther, false);
    while (end < text.size() && (text[end] == '\r' || text[end] == '\n')) ++end;
    return end;
  }
  const size_t end = scan.run(pos, kSpace, true);
  const size_t last_newline = text.substr(pos, end - pos).find_last_of("\r\n");
  if (last_newline != std::string_view::npos) return pos + last_newline + 1;
  return scan.spaces(pos, end);
}

}  // namespace rk::text
