// Tokenizers from GGUF metadata (tokenizer.ggml.*): byte-level BPE ("gpt2") and SentencePiece-style
// BPE whose merges are ranked by the scores of their results ("llama").
#include <algorithm>
#include <numeric>

#include "tensor/gguf.h"
#include "text/bpe_tokenizer.h"
#include "text/unicode.h"

namespace rk::text {
namespace {

constexpr size_t kMaxScoredTokenBytes = 256;  // every split of it is looked up

enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

/// Null where absent. Errors: the value is of another kind.
template <class T>
Result<const T*> find_as(const GgufFile& file, std::string_view key, const char* kind) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return static_cast<const T*>(nullptr);
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr) return invalid_argument(file.name(), ": ", key, " is not ", kind);
  return typed;
}

/// What the metadata says, checked for kinds and counts and not yet for meaning.
struct Metadata {
  std::string model, pre;
  const std::vector<std::string_view>* tokens = nullptr;
  const std::vector<int64_t>* types = nullptr;
  const std::vector<std::string_view>* merges = nullptr;
  const std::vector<double>* scores = nullptr;
  int64_t bos = -1, eos = -1, eot = -1, eom = -1, unk = -1;
  int64_t add_bos = -1, add_eos = -1, add_space_prefix = -1;  ///< -1: not said

  int64_t type(size_t id) const { return types ? (*types)[id] : int64_t{kNormal}; }
};

Status read_id(const GgufFile& file, const char* name, size_t num_tokens, int64_t& id) {
  const std::string key = cat("tokenizer.ggml.", name, "_token_id");
  RK_TRY(const int64_t* value, find_as<int64_t>(file, key, "an integer"));
  if (value == nullptr) return Status();
  // Some converters write 2^32-1 for "none".
  if (*value == -1 || *value == 0xFFFFFFFF) return Status();
  if (*value < 0 || *value >= static_cast<int64_t>(num_tokens)) {
    return invalid_argument(file.name(), ": ", key, " is ", *value, ", the vocabulary has ",
                            num_tokens, " tokens");
  }
  id = *value;
  return Status();
}

Status read_flag(const GgufFile& file, const char* name, int64_t& flag) {
  RK_TRY(const bool* value, find_as<bool>(file, cat("tokenizer.ggml.", name), "a bool"));
  if (value) flag = *value;
  return Status();
}

Status check_count(const GgufFile& file, const char* name, size_t count, size_t num_tokens) {
  if (count == num_tokens) return Status();
  return invalid_argument(file.name(), ": tokenizer.ggml.", name, " has ", count,
                          " entries, the vocabulary has ", num_tokens, " tokens");
}

Result<Metadata> read_metadata(const GgufFile& file) {
  using Strings = std::vector<std::string_view>;
  Metadata m;
  RK_TRY(m.model, file.get_string("tokenizer.ggml.model"));
  RK_TRY(const std::string* pre, find_as<std::string>(file, "tokenizer.ggml.pre", "a string"));
  if (pre) m.pre = *pre;
  RK_TRY(m.tokens, find_as<Strings>(file, "tokenizer.ggml.tokens", "an array of strings"));
  if (m.tokens == nullptr)
    return invalid_argument(file.name(), ": tokenizer.ggml.tokens is missing");
  const size_t num = m.tokens->size();
  if (num == 0 || num > static_cast<size_t>(kMaxTokenId)) {
    return invalid_argument(file.name(), ": tokenizer.ggml.tokens has ", num, " entries, limit 1..",
                            kMaxTokenId);
  }
  RK_TRY(m.types,
         find_as<std::vector<int64_t>>(file, "tokenizer.ggml.token_type", "an array of integers"));
  if (m.types) RK_RETURN_IF_ERROR(check_count(file, "token_type", m.types->size(), num));
  RK_TRY(m.merges, find_as<Strings>(file, "tokenizer.ggml.merges", "an array of strings"));
  RK_TRY(m.scores,
         find_as<std::vector<double>>(file, "tokenizer.ggml.scores", "an array of floats"));
  if (m.scores) RK_RETURN_IF_ERROR(check_count(file, "scores", m.scores->size(), num));
  if (m.model == "llama") m.bos = num > 1 ? 1 : -1, m.eos = num > 2 ? 2 : -1, m.unk = 0;
  RK_RETURN_IF_ERROR(read_id(file, "bos", num, m.bos));
  RK_RETURN_IF_ERROR(read_id(file, "eos", num, m.eos));
  RK_RETURN_IF_ERROR(read_id(file, "eot", num, m.eot));
  RK_RETURN_IF_ERROR(read_id(file, "eom", num, m.eom));
  RK_RETURN_IF_ERROR(read_id(file, "unknown", num, m.unk));
  RK_RETURN_IF_ERROR(read_flag(file, "add_bos_token", m.add_bos));
  RK_RETURN_IF_ERROR(read_flag(file, "add_eos_token", m.add_eos));
  RK_RETURN_IF_ERROR(read_flag(file, "add_space_prefix", m.add_space_prefix));
  return m;
}

