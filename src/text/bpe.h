// The merge engine of byte pair encoding: one word of text to token ids. Byte-level vocabularies
// start from bytes, SentencePiece-style ones from characters with byte fallback. Knows no
// pre-tokenizer and no special tokens: it never yields an id that the vocabulary given to it does
// not hold. Immutable after build(), thread-safe; the caller brings the scratch.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"

namespace rk::text {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
using TokenMap = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

/// The same, immutable and small: a vocabulary's bytes in one string, found by open addressing.
class TokenTable {
 public:
  TokenTable() = default;
  explicit TokenTable(const TokenMap& tokens);
  /// -1 where it is no token.
  int32_t find(std::string_view bytes) const;

 private:
  struct Entry {
    uint32_t begin = 0, size = 0;
    int32_t id = -1;  ///< -1: free
  };
  std::string bytes_;
  std::vector<Entry> entries_ = std::vector<Entry>(1);  ///< a power of two, one of them free
};

class Bpe {
 public:
  struct Options {
    bool byte_level = true;      ///< symbols are bytes; else characters
    bool ignore_merges = false;  ///< a word that is a token is that token
    bool byte_fallback = false;  ///< characters without a token become their <0xXX>
    bool fuse_unk = false;       ///< unknown characters in a row are one unknown token
    int32_t unk_id = -1;         ///< -1: unknown characters vanish
  };
  struct Merge {
    int32_t left = 0, right = 0, result = 0;
    int32_t rank = 0;  ///< lower first; equal ranks from left to right
  };
  /// Work memory and word cache of one encode call; reusable, one thread at a time.
  class Scratch {
   public:
    Scratch();
    /// Gives back what one very long word took.
    void trim();

   private:
    friend class Bpe;
    struct Cached {
      static constexpr size_t kMaxBytes = 30, kMaxIds = 8;
      uint8_t num_bytes = 0, num_ids = 0;
      char bytes[kMaxBytes];
      int32_t ids[kMaxIds];
    };
    struct Symbol {
      int32_t id, previous, next;
    };
    struct Candidate {
      int32_t rank, left, left_id, right_id, result;
    };
    std::vector<Cached> cache_;
    std::vector<int32_t> ids_, ranks_, results_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  /// `tokens`: the bytes of every token that text may become. Byte tokens ("<0xXX>", -1 where
  /// absent) are outside of it. Of two merges of one pair the later counts.
  void build(const TokenMap& tokens, const std::array<int32_t, 256>& byte_tokens,
             const std::vector<Merge>& merges, const Options& options);

  /// Appends the ids of `word`, valid UTF-8. O(n log n) in its bytes; any length below 2^31.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

  const Options& options() const { return options_; }
  int32_t find(std::string_view bytes) const { return tokens_.find(bytes); }

 private:
  struct Slot {
    uint64_t pair = ~uint64_t{0};
    int32_t rank = 0, result = 0;
  };
  const Slot* find_merge(int32_t left, int32_t right) const;
  void encode_uncached(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;
  void split_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;
  void cut_words(const std::vector<Merge>& merges);

  Options options_;
  TokenTable tokens_;
  std::array<int32_t, 256> byte_tokens_{};  ///< byte fallback
  std::array<int32_t, 256>
      byte_symbols_{};  ///< byte level: the token that is this one byte; else ASCII
  std::vector<Slot> slots_;
  uint64_t slot_mask_ = 0;
  bool cut_at_marks_ = false;  ///< no token has a mark after another character: words split there
};

}  // namespace rk::text
