#include "text/jinja_text.h"

#include <string.h>  // memmem

#include <algorithm>

namespace rk::text::jinja {

void Text::append(std::string_view text, bool is_untrusted) {
  if (text.empty()) return;
  const size_t begin = bytes.size();
  bytes.append(text);
  if (!is_untrusted) return;
  if (!untrusted.empty() && untrusted.back().end == begin) {
    untrusted.back().end = bytes.size();
  } else {
    untrusted.push_back({begin, bytes.size()});
  }
}

void Text::append(const Text& other, size_t begin, size_t end) {
  const size_t base = bytes.size();
  bytes.append(other.bytes, begin, end - begin);
  auto run = std::upper_bound(other.untrusted.begin(), other.untrusted.end(), begin,
                              [](size_t pos, const Run& r) { return pos < r.end; });
  for (; run != other.untrusted.end() && run->begin < end; ++run) {
    const size_t from = base + std::max(run->begin, begin) - begin;
    const size_t to = base + std::min(run->end, end) - begin;
    if (!untrusted.empty() && untrusted.back().end == from) {
      untrusted.back().end = to;
    } else {
      untrusted.push_back({from, to});
    }
  }
}

Text Text::slice(size_t begin, size_t end) const {
  Text out;
  out.append(*this, begin, end);
  return out;
}

bool Text::any_untrusted(size_t begin, size_t end) const {
  auto run = std::upper_bound(untrusted.begin(), untrusted.end(), begin,
                              [](size_t pos, const Run& r) { return pos < r.end; });
  return run != untrusted.end() && run->begin < end;
}

size_t char_bytes(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(pos);
  if (lead < 0x80) return 1;
  const size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || pos + want > text.size()) return 1;
  for (size_t i = 1; i < want; ++i) {
    if ((byte(pos + i) & 0xC0) != 0x80) return 1;
  }
  if ((lead == 0xE0 && byte(pos + 1) < 0xA0) || (lead == 0xED && byte(pos + 1) > 0x9F) ||
      (lead == 0xF0 && byte(pos + 1) < 0x90) || (lead == 0xF4 && byte(pos + 1) > 0x8F)) {
    return 1;
  }
  return want;
}

size_t char_before(std::string_view text, size_t end) {
  for (size_t back = 2; back <= 4 && back <= end; ++back) {
    const size_t begin = end - back;
    if ((static_cast<unsigned char>(text[begin]) & 0xC0) == 0xC0) {
      return char_bytes(text.substr(0, end), begin) == back ? begin : end - 1;
    }
  }
  return end - 1;
}

uint32_t code_point(std::string_view c) {
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<unsigned char>(c[i]));
  };
  switch (c.size()) {
    case 1:
      return byte(0) < 0x80 ? byte(0) : 0xFFFD;
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    case 4:
      return (byte(0) & 7) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
    default:
      return 0xFFFD;
  }
}

void append_utf8(std::string& out, uint32_t cp) {
  if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) cp = 0xFFFD;
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (cp < 0x80) {
    put(cp);
  } else if (cp < 0x800) {
    put(0xC0 | cp >> 6), put(0x80 | (cp & 0x3F));
  } else if (cp < 0x10000) {
    put(0xE0 | cp >> 12), put(0x80 | (cp >> 6 & 0x3F)), put(0x80 | (cp & 0x3F));
  } else {
    put(0xF0 | cp >> 18), put(0x80 | (cp >> 12 & 0x3F)), put(0x80 | (cp >> 6 & 0x3F));
    put(0x80 | (cp & 0x3F));
  }
}

size_t count_chars(std::string_view text) {
  size_t count = 0;
  for (size_t pos = 0; pos < text.size(); pos += char_bytes(text, pos)) ++count;
  return count;
}

std::vector<size_t> char_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t pos = 0; pos < text.size(); pos += char_bytes(text, pos)) offsets.push_back(pos);
  offsets.push_back(text.size());
  return offsets;
}

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

Text::Run strip_range(std::string_view text, const std::string_view* chars, bool left, bool right) {
  const auto goes = [&](std::string_view c) {
    if (!chars) return is_space(code_point(c));
    for (size_t pos = 0; pos < chars->size();) {
      const size_t length = char_bytes(*chars, pos);
      if (chars->substr(pos, length) == c) return true;
      pos += length;
    }
    return false;
  };
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const size_t length = char_bytes(text, begin);
    if (!goes(text.substr(begin, length))) break;
    begin += length;
  }
  while (right && begin < end) {
    const size_t start = char_before(text, end);
    if (!goes(text.substr(start, end - start))) break;
    end = start;
  }
  return {begin, std::max(begin, end)};
}

size_t find_bytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  if (needle.size() == 1) return text.find(needle[0], from);
  const void* hit = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return hit ? static_cast<size_t>(static_cast<const char*>(hit) - text.data())
             : std::string_view::npos;
}

}  // namespace rk::text::jinja