/// Control tokens become special ones, user-defined ones plain added tokens.
Status collect_added(const GgufFile& file, const Metadata& m, std::vector<AddedToken>& added) {
  for (size_t id = 0; id < m.tokens->size(); ++id) {
    const int64_t type = m.type(id);
    const std::string_view token = (*m.tokens)[id];
    if (type < 0 || type > kByte) {
      return invalid_argument(file.name(), ": tokenizer.ggml.token_type[", id, "] is ", type,
                              ", known are 1 to ", int64_t{kByte});
    }
    if ((type != kControl && type != kUserDefined) || token.empty()) continue;
    if (token.size() > AddedTokenMatcher::kMaxContentBytes) {
      return invalid_argument(file.name(), ": tokenizer.ggml.tokens[", id, "]: special token of ",
                              token.size(), " bytes, limit ", AddedTokenMatcher::kMaxContentBytes);
    }
    added.push_back({.id = static_cast<int32_t>(id),
                     .content = std::string(token),
                     .special = type == kControl});
  }
  return Status();
}

std::string fingerprint_of(const Metadata& m) {
  FingerprintHash hash;
  hash.add("gguf 1");
  hash.add(m.model);
  hash.add(m.pre);
  for (size_t id = 0; id < m.tokens->size(); ++id) {
    hash.add((*m.tokens)[id]);
    hash.add(m.type(id));
    if (m.scores) hash.add(cat((*m.scores)[id]));
  }
  hash.add("merges");
  if (m.merges) {
    for (const std::string_view merge : *m.merges) hash.add(merge);
  }
  for (const int64_t v : {m.bos, m.eos, m.unk, m.add_bos, m.add_eos, m.add_space_prefix})
    hash.add(v);
  return hash.hex();
}

Result<std::vector<Bpe::Merge>> parse_merges(const GgufFile& file,
                                             const std::vector<std::string_view>& lines,
                                             const TokenMap& tokens) {
  std::vector<Bpe::Merge> merges;
  merges.reserve(lines.size());
  std::string left, right;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string_view line = lines[i];
    const size_t space = line.find(' ', 1);
    const auto bad = [&](const char* why) {
      return invalid_argument(file.name(), ": tokenizer.ggml.merges[", i, "] ", why);
    };
    if (space == std::string_view::npos || space + 1 == line.size())
      return bad("is not two tokens");
    if (!undo_byte_disguise(line.substr(0, space), left) ||
        !undo_byte_disguise(line.substr(space + 1), right)) {
      return bad("holds characters outside the byte alphabet");
    }
    const auto a = tokens.find(left), b = tokens.find(right), ab = tokens.find(left + right);
    if (a == tokens.end() || b == tokens.end() || ab == tokens.end()) {
      return bad("names tokens outside the vocabulary");
    }
    merges.push_back({a->second, b->second, ab->second, static_cast<int32_t>(i)});
  }
  return merges;
}

/// Byte-level BPE: tokens in GPT-2's disguise, a list of merges.
Status load_byte_level(const GgufFile& file, const Metadata& m, BpeTokenizer::Parts& parts) {
  if (m.merges == nullptr)
    return invalid_argument(file.name(), ": tokenizer.ggml.merges is missing");
  TokenMap tokens;
  tokens.reserve(m.tokens->size());
  std::string bytes;
  for (size_t id = 0; id < m.tokens->size(); ++id) {
    const std::string_view token = (*m.tokens)[id];
    const int64_t type = m.type(id);
    if (type == kUnused) continue;
    const bool disguised = undo_byte_disguise(token, bytes);
    parts.token_bytes[id] = disguised ? bytes : std::string(token);
    // Vocabularies pad with repeated names; the first of a name is the one that text becomes.
    if (disguised && type == kNormal) tokens.emplace(bytes, static_cast<int32_t>(id));
  }
  RK_TRY(const auto merges, parse_merges(file, *m.merges, tokens));
  const bool llama3 = m.pre == "llama-bpe" || m.pre == "llama3" || m.pre == "llama-v3";
  Bpe::Options options;
  options.ignore_merges = llama3 || m.pre == "falcon3";
  std::array<int32_t, 256> no_bytes;
  no_bytes.fill(-1);
  parts.bpe.build(tokens, no_bytes, merges, options);
  RK_TRY(parts.pretokenizer, pretokenizer_of_gguf(m.pre));
  // The file names no normaliser; the Qwen family has one.
  if (m.pre == "qwen2" || m.pre == "deepseek-r1-qwen") parts.normalizer.add_form(NormalForm::kNfc);
  if (m.bos >= 0 && (m.add_bos == 1 || (m.add_bos < 0 && llama3))) {
    parts.prefix.push_back(static_cast<int32_t>(m.bos));
  }
  return Status();
}

