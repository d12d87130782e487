#include "text/bpe_tokenizer.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "text/stream_decoder.h"
#include "text/unicode.h"

namespace rk::text {
namespace {

constexpr size_t kMaxSpareScratches = 16;

class BpeSink final : public WordSink {
 public:
  BpeSink(const Bpe& bpe, Bpe::Scratch& scratch, std::vector<int32_t>& out)
      : bpe_(bpe), scratch_(scratch), out_(out) {}
  void word(std::string_view word) override { bpe_.encode(word, scratch_, out_); }

 private:
  const Bpe& bpe_;
  Bpe::Scratch& scratch_;
  std::vector<int32_t>& out_;
};

/// Byte of each disguised character below 0x180, -1 for the others.
std::array<int16_t, 0x180> make_disguise() {
  std::array<int16_t, 0x180> byte_of;
  byte_of.fill(-1);
  int next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    byte_of[static_cast<size_t>(printable ? b : next++)] = static_cast<int16_t>(b);
  }
  return byte_of;
}

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special,
                                       bool add_special) const {
  const TextPiece piece{std::string(text), parse_special};
  return encode(std::span(&piece, 1), add_special);
}

BpeTokenizer::BpeTokenizer(Parts parts) : parts_(std::move(parts)) {
  special_.resize(parts_.token_bytes.size());
  parts_.is_byte.resize(parts_.token_bytes.size());
  for (const AddedToken& token : parts_.added) {
    if (token.special) special_[token.id] = true;
    added_ids_.emplace(token.content, token.id);
    if (token.normalized && !parts_.normalizer.empty()) {
      normalized_matcher_.add(token, parts_.normalizer.run(token.content));
    } else {
      raw_matcher_.add(token, token.content);
    }
  }
}

std::vector<int32_t> BpeTokenizer::encode(std::span<const TextPiece> pieces,
                                          bool add_special) const {
  std::string text;
  TrustedRanges trusted;
  for (const TextPiece& piece : pieces) {
    const size_t begin = text.size();
    append_repaired(text, piece.text);
    if (!piece.trusted || text.size() == begin) continue;
    if (!trusted.empty() && trusted.back().second == begin) {
      trusted.back().second = text.size();
    } else {
      trusted.emplace_back(begin, text.size());
    }
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (add_special) ids = parts_.prefix;
  auto scratch = take_scratch();
  size_t range = 0;
  for (const auto& part : raw_matcher_.split(text, trusted)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    while (range < trusted.size() && trusted[range].second <= part.begin) ++range;
    const bool all_trusted = range < trusted.size() && trusted[range].first <= part.begin &&
                             trusted[range].second >= part.end;
    encode_section(std::string_view(text).substr(part.begin, part.end - part.begin),
                   part.begin == 0, all_trusted, *scratch, ids);
  }
  give_scratch(std::move(scratch));
  if (add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

void BpeTokenizer::encode_section(std::string_view text, bool at_start, bool trusted,
                                  Bpe::Scratch& scratch, std::vector<int32_t>& out) const {
  std::string normalized;
  if (!parts_.normalizer.empty()) {
    normalized = parts_.normalizer.run(text);
    text = normalized;
  }
  BpeSink sink(parts_.bpe, scratch, out);
  if (normalized_matcher_.empty()) return parts_.pretokenizer.run(text, at_start, sink);
  // Where normalised bytes come from is not kept, so the section is trusted as a whole or not at
  // all.
  TrustedRanges ranges;
  if (trusted) ranges.emplace_back(0, text.size());
  for (const auto& part : normalized_matcher_.split(text, ranges)) {
    if (part.id >= 0) {
      out.push_back(part.id);
    } else {
      parts_.pretokenizer.run(text.substr(part.begin, part.end - part.begin),
                              at_start && part.begin == 0, sink);
    }
  }
}

std::unique_ptr<Bpe::Scratch> BpeTokenizer::take_scratch() const {
  const std::lock_guard lock(mutex_);
  if (spare_.empty()) return std::make_unique<Bpe::Scratch>();
  auto scratch = std::move(spare_.back());
  spare_.pop_back();
  return scratch;
}

void BpeTokenizer::give_scratch(std::unique_ptr<Bpe::Scratch> scratch) const {
  scratch->trim();
  const std::lock_guard lock(mutex_);
  if (spare_.size() < kMaxSpareScratches) spare_.push_back(std::move(scratch));
}

std::string BpeTokenizer::token_bytes(int32_t id) const {
  return known(id) ? parts_.token_bytes[id] : std::string();
}

bool BpeTokenizer::is_special(int32_t id) const { return known(id) && special_[id]; }

std::string BpeTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamDecoder decoder(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text += decoder.finish();
}

int32_t BpeTokenizer::find_token(std::string_view literal) const {
  if (const auto it = added_ids_.find(literal); it != added_ids_.end()) return it->second;
  if (const int32_t id = parts_.bpe.find(literal); id >= 0) return id;
  std::string bytes;
  return undo_byte_disguise(literal, bytes) ? parts_.bpe.find(bytes) : -1;
}

void append_end(int64_t id, std::vector<int32_t>& ends) {
  const auto value = static_cast<int32_t>(id);
  if (id >= 0 && std::find(ends.begin(), ends.end(), value) == ends.end()) ends.push_back(value);
}

void append_usual_ends(const std::vector<AddedToken>& added, std::vector<int32_t>& ends) {
  constexpr std::string_view kNames[] = {"<|im_end|>",     "<|endoftext|>", "<|eot_id|>",
                                         "<|eom_id|>",     "<|end|>",       "<end_of_turn>",
                                         "<|end_of_text|>"};
  for (const AddedToken& token : added) {
    const bool usual =
        std::find(std::begin(kNames), std::end(kNames), token.content) != std::end(kNames);
    if (token.special && usual) append_end(token.id, ends);
  }
}

FingerprintHash::FingerprintHash() : context_(EVP_MD_CTX_new()) {
  if (context_) EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr);
}

FingerprintHash::~FingerprintHash() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void FingerprintHash::add(int64_t number) { add(std::to_string(number)); }

void FingerprintHash::add(std::string_view field) {
  const std::string framed = std::to_string(field.size()).append(":").append(field);
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), framed.data(), framed.size());
}

std::string FingerprintHash::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest, &size);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out.push_back("0123456789abcdef"[digest[i] >> 4]);
    out.push_back("0123456789abcdef"[digest[i] & 15]);
  }
  return out;
}

bool undo_byte_disguise(std::string_view token, std::string& bytes) {
  static const auto byte_of = make_disguise();
  bytes.clear();
  if (!is_valid_utf8(token)) return false;
  for (size_t pos = 0; pos < token.size();) {
    const CodePoint c = decode_utf8(&token[pos]);
    pos += c.size;
    if (c.value >= byte_of.size() || byte_of[c.value] < 0) return false;
    bytes.push_back(static_cast<char>(byte_of[c.value]));
  }
  return true;
}

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace rk::text
