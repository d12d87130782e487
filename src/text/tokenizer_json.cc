// Tokenizers from a Hugging Face tokenizer.json: vocabulary, merges, added tokens.
#include "text/tokenizer_json.h"

#include <algorithm>
#include <boost/json.hpp>

#include "text/unicode.h"

namespace rk::text {

namespace json = boost::json;

bool JsonField::is_null() const { return value == nullptr || value->is_null(); }

JsonField JsonField::at(std::string_view key) const {
  const json::object* object = value ? value->if_object() : nullptr;
  return {object ? object->if_contains(key) : nullptr, cat(path, path.empty() ? "" : ".", key)};
}

Result<const json::object*> JsonField::object() const {
  const json::object* object = value ? value->if_object() : nullptr;
  if (object == nullptr) return invalid_argument(path, ": not an object");
  return object;
}

Result<const json::array*> JsonField::array() const {
  const json::array* array = value ? value->if_array() : nullptr;
  if (array == nullptr) return invalid_argument(path, ": not an array");
  return array;
}

Result<std::string> JsonField::string() const {
  const json::string* text = value ? value->if_string() : nullptr;
  if (text == nullptr) return invalid_argument(path, ": not a string");
  if (!is_valid_utf8(*text)) return invalid_argument(path, ": not valid UTF-8");
  return std::string(*text);
}

Result<int64_t> JsonField::integer() const {
  const int64_t* number = value ? value->if_int64() : nullptr;
  if (number == nullptr) return invalid_argument(path, ": not an integer");
  return *number;
}

Result<bool> JsonField::boolean_or(bool otherwise) const {
  if (is_null()) return otherwise;
  const bool* flag = value->if_bool();
  if (flag == nullptr) return invalid_argument(path, ": not a bool");
  return *flag;
}

Result<std::string> JsonField::type() const {
  RK_RETURN_IF_ERROR(object().status());
  return at("type").string();
}

namespace {

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxTokenBytes = 1 << 16;
/// Ids may have gaps, but not so many that a few tokens ask for a large table.
constexpr int64_t kMaxIdGaps = 1 << 18;

Result<json::value> parse_json(std::string_view text, const char* name) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code ec;
  json::value value = json::parse(text, ec, {}, options);
  if (ec) return invalid_argument(name, ": not JSON: ", ec.message());
  return value;
}

/// The file's tokens, before they are the merge engine's.
struct Vocabulary {
  TokenMap ids;                       ///< as written, model.vocab and added tokens
  std::vector<std::string> literals;  ///< by id
  std::vector<bool> taken;            ///< by id