/// All ways to make a token from two others; better scores first, equal scores from left to right.
std::vector<Bpe::Merge> merges_by_score(const Metadata& m, const TokenMap& tokens) {
  std::vector<double> scores;
  for (const auto& [token, id] : tokens) scores.push_back((*m.scores)[id]);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<Bpe::Merge> merges;
  for (const auto& [token, id] : tokens) {
    const auto at =
        std::lower_bound(scores.begin(), scores.end(), (*m.scores)[id], std::greater<>());
    const auto rank = static_cast<int32_t>(at - scores.begin());
    const std::string_view text = token;
    for (size_t cut = decode_utf8(text.data()).size; cut < text.size();
         cut += decode_utf8(&text[cut]).size) {
      const auto left = tokens.find(text.substr(0, cut)), right = tokens.find(text.substr(cut));
      if (left == tokens.end() || right == tokens.end()) continue;
      merges.push_back({left->second, right->second, id, rank});
    }
  }
  return merges;
}

/// SentencePiece-style BPE: characters, marks for spaces, scores instead of merges.
Status load_sentencepiece(const GgufFile& file, const Metadata& m, BpeTokenizer::Parts& parts) {
  if (m.scores == nullptr)
    return invalid_argument(file.name(), ": tokenizer.ggml.scores is missing");
  TokenMap tokens;
  std::array<int32_t, 256> byte_tokens;
  byte_tokens.fill(-1);
  for (size_t id = 0; id < m.tokens->size(); ++id) {
    const std::string_view token = (*m.tokens)[id];
    const auto bad = [&](const auto&... why) {
      return invalid_argument(file.name(), ": tokenizer.ggml.tokens[", id, "] ", why...);
    };
    if (!is_valid_utf8(token)) return bad("is not valid UTF-8");
    const int64_t type = m.type(id);
    if (type == kByte) {
      const int byte = byte_of_token(token);
      if (byte < 0) return bad("is marked as a byte and is not of the form <0xXX>");
      byte_tokens[static_cast<size_t>(byte)] = static_cast<int32_t>(id);
      parts.token_bytes[id] = std::string(1, static_cast<char>(byte));
      parts.is_byte[id] = true;
      continue;
    }
    if (type == kUnused) continue;
    Normalizer marks;
    marks.add_replace(std::string(kSpaceMark), " ");
    parts.token_bytes[id] = marks.run(token);
    if (type != kNormal || token.empty()) continue;
    if (token.size() > kMaxScoredTokenBytes) {
      return bad("has ", token.size(), " bytes, limit ", kMaxScoredTokenBytes);
    }
    const double score = (*m.scores)[id];
    if (!(score == score)) return bad("has no number as its score");
    tokens.emplace(token, static_cast<int32_t>(id));
  }
  const std::vector<Bpe::Merge> merges = merges_by_score(m, tokens);
  const Bpe::Options options{.byte_level = false,
                             .byte_fallback = true,
                             .fuse_unk = true,
                             .unk_id = static_cast<int32_t>(m.unk)};
  parts.bpe.build(tokens, byte_tokens, merges, options);
  if (m.add_space_prefix != 0) {
    parts.normalizer.add_prepend(std::string(kSpaceMark));
    parts.leading_space = LeadingSpace::kDropOne;
  }
  parts.normalizer.add_replace(" ", std::string(kSpaceMark));
  if (m.bos >= 0 && m.add_bos != 0) parts.prefix.push_back(static_cast<int32_t>(m.bos));
  return Status();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_gguf(const GgufFile& file) {
  RK_TRY(const Metadata m, read_metadata(file));
  BpeTokenizer::Parts parts;
  RK_RETURN_IF_ERROR(collect_added(file, m, parts.added));
  parts.token_bytes.resize(m.tokens->size());
  parts.is_byte.resize(m.tokens->size());
  if (m.model == "gpt2") {
    RK_RETURN_IF_ERROR(load_byte_level(file, m, parts));
  } else if (m.model == "llama") {
    RK_RETURN_IF_ERROR(load_sentencepiece(file, m, parts));
  } else {
    return unimplemented(file.name(), ": tokenizer.ggml.model \"", m.model, "\"");
  }
  if (m.add_eos == 1 && m.eos >= 0) parts.suffix.push_back(static_cast<int32_t>(m.eos));
  parts.bos = static_cast<int32_t>(m.bos);
  for (const int64_t id : {m.eos, m.eot, m.eom}) append_end(id, parts.eos);
  append_usual_ends(parts.added, parts.eos);
  parts.fingerprint = fingerprint_of(m);
  return std::unique_ptr<Tokenizer>(std::make_unique<BpeTokenizer>(std::move(parts)));
}

}  // namespace rk::text
