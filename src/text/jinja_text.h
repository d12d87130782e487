// Strings of the template interpreter: UTF-8 bytes that remember which of them came from outside
// (messages, extra variables), so that special tokens in users' text stay text. Plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rk::text::jinja {

struct Text {
  struct Run {
    size_t begin, end;
  };
  std::string bytes;
  std::vector<Run> untrusted;  ///< sorted, disjoint, not touching, none empty

  Text() = default;
  explicit Text(std::string_view text, bool is_untrusted = false) { append(text, is_untrusted); }

  size_t size() const { return bytes.size(); }
  void append(std::string_view text, bool is_untrusted);
  void append(const Text& other) { append(other, 0, other.size()); }
  /// Bytes [begin, end) of `other`. Requires: begin <= end <= other.size(); other is not *this.
  void append(const Text& other, size_t begin, size_t end);
  Text slice(size_t begin, size_t end) const;
  /// True where any byte of [begin, end) is untrusted.
  bool any_untrusted(size_t begin, size_t end) const;
  bool any_untrusted() const { return !untrusted.empty(); }
};

using TextPtr = std::shared_ptr<const Text>;

/// Bytes of the character at `pos`; an invalid byte is a character of its own. Requires: pos <
/// size.
size_t char_bytes(std::string_view text, size_t pos);
/// Start of the character that ends at `end`. Requires: end > 0.
size_t char_before(std::string_view text, size_t end);
/// The code point of a character of char_bytes' length; U+FFFD for an invalid byte.
uint32_t code_point(std::string_view character);
void append_utf8(std::string& out, uint32_t code_point);
size_t count_chars(std::string_view text);
/// Byte offsets of all characters and the end: count_chars + 1 entries.
std::vector<size_t> char_offsets(std::string_view text);
/// What Python's str.isspace says of one character.
bool is_space(uint32_t code_point);

/// Byte range that is left when characters of `chars` (white space where null) go from the ends.
Text::Run strip_range(std::string_view text, const std::string_view* chars, bool left, bool right);
/// As string_view::find, in linear time.
size_t find_bytes(std::string_view text, std::string_view needle, size_t from);

}  // namespace rk::text::jinja