  Status add(const std::string& path, std::string_view literal, int64_t id, int64_t max_id) {
    if (id < 0 || id > max_id) return invalid_argument(path, ": id ", id, ", limit 0..", max_id);
    const auto index = static_cast<size_t>(id);
    if (index >= taken.size()) {
      literals.resize(index + 1);
      taken.resize(index + 1);
    }
    if (taken[index] && literals[index] != literal) {
      return invalid_argument(path, ": id ", id, " of \"", literal, "\" belongs to \"",
                              literals[index], "\" already");
    }
    const auto [it, fresh] = ids.emplace(literal, static_cast<int32_t>(id));
    if (!fresh && it->second != id) {
      return invalid_argument(path, ": \"", literal, "\" has id ", id, " and id ", it->second);
    }
    taken[index] = true;
    literals[index] = literal;
    return Status();
  }
};

Status read_vocab(const JsonField& model, size_t num_added, Vocabulary& vocab) {
  const JsonField field = model.at("vocab");
  RK_TRY(const json::object* tokens, field.object());
  const int64_t max_id =
      std::min(static_cast<int64_t>(tokens->size() + num_added) + kMaxIdGaps, kMaxTokenId) - 1;
  vocab.ids.reserve(tokens->size() + num_added);
  for (const auto& entry : *tokens) {
    const std::string_view token = entry.key();
    const JsonField id{&entry.value(), cat(field.path, "[\"", token.substr(0, 64), "\"]")};
    if (token.size() > kMaxTokenBytes) {
      return invalid_argument(id.path, ": ", token.size(), " bytes, limit ", kMaxTokenBytes);
    }
    if (!is_valid_utf8(token)) return invalid_argument(id.path, ": not valid UTF-8");
    RK_TRY(const int64_t number, id.integer());
    RK_RETURN_IF_ERROR(vocab.add(id.path, token, number, max_id));
  }
  return Status();
}

Result<AddedToken> read_added_token(const JsonField& field) {
  RK_RETURN_IF_ERROR(field.object().status());
  AddedToken token;
  RK_TRY(token.content, field.at("content").string());
  RK_TRY(token.special, field.at("special").boolean_or(false));
  RK_TRY(token.lstrip, field.at("lstrip").boolean_or(false));
  RK_TRY(token.rstrip, field.at("rstrip").boolean_or(false));
  RK_TRY(token.single_word, field.at("single_word").boolean_or(false));
  RK_TRY(token.normalized, field.at("normalized").boolean_or(!token.special));
  if (token.content.size() > AddedTokenMatcher::kMaxContentBytes) {
    return invalid_argument(field.path, ".content: ", token.content.size(), " bytes, limit ",
                            AddedTokenMatcher::kMaxContentBytes);
  }
  return token;
}

Status read_added(const JsonField& root, Vocabulary& vocab, std::vector<AddedToken>& added) {
  const JsonField field = root.at("added_tokens");
  if (field.is_null()) return Status();
  RK_TRY(const json::array* array, field.array());
  const auto max_id = std::min<int64_t>(
      static_cast<int64_t>(vocab.literals.size() + array->size()) + kMaxIdGaps, kMaxTokenId - 1);
  for (size_t i = 0; i < array->size(); ++i) {
    const JsonField entry{&(*array)[i], cat(field.path, "[", i, "]")};
    RK_TRY(AddedToken token, read_added_token(entry));
    RK_TRY(const int64_t id, entry.at("id").integer());
    RK_RETURN_IF_ERROR(vocab.add(entry.path, token.content, id, max_id));
    token.id = static_cast<int32_t>(id);
    if (!token.content.empty()) added.push_back(std::move(token));
  }
  return Status();
}

/// "a b" or ["a", "b"].
Status read_merge(const JsonField& field, std::string& left, std::string& right) {
  if (field.value->is_array()) {
    RK_TRY(const json::array* pair, field.array());
    if (pair->size() != 2) {
      return invalid_argument(field.path, ": ", pair->size(), " tokens, not 2");
    }
    RK_TRY(left, (JsonField{&(*pair)[0], field.path}).string());
    RK_TRY(right, (JsonField{&(*pair)[1], field.path}).string());
    return Status();
  }
  RK_TRY(const std::string line, field.string());
  const size_t space = line.find(' ');
  if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
    return invalid_argument(field.path, ": \"", line.substr(0, 64), "\" is not two tokens");
  }
  left = line.substr(0, space);
  right = line.substr(space + 1);
  return Status();
}

/// `usable[id]`: text may become this token. Merges to or from others are left out.
Result<std::vector<Bpe::Merge>> read_merges(const JsonField& model, const Vocabulary& vocab,
                                            const std::vector<bool>& usable) {
  const JsonField field = model.at("merges");
  RK_TRY(const json::array* array, field.array());
  std::vector<Bpe::Merge> merges;
  merges.reserve(array->size());
  std::string left, right;
  for (size_t i = 0; i < array->size(); ++i) {
    const JsonField entry{&(*array)[i], cat(field.path, "[", i, "]")};
    RK_RETURN_IF_ERROR(read_merge(entry, left, right));
    int32_t ids[3];
    const std::string joined = left + right;
    const std::string* const names[3] = {&left, &right, &joined};
    for (int n = 0; n < 3; ++n) {
      const auto it = vocab.ids.find(*names[n]);
      if (it == vocab.ids.end()) {
        return invalid_argument(entry.path, ": \"", names[n]->substr(0, 64),
                                "\" is not in model.vocab");
      }
      ids[n] = it->second;
    }
    if (!usable[ids[0]] || !usable[ids[1]] || !usable[ids[2]]) continue;
    merges.push_back({ids[0], ids[1], ids[2], static_cast<int32_t>(i)});
  }
  return merges;
}

Status check_model(const JsonField& model) {
  RK_RETURN_IF_ERROR(model.object().status());
  if (!model.at("type").is_null()) {
    RK_TRY(const std::string type, model.type());
    if (type != "BPE") return unimplemented(model.path, ".type: \"", type, "\"");
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const JsonField field = model.at(affix);
    if (field.is_null()) continue;
    RK_TRY(const std::string text, field.string());
    if (!text.empty()) return unimplemented(field.path, ": \"", text, "\"");
  }
  return Status();
}

