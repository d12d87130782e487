// Strings <-> token ids. Byte-level BPE and SentencePiece-style BPE with byte fallback, from GGUF
// metadata or a Hugging Face tokenizer.json, equal to Hugging Face `tokenizers` id for id.
//
// Text of users never becomes a special token: a piece says whether special tokens in it may be
// recognised. A special token is recognised only where every byte of it lies in trusted pieces;
// otherwise pieces are one text, so merges cross their borders as they do in one string.
// Immutable after loading, thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace rk {
class GgufFile;
}

namespace rk::text {

struct TextPiece {
  std::string text;      ///< UTF-8; invalid bytes are replaced by U+FFFD as Python's decoder does
  bool trusted = false;  ///< special tokens inside are recognised
};

/// What decode does to a space at the start of the whole text.
enum class LeadingSpace {
  kKeep,
  kDropOne,         ///< one space of the text
  kDropFirstToken,  ///< every space of the first token
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// `add_special`: also BOS/EOS as the model's own tokenizer adds them (post-processor).
  virtual std::vector<int32_t> encode(std::span<const TextPiece> pieces,
                                      bool add_special) const = 0;
  std::vector<int32_t> encode(std::string_view text, bool parse_special, bool add_special) const;

  /// Bytes of one token as they appear in text (special tokens: their literal). Empty for ids that
  /// stand for nothing. A SentencePiece word-start mark is a space.
  virtual std::string token_bytes(int32_t id) const = 0;
  virtual bool is_special(int32_t id) const = 0;
  /// The whole text, as tokenizers' decode: invalid UTF-8 becomes U+FFFD, the decoder's rules for a
  /// leading space apply.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special) const = 0;
  /// True where decode drops one leading space of the whole text (SentencePiece).
  virtual bool strips_leading_space() const = 0;
  /// How exactly; for StreamDecoder.
  virtual LeadingSpace leading_space() const {
    return strips_leading_space() ? LeadingSpace::kDropOne : LeadingSpace::kKeep;
  }
  /// True for <0xXX> tokens: a run of them that is not valid UTF-8 decodes to one U+FFFD per byte.
  virtual bool is_byte_fallback(int32_t /*id*/) const { return false; }

  virtual int32_t vocab_size() const = 0;  ///< ids are below it
  virtual int32_t bos() const = 0;         ///< -1 where there is none
  virtual std::vector<int32_t> eos()
      const = 0;  ///< ids that end an answer (eos, eot, generation_config)
  /// Exact id of a token's literal, or -1.
  virtual int32_t find_token(std::string_view literal) const = 0;
  /// Digest of everything that shapes encode(), hex; part of stored rows' identity.
  virtual std::string fingerprint() const = 0;

  static Result<std::unique_ptr<Tokenizer>> from_gguf(const GgufFile& file);
  /// tokenizer.json's text; tokenizer_config.json's and generation_config.json's may be empty.
  static Result<std::unique_ptr<Tokenizer>> from_json(std::string_view tokenizer_json,
                                                      std::string_view tokenizer_config,
                                                      std::string_view generation_config);
  /// A GGUF file or a Hugging Face folder.
  static Result<std::unique_ptr<Tokenizer>> load(const std::string& model_path);
};

}  // namespace rk::text
