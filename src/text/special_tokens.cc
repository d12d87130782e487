#include "text/special_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace rk::text {
namespace {

bool is_word_char_at(std::string_view text, size_t pos) {
  return (char_classes()[decode_utf8(&text[pos]).value] & kWordChar) != 0;
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  const bool joined_left = begin > 0 && is_word_char_at(text, previous_char(text, begin));
  const bool joined_right = end < text.size() && is_word_char_at(text, end);
  return !joined_left && !joined_right;
}

bool is_space_at(std::string_view text, size_t pos) {
  return (char_classes()[decode_utf8(&text[pos]).value] & kSpace) != 0;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty()) return;
  int32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      auto& list = nodes_[node].next;
      list.insert(std::upper_bound(list.begin(), list.end(), std::pair(byte, INT32_MAX)),
                  {byte, next});
      nodes_.emplace_back();
    }
    node = next;
  }
  first_[static_cast<uint8_t>(pattern[0])] = true;
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

int32_t AddedTokenMatcher::child(int32_t node, uint8_t byte) const {
  const auto& list = nodes_[node].next;
  const auto it = std::lower_bound(list.begin(), list.end(), std::pair(byte, int32_t{-1}));
  return it != list.end() && it->first == byte ? it->second : -1;
}

int32_t AddedTokenMatcher::longest(std::string_view text, size_t pos, size_t trusted_end,
                                   size_t& size) const {
  int32_t node = 0, best = -1;
  for (size_t end = pos; end < text.size();) {
    node = child(node, static_cast<uint8_t>(text[end++]));
    if (node < 0) break;
    const int32_t token = nodes_[node].token;
    if (token < 0 || (tokens_[token].special && end > trusted_end)) continue;
    best = token;
    size = end - pos;
  }
  return best;
}

std::vector<AddedTokenMatcher::Part> AddedTokenMatcher::split(std::string_view text,
                                                              const TrustedRanges& trusted) const {
  std::vector<Part> parts;
  size_t done = 0, range = 0;
  for (size_t pos = 0; pos < text.size() && !tokens_.empty();) {
    if (!first_[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    while (range < trusted.size() && trusted[range].second <= pos) ++range;
    const bool in_range = range < trusted.size() && trusted[range].first <= pos;
    size_t size = 0;
    const int32_t index = longest(text, pos, in_range ? trusted[range].second : 0, size);
    if (index < 0) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = pos, end = pos + size;
    pos = end;
    if (token.single_word && !is_single_word(text, begin, end)) continue;
    if (token.lstrip) {
      while (begin > done && is_space_at(text, previous_char(text, begin))) {
        begin = previous_char(text, begin);
      }
    }
    if (token.rstrip) {
      while (end < text.size() && is_space_at(text, end)) end += decode_utf8(&text[end]).size;
    }
    if (done < begin) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, token.id});
    done = pos = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace rk::text