Status read_model(const JsonField& model, bool byte_level, const Vocabulary& vocab,
                  const std::vector<AddedToken>& added, Bpe& bpe) {
  Bpe::Options options{.byte_level = byte_level};
  RK_TRY(options.ignore_merges, model.at("ignore_merges").boolean_or(false));
  RK_TRY(options.byte_fallback, model.at("byte_fallback").boolean_or(false));
  RK_TRY(options.fuse_unk, model.at("fuse_unk").boolean_or(false));
  const JsonField unk = model.at("unk_token");
  if (!unk.is_null()) {
    RK_TRY(const std::string name, unk.string());
    const auto it = vocab.ids.find(name);
    if (it == vocab.ids.end()) {
      return invalid_argument(unk.path, ": \"", name, "\" is not in model.vocab");
    }
    options.unk_id = it->second;
  }
  std::vector<bool> usable = vocab.taken;
  for (const AddedToken& token : added) {
    if (token.special) usable[token.id] = false;  // never made from plain text
  }
  RK_TRY(const json::object* entries, model.at("vocab").object());
  TokenMap tokens;
  tokens.reserve(entries->size());
  std::array<int32_t, 256> byte_tokens;
  byte_tokens.fill(-1);
  std::string bytes;
  for (const auto& entry : *entries) {
    const std::string_view literal = entry.key();
    const auto id = static_cast<int32_t>(*entry.value().if_int64());
    const int byte = options.byte_fallback ? byte_of_token(literal) : -1;
    if (byte >= 0) byte_tokens[static_cast<size_t>(byte)] = id;
    bool reachable = usable[id] && byte < 0 && !literal.empty();
    if (byte_level) {
      reachable = reachable && undo_byte_disguise(literal, bytes);
    } else {
      bytes = literal;
    }
    usable[id] = reachable;
    if (reachable) tokens.emplace(bytes, id);
  }
  RK_TRY(const auto merges, read_merges(model, vocab, usable));
  bpe.build(std::move(tokens), byte_tokens, merges, options);
  return Status();
}

void fill_token_bytes(const Vocabulary& vocab, const JsonDecoder& decoder,
                      BpeTokenizer::Parts& parts) {
  Normalizer replace;
  for (const auto& [pattern, content] : decoder.replacements) replace.add_replace(pattern, content);
  parts.token_bytes.resize(vocab.literals.size());
  parts.is_byte.resize(vocab.literals.size());
  std::string bytes;
  for (size_t id = 0; id < vocab.literals.size(); ++id) {
    std::string text = replace.run(vocab.literals[id]);
    const int byte = decoder.byte_fallback ? byte_of_token(text) : -1;
    if (byte >= 0) {
      text.assign(1, static_cast<char>(byte));
      parts.is_byte[id] = true;
    } else if (decoder.byte_level && undo_byte_disguise(text, bytes)) {
      text = bytes;
    }
    parts.token_bytes[id] = std::move(text);
  }
}

/// "bos_token": a string or an added token's object. -1 where there is none.
Result<int32_t> find_named(const JsonField& config, const char* key, const Vocabulary& vocab) {
  JsonField field = config.at(key);
  if (field.is_null()) return -1;
  if (field.value->is_object()) field = field.at("content");
  RK_TRY(const std::string name, field.string());
  const auto it = vocab.ids.find(name);
  return it == vocab.ids.end() ? -1 : it->second;
}

Status read_ends(const JsonField& generation, size_t vocab_size, std::vector<int32_t>& ends) {
  const JsonField field = generation.at("eos_token_id");
  if (field.is_null()) return Status();
  const auto add = [&](const JsonField& entry) -> Status {
    RK_TRY(const int64_t id, entry.integer());
    // Some lists name ids of the model's padded vocabulary.
    if (id < 0 || id >= kMaxTokenId) {
      return invalid_argument(entry.path, ": id ", id, ", the vocabulary has ", vocab_size);
    }
    append_end(id, ends);
    return Status();
  };
  const json::array* list = field.value->if_array();
  if (list == nullptr) return add(field);
  for (const json::value& value : *list) RK_RETURN_IF_ERROR(add({&value, field.path}));
  return Status();
}

