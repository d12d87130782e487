#include "text/bpe.h"

#include <algorithm>
#include <cstring>

#include "text/unicode.h"

namespace rk::text {
namespace {

constexpr size_t kCacheSlots = 8192;  // 70 bytes each
constexpr size_t kShortSymbols = 48;  // below, scanning for the best pair beats a heap
constexpr int32_t kNoRank = INT32_MAX;

uint64_t mix(uint64_t x) {
  x ^= x >> 32;
  x *= 0x9E3779B97F4A7C15u;
  return x ^ x >> 29;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

bool has_inner_mark(std::string_view token) {
  bool seen_other = false;
  for (size_t pos = 0; pos < token.size();) {
    const bool mark = token.substr(pos).starts_with(kSpaceMark);
    if (mark && seen_other) return true;
    if (!mark) seen_other = true;
    pos += mark ? kSpaceMark.size() : 1;
  }
  return false;
}

}  // namespace

TokenTable::TokenTable(const TokenMap& tokens) {
  size_t capacity = 2, num_bytes = 0;
  while (capacity < tokens.size() + tokens.size() / 3 + 1) capacity *= 2;
  for (const auto& token : tokens) num_bytes += token.first.size();
  entries_.assign(capacity, {});
  bytes_.reserve(num_bytes);
  for (const auto& [bytes, id] : tokens) {
    size_t i = StringHash{}(bytes) & (capacity - 1);
    while (entries_[i].id >= 0) i = (i + 1) & (capacity - 1);
    entries_[i] = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(bytes.size()), id};
    bytes_ += bytes;
  }
}

int32_t TokenTable::find(std::string_view bytes) const {
  const size_t mask = entries_.size() - 1;
  for (size_t i = StringHash{}(bytes)&mask; entries_[i].id >= 0; i = (i + 1) & mask) {
    if (bytes == std::string_view(bytes_).substr(entries_[i].begin, entries_[i].size)) {
      return entries_[i].id;
    }
  }
  return -1;
}

Bpe::Scratch::Scratch() : cache_(kCacheSlots) {}

void Bpe::Scratch::trim() {
  constexpr size_t kKept = 65536;
  if (ids_.capacity() > kKept) ids_ = {};
  if (symbols_.capacity() > kKept) symbols_ = {};
  if (heap_.capacity() > kKept) heap_ = {};
}

void Bpe::build(const TokenMap& tokens, const std::array<int32_t, 256>& byte_tokens,
                const std::vector<Merge>& merges, const Options& options) {
  options_ = options;
  tokens_ = TokenTable(tokens);
  byte_tokens_ = byte_tokens;
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    byte_symbols_[b] = find(std::string_view(&byte, 1));
  }
  uint64_t capacity = 16;
  while (capacity < merges.size() * 2) capacity *= 2;
  slots_.assign(capacity, Slot{});
  slot_mask_ = capacity - 1;
  for (const Merge& merge : merges) {
    const uint64_t key = pair_key(merge.left, merge.right);
    uint64_t i = mix(key) & slot_mask_;
    while (slots_[i].pair != ~uint64_t{0} && slots_[i].pair != key) i = (i + 1) & slot_mask_;
    slots_[i] = {key, merge.rank, merge.result};
  }
  // With no token that crosses a word's start, no merge does: words are independent and cacheable.
  cut_at_marks_ = !options.byte_level && !options.ignore_merges && find(kSpaceMark) >= 0 &&
                  std::none_of(tokens.begin(), tokens.end(),
                               [](const auto& token) { return has_inner_mark(token.first); });
}

const Bpe::Slot* Bpe::find_merge(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  for (uint64_t i = mix(key) & slot_mask_;; i = (i + 1) & slot_mask_) {
    if (slots_[i].pair == key) return &slots_[i];
    if (slots_[i].pair == ~uint64_t{0}) return nullptr;
  }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
  const auto encode_cached = [&](std::string_view part) {
    using Cached = Scratch::Cached;
    if (part.size() > Cached::kMaxBytes) return encode_uncached(part, scratch, out);
    Cached& slot = scratch.cache_[std::hash<std::string_view>{}(part) % kCacheSlots];
    if (slot.num_bytes == part.size() && std::memcmp(slot.bytes, part.data(), part.size()) == 0) {
      out.insert(out.end(), slot.ids, slot.ids + slot.num_ids);
      return;
    }
    const size_t begin = out.size();
    encode_uncached(part, scratch, out);
    if (out.size() - begin > Cached::kMaxIds) return;
    slot.num_bytes = static_cast<uint8_t>(part.size());
    slot.num_ids = static_cast<uint8_t>(out.size() - begin);
    std::memcpy(slot.bytes, part.data(), part.size());
    std::copy(out.begin() + static_cast<int64_t>(begin), out.end(), slot.ids);
  };
  if (word.empty()) return;
  if (!cut_at_marks_) return encode_cached(word);
  size_t begin = 0;
  while (begin < word.size()) {
    size_t pos = begin;
    while (word.substr(pos).starts_with(kSpaceMark)) pos += kSpaceMark.size();
    const size_t end = std::min(word.find(kSpaceMark, pos), word.size());
    encode_cached(word.substr(begin, end - begin));
    begin = end;
  }
}

