// UTF-8 and character classes for tokenizers: lossy repair, decoding of valid text, and one table
// of the classes that pre-tokenizers ask for. Knows no vocabulary. Immutable, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rk::text {

enum CharClass : uint8_t {
  kLetter = 1,    ///< general category L
  kNumber = 2,    ///< N
  kSpace = 4,     ///< property White_Space
  kMark = 8,      ///< M
  kPunct = 16,    ///< P, and ASCII punctuation that Unicode calls a symbol
  kWordChar = 32  ///< a regex's \w
};

/// The class bits of every code point, 0x110000 of them; built at first use.
const uint8_t* char_classes();

struct CodePoint {
  uint32_t value;
  uint32_t size;  ///< bytes
};

/// Requires: `p` points at the first byte of a character of valid UTF-8.
inline CodePoint decode_utf8(const char* p) {
  const auto b = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  if (b(0) < 0x80) return {b(0), 1};
  if (b(0) < 0xE0) return {(b(0) & 0x1F) << 6 | (b(1) & 0x3F), 2};
  if (b(0) < 0xF0) return {(b(0) & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F), 3};
  return {(b(0) & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 | (b(3) & 0x3F), 4};
}

/// Requires: pos > 0 and `text` valid UTF-8 with a character border at pos.
inline size_t previous_char(std::string_view text, size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

void append_utf8(std::string& out, uint32_t code_point);

/// One step of a decoder with replacement (Unicode's "maximal subparts", as Python and Rust do it).
struct Utf8Step {
  size_t size = 0;          ///< bytes of the character, or of the ill-formed part
  bool valid = false;       ///< false: the part stands for one U+FFFD
  bool incomplete = false;  ///< the text ended inside a character that was valid so far
};
/// Requires: pos < text.size().
Utf8Step next_utf8(std::string_view text, size_t pos);

bool is_valid_utf8(std::string_view text);
/// Appends `text` with every ill-formed part as U+FFFD.
void append_repaired(std::string& out, std::string_view text);

inline constexpr std::string_view kReplacementChar = "\xEF\xBF\xBD";
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  ///< SentencePiece's U+2581

}  // namespace rk::text
