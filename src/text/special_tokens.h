// Finds added tokens in text: leftmost first, the longest of those, as `tokenizers` does; a special
// token only where the text may be trusted. Immutable once built, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rk::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;      ///< needs trust; dropped by decode(skip_special)
  bool lstrip = false;       ///< swallows white space before it
  bool rstrip = false;       ///< and behind it
  bool single_word = false;  ///< only between characters that are no word characters
  bool normalized = false;   ///< looked for in normalised text
};

/// Ranges [begin, end) of trusted bytes, sorted, apart from each other.
using TrustedRanges = std::vector<std::pair<size_t, size_t>>;

class AddedTokenMatcher {
 public:
  static constexpr size_t kMaxContentBytes = 1024;  ///< bounds the work per byte of text

  /// `pattern` is what to look for (the content, normalised where the token says so).
  void add(const AddedToken& token, std::string_view pattern);
  bool empty() const { return tokens_.empty(); }

  struct Part {
    size_t begin, end;
    int32_t id;  ///< -1: plain text
  };
  /// The whole text as tokens and the plain text between them (never empty).
  std::vector<Part> split(std::string_view text, const TrustedRanges& trusted) const;

 private:
  struct Node {
    std::vector<std::pair<uint8_t, int32_t>> next;
    int32_t token = -1;
  };
  int32_t child(int32_t node, uint8_t byte) const;
  /// Index of the longest allowed token at pos, -1 for none.
  int32_t longest(std::string_view text, size_t pos, size_t trusted_end, size_t& size) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = {Node{}};
  bool first_[256] = {};
};

}  // namespace rk::text