void Bpe::encode_uncached(std::string_view word, Scratch& s, std::vector<int32_t>& out) const {
  if (options_.ignore_merges) {
    if (const int32_t id = find(word); id >= 0) return out.push_back(id);
  }
  s.ids_.clear();
  split_symbols(word, s.ids_);
  if (s.ids_.size() <= kShortSymbols) {
    merge_short(s);
  } else {
    merge_long(s);
  }
  out.insert(out.end(), s.ids_.begin(), s.ids_.end());
}

void Bpe::split_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  bool unknown = false;  // an unknown token is due; the next known one pushes it out
  const auto flush = [&] {
    if (unknown) ids.push_back(options_.unk_id);
    unknown = false;
  };
  for (size_t pos = 0; pos < word.size();) {
    const uint8_t lead = static_cast<uint8_t>(word[pos]);
    const size_t size = options_.byte_level ? 1 : decode_utf8(&word[pos]).size;
    const std::string_view bytes = word.substr(pos, size);
    pos += size;
    const int32_t id = size == 1 ? byte_symbols_[lead] : find(bytes);
    if (id >= 0) {
      flush();
      ids.push_back(id);
      continue;
    }
    const auto has_byte = [&](char b) { return byte_tokens_[static_cast<uint8_t>(b)] >= 0; };
    if (options_.byte_fallback && std::all_of(bytes.begin(), bytes.end(), has_byte)) {
      for (const char b : bytes) ids.push_back(byte_tokens_[static_cast<uint8_t>(b)]);
      continue;
    }
    if (options_.unk_id < 0) continue;
    if (!options_.fuse_unk) flush();
    unknown = true;
  }
  flush();
}

void Bpe::merge_short(Scratch& s) const {
  std::vector<int32_t>& ids = s.ids_;
  const size_t num = ids.size();
  if (num < 2) return;
  s.ranks_.resize(num);
  s.results_.resize(num);
  const auto rate = [&](size_t i) {
    const Slot* slot = find_merge(ids[i], ids[i + 1]);
    s.ranks_[i] = slot ? slot->rank : kNoRank;
    s.results_[i] = slot ? slot->result : -1;
  };
  for (size_t i = 0; i + 1 < num; ++i) rate(i);
  size_t left = num;  // symbols still there
  while (left > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < left; ++i) {
      if (s.ranks_[i] < s.ranks_[best]) best = i;
    }
    if (s.ranks_[best] == kNoRank) break;
    ids[best] = s.results_[best];
    for (size_t i = best + 1; i + 1 < left; ++i) {
      ids[i] = ids[i + 1];
      s.ranks_[i] = s.ranks_[i + 1];
      s.results_[i] = s.results_[i + 1];
    }
    --left;
    if (best > 0) rate(best - 1);
    if (best + 1 < left) rate(best);
  }
  ids.resize(left);
}

void Bpe::merge_long(Scratch& s) const {
  const auto num = static_cast<int32_t>(s.ids_.size());
  s.symbols_.resize(s.ids_.size());
  s.heap_.clear();
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto propose = [&](int32_t left, bool push) {
    const int32_t right = s.symbols_[left].next;
    if (right < 0) return;
    const int32_t left_id = s.symbols_[left].id, right_id = s.symbols_[right].id;
    const Slot* slot = find_merge(left_id, right_id);
    if (slot == nullptr) return;
    s.heap_.push_back({slot->rank, left, left_id, right_id, slot->result});
    if (push) std::push_heap(s.heap_.begin(), s.heap_.end(), later);
  };
  for (int32_t i = 0; i < num; ++i) s.symbols_[i] = {s.ids_[i], i - 1, i + 1 < num ? i + 1 : -1};
  for (int32_t i = 0; i < num; ++i) propose(i, false);
  std::make_heap(s.heap_.begin(), s.heap_.end(), later);
  while (!s.heap_.empty()) {
    std::pop_heap(s.heap_.begin(), s.heap_.end(), later);
    const Scratch::Candidate best = s.heap_.back();
    s.heap_.pop_back();
    Scratch::Symbol& left = s.symbols_[best.left];
    if (left.id != best.left_id || left.next < 0) continue;  // merged meanwhile
    Scratch::Symbol& right = s.symbols_[left.next];
    if (right.id != best.right_id) continue;
    left.id = best.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) s.symbols_[left.next].previous = best.left;
    if (left.previous >= 0) propose(left.previous, true);
    propose(best.left, true);
  }
  s.ids_.clear();
  for (int32_t i = 0; i >= 0; i = s.symbols_[i].next) s.ids_.push_back(s.symbols_[i].id);
}

}  // namespace rk::text
