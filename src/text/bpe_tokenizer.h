// The one Tokenizer there is: added tokens, normaliser, pre-tokenizer, merges. Loaders
// (tokenizer_gguf.cc, tokenizer_json.cc) fill the parts in. Private to src/text.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/special_tokens.h"
#include "text/tokenizer.h"

namespace rk::text {

/// Ids stay below it; the largest known vocabulary has 262144.
inline constexpr int64_t kMaxTokenId = 1 << 22;

class BpeTokenizer final : public Tokenizer {
 public:
  struct Parts {
    Bpe bpe;
    Normalizer normalizer;
    PreTokenizer pretokenizer;
    std::vector<AddedToken> added;
    std::vector<int32_t> prefix, suffix;   ///< what add_special adds
    std::vector<std::string> token_bytes;  ///< by id, as decode shows them
    std::vector<bool> is_byte;             ///< by id: a byte of byte fallback
    LeadingSpace leading_space = LeadingSpace::kKeep;
    int32_t bos = -1;
    std::vector<int32_t> eos;
    std::string fingerprint;
  };
  explicit BpeTokenizer(Parts parts);

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::span<const TextPiece> pieces, bool add_special) const override;
  std::string token_bytes(int32_t id) const override;
  bool is_special(int32_t id) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override;
  bool strips_leading_space() const override { return parts_.leading_space != LeadingSpace::kKeep; }
  LeadingSpace leading_space() const override { return parts_.leading_space; }
  bool is_byte_fallback(int32_t id) const override { return known(id) && parts_.is_byte[id]; }
  int32_t vocab_size() const override { return static_cast<int32_t>(parts_.token_bytes.size()); }
  int32_t bos() const override { return parts_.bos; }
  std::vector<int32_t> eos() const override { return parts_.eos; }
  int32_t find_token(std::string_view literal) const override;
  std::string fingerprint() const override { return parts_.fingerprint; }

 private:
  bool known(int32_t id) const { return id >= 0 && id < vocab_size(); }
  void encode_section(std::string_view text, bool at_start, bool trusted, Bpe::Scratch& scratch,
                      std::vector<int32_t>& out) const;
  std::unique_ptr<Bpe::Scratch> take_scratch() const;
  void give_scratch(std::unique_ptr<Bpe::Scratch> scratch) const;

  Parts parts_;
  std::vector<bool> special_;
  TokenMap added_ids_;
  AddedTokenMatcher raw_matcher_;         ///< before normalisation
  AddedTokenMatcher normalized_matcher_;  ///< behind it
  mutable std::mutex mutex_;              ///< guards spare_
  mutable std::vector<std::unique_ptr<Bpe::Scratch>> spare_;
};

/// Appends the special tokens among `added` that end an answer by their families' usual names.
void append_usual_ends(const std::vector<AddedToken>& added, std::vector<int32_t>& ends);
/// Appends `id` unless it is negative or there.
void append_end(int64_t id, std::vector<int32_t>& ends);

/// Digest of what a loader feeds it, as hex. Fields are framed by their lengths.
class FingerprintHash {
 public:
  FingerprintHash();
  ~FingerprintHash();
  FingerprintHash(const FingerprintHash&) = delete;
  FingerprintHash& operator=(const FingerprintHash&) = delete;
  void add(std::string_view field);
  void add(int64_t number);
  std::string hex();

 private:
  void* context_;
};

/// GPT-2's disguise of bytes as printable characters, undone. False where a character is none.
bool undo_byte_disguise(std::string_view token, std::string& bytes);
/// 0..255 for "<0xXX>", else -1.
int byte_of_token(std::string_view token);

}  // namespace rk::text