Status read_configs(std::string_view tokenizer_config, std::string_view generation_config,
                    const Vocabulary& vocab, BpeTokenizer::Parts& parts) {
  json::value generation_value, config_value;
  if (!generation_config.empty()) {
    RK_TRY(generation_value, parse_json(generation_config, "generation_config.json"));
  }
  if (!tokenizer_config.empty()) {
    RK_TRY(config_value, parse_json(tokenizer_config, "tokenizer_config.json"));
  }
  const JsonField generation{&generation_value, "generation_config.json"};
  const JsonField config{&config_value, "tokenizer_config.json"};
  RK_RETURN_IF_ERROR(read_ends(generation, vocab.literals.size(), parts.eos));
  const bool listed = !parts.eos.empty();
  RK_TRY(const int32_t eos, find_named(config, "eos_token", vocab));
  append_end(eos, parts.eos);
  if (!listed) append_usual_ends(parts.added, parts.eos);
  RK_TRY(parts.bos, find_named(config, "bos_token", vocab));
  if (parts.bos < 0 && config.at("bos_token").value == nullptr) {
    const JsonField id = generation.at("bos_token_id");
    const int64_t* number = id.value ? id.value->if_int64() : nullptr;
    const bool known =
        number && *number >= 0 && *number < static_cast<int64_t>(vocab.literals.size());
    if (known) parts.bos = static_cast<int32_t>(*number);
  }
  return Status();
}

std::string fingerprint_of(const JsonField& root, const Vocabulary& vocab) {
  FingerprintHash hash;
  hash.add("tokenizer.json 1");
  for (size_t id = 0; id < vocab.literals.size(); ++id) {
    hash.add(static_cast<int64_t>(vocab.taken[id]));
    hash.add(vocab.literals[id]);
  }
  const auto add = [&hash](const JsonField& field) {
    hash.add(field.value ? json::serialize(*field.value) : std::string());
  };
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "added_tokens"}) {
    add(root.at(key));
  }
  for (const char* key : {"merges", "unk_token", "byte_fallback", "ignore_merges", "fuse_unk"}) {
    add(root.at("model").at(key));
  }
  return hash.hex();
}

Status check_affixes(const std::vector<int32_t>& ids, const Vocabulary& vocab) {
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= vocab.taken.size() || !vocab.taken[id]) {
      return invalid_argument("tokenizer.json: post_processor: id ", id, " is no token; ids go to ",
                              vocab.taken.size());
    }
  }
  return Status();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_json(std::string_view tokenizer_json,
                                                        std::string_view tokenizer_config,
                                                        std::string_view generation_config) {
  RK_TRY(const json::value value, parse_json(tokenizer_json, "tokenizer.json"));
  const JsonField root{&value, "tokenizer.json"};
  RK_RETURN_IF_ERROR(root.object().status());
  const JsonField model = root.at("model");
  RK_RETURN_IF_ERROR(check_model(model));

  BpeTokenizer::Parts parts;
  JsonPreTokenizer pre;
  JsonDecoder decoder;
  RK_RETURN_IF_ERROR(parse_normalizer(root.at("normalizer"), parts.normalizer));
  RK_RETURN_IF_ERROR(parse_pretokenizer(root.at("pre_tokenizer"), pre));
  RK_RETURN_IF_ERROR(parse_decoder(root.at("decoder"), decoder));
  parts.pretokenizer = std::move(pre.steps);

  Vocabulary vocab;
  const json::value* added = root.at("added_tokens").value;
  const size_t num_added = added && added->is_array() ? added->if_array()->size() : 0;
  RK_RETURN_IF_ERROR(read_vocab(model, num_added, vocab));
  RK_RETURN_IF_ERROR(read_added(root, vocab, parts.added));
  RK_RETURN_IF_ERROR(read_model(model, pre.byte_level, vocab, parts.added, parts.bpe));
  RK_RETURN_IF_ERROR(parse_post_processor(root.at("post_processor"), parts.prefix, parts.suffix));
  RK_RETURN_IF_ERROR(check_affixes(parts.prefix, vocab));
  RK_RETURN_IF_ERROR(check_affixes(parts.suffix, vocab));
  fill_token_bytes(vocab, decoder, parts);
  parts.leading_space = decoder.leading_space;
  RK_RETURN_IF_ERROR(read_configs(tokenizer_config, generation_config, vocab, parts));
  parts.fingerprint = fingerprint_of(root, vocab);
  return std::unique_ptr<Tokenizer>(std::make_unique<BpeTokenizer>(std::move(parts)));
}

}  // namespace rk::text
