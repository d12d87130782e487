// Normaliser, pre-tokenizer, decoder and post-processor of a tokenizer.json.
#include <boost/json.hpp>

#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace rk::text {
namespace {

namespace json = boost::json;

// Real files have at most 8 steps and replacements of 3 bytes; each step costs a pass and stack.
constexpr size_t kMaxSteps = 64;
constexpr size_t kMaxReplacementBytes = 64;

Status check_steps(const JsonField& field, size_t num_steps) {
  if (num_steps < kMaxSteps) return Status();
  return invalid_argument(field.path, ": more than ", kMaxSteps, " steps");
}

Result<std::string> replacement(const JsonField& field) {
  RK_TRY(std::string text, field.string());
  if (text.size() > kMaxReplacementBytes) {
    return invalid_argument(field.path, ": ", text.size(), " bytes, limit ", kMaxReplacementBytes);
  }
  return text;
}

Result<JsonPattern> parse_pattern(const JsonField& field) {
  RK_TRY(const json::object* object, field.object());
  for (const char* kind : {"Regex", "String"}) {
    if (object->if_contains(kind) == nullptr) continue;
    JsonPattern pattern{.is_regex = kind[0] == 'R'};
    RK_TRY(pattern.text, field.at(kind).string());
    return pattern;
  }
  return invalid_argument(field.path, ": neither String nor Regex");
}

Result<SplitBehavior> parse_behavior(const JsonField& field) {
  RK_TRY(const std::string name, field.string());
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return invalid_argument(field.path, ": \"", name, "\" is no split behaviour");
}

Status at_path(const JsonField& field, const Status& status) {
  if (status.ok()) return status;
  return Status(status.code(), cat(field.path, ": ", status.message()));
}

/// Calls `parse` for each element of an array field.
template <class Parse>
Status for_each(const JsonField& field, Parse parse) {
  RK_TRY(const json::array* array, field.array());
  for (size_t i = 0; i < array->size(); ++i) {
    RK_RETURN_IF_ERROR(parse(JsonField{&(*array)[i], cat(field.path, "[", i, "]")}));
  }
  return Status();
}

struct Metaspace {
  std::string mark;
  SpaceMarkScheme scheme = SpaceMarkScheme::kAlways;
};

Result<Metaspace> parse_metaspace(const JsonField& field) {
  Metaspace meta;
  RK_TRY(meta.mark, replacement(field.at("replacement")));
  if (meta.mark.empty()) return invalid_argument(field.path, ".replacement: is empty");
  if (meta.mark.find(' ') != std::string::npos) {
    return invalid_argument(field.path, ".replacement: holds a space");
  }
  RK_TRY(const bool prefix, field.at("add_prefix_space").boolean_or(true));
  if (!prefix) meta.scheme = SpaceMarkScheme::kNever;
  const JsonField scheme = field.at("prepend_scheme");
  if (scheme.is_null()) return meta;
  RK_TRY(const std::string name, scheme.string());
  if (name == "always") {
    meta.scheme = SpaceMarkScheme::kAlways;
  } else if (name == "first") {
    meta.scheme = SpaceMarkScheme::kFirst;
  } else if (name == "never") {
    meta.scheme = SpaceMarkScheme::kNever;
  } else {
    return invalid_argument(scheme.path, ": \"", name, "\" is none of always, first, never");
  }
  return meta;
}

Status parse_replace(const JsonField& field, Normalizer& normalizer) {
  RK_TRY(JsonPattern pattern, parse_pattern(field.at("pattern")));
  RK_TRY(std::string content, replacement(field.at("content")));
  if (pattern.is_regex) {
    return at_path(field, normalizer.add_replace_regex(pattern.text, std::move(content)));
  }
  if (pattern.text.empty()) return invalid_argument(field.path, ".pattern: is empty");
  normalizer.add_replace(std::move(pattern.text), std::move(content));
  return Status();
}

Status parse_split(const JsonField& field, PreTokenizer& steps) {
  RK_TRY(JsonPattern pattern, parse_pattern(field.at("pattern")));
  RK_TRY(const SplitBehavior behavior, parse_behavior(field.at("behavior")));
  RK_TRY(const bool invert, field.at("invert").boolean_or(false));
  if (pattern.is_regex) return at_path(field, steps.add_regex(pattern.text, behavior, invert));
  if (pattern.text.empty()) return invalid_argument(field.path, ".pattern: is empty");
  steps.add_literal(std::move(pattern.text), behavior, invert);
  return Status();
}

Status parse_byte_level(const JsonField& field, JsonPreTokenizer& pre) {
  RK_TRY(const bool prefix_space, field.at("add_prefix_space").boolean_or(true));
  RK_TRY(const bool use_regex, field.at("use_regex").boolean_or(true));
  if (prefix_space) pre.steps.add_prefix_space();
  if (use_regex) pre.steps.add_gpt2();
  pre.byte_level = true;
  return Status();
}

/// ["token", id] of BertProcessing and RobertaProcessing.
Result<int32_t> parse_token_pair(const JsonField& field) {
  RK_TRY(const json::array* pair, field.array());
  if (pair->size() != 2)
    return invalid_argument(field.path, ": ", pair->size(), " elements, not 2");
  RK_TRY(const int64_t id, (JsonField{&(*pair)[1], field.path + "[1]"}).integer());
  return static_cast<int32_t>(id);
}

Status parse_template(const JsonField& field, std::vector<int32_t>& prefix,
                      std::vector<int32_t>& suffix) {
  const JsonField tokens = field.at("special_tokens");
  RK_RETURN_IF_ERROR(tokens.object().status());
  std::vector<int32_t> before, behind;
  int num_sequences = 0;
  RK_RETURN_IF_ERROR(for_each(field.at("single"), [&](const JsonField& piece) -> Status {
    RK_RETURN_IF_ERROR(piece.object().status());
    if (!piece.at("Sequence").is_null()) return ++num_sequences, Status();
    const JsonField special = piece.at("SpecialToken");
    RK_RETURN_IF_ERROR(special.object().status());
    RK_TRY(const std::string name, special.at("id").string());
    const JsonField entry = tokens.at(name);
    RK_RETURN_IF_ERROR(entry.object().status());
    return for_each(entry.at("ids"), [&](const JsonField& id) -> Status {
      RK_TRY(const int64_t value, id.integer());
      (num_sequences == 0 ? before : behind).push_back(static_cast<int32_t>(value));
      return Status();
    });
  }));
  if (num_sequences != 1) {
    return invalid_argument(field.path, ".single: ", num_sequences, " sequences, not 1");
  }
  prefix.insert(prefix.begin(), before.begin(), before.end());
  suffix.insert(suffix.end(), behind.begin(), behind.end());
  return Status();
}

}  // namespace

Status parse_normalizer(const JsonField& field, Normalizer& normalizer) {
  if (field.is_null()) return Status();
  RK_RETURN_IF_ERROR(check_steps(field, normalizer.num_steps()));
  RK_TRY(const std::string type, field.type());
  if (type == "Sequence") {
    return for_each(field.at("normalizers"),
                    [&](const JsonField& part) { return parse_normalizer(part, normalizer); });
  }
  if (type == "Replace") return parse_replace(field, normalizer);
  if (type == "NFC") return normalizer.add_form(NormalForm::kNfc), Status();
  if (type == "NFD") return normalizer.add_form(NormalForm::kNfd), Status();
  if (type == "NFKC") return normalizer.add_form(NormalForm::kNfkc), Status();
  if (type == "NFKD") return normalizer.add_form(NormalForm::kNfkd), Status();
  if (type == "Lowercase") return normalizer.add_lowercase(), Status();
  if (type == "StripAccents") return normalizer.add_strip_accents(), Status();
  if (type == "Strip") {
    RK_TRY(const bool left, field.at("strip_left").boolean_or(true));
    RK_TRY(const bool right, field.at("strip_right").boolean_or(true));
    return normalizer.add_strip(left, right), Status();
  }
  if (type == "Prepend") {
    RK_TRY(std::string what, replacement(field.at("prepend")));
    return normalizer.add_prepend(std::move(what)), Status();
  }
  return unimplemented(field.path, ": type \"", type, "\"");
}

Status parse_pretokenizer(const JsonField& field, JsonPreTokenizer& pre) {
  if (field.is_null()) return Status();
  RK_RETURN_IF_ERROR(check_steps(field, pre.steps.num_steps()));
  RK_TRY(const std::string type, field.type());
  if (type == "Sequence") {
    return for_each(field.at("pretokenizers"),
                    [&](const JsonField& part) { return parse_pretokenizer(part, pre); });
  }
  // Behind ByteLevel others would see disguised bytes, which we never make.
  if (pre.byte_level) return unimplemented(field.path, ": \"", type, "\" behind ByteLevel");
  if (type == "ByteLevel") return parse_byte_level(field, pre);
  if (type == "Split") return parse_split(field, pre.steps);
  if (type == "Digits") {
    RK_TRY(const bool each, field.at("individual_digits").boolean_or(false));
    const auto behavior = each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
    return pre.steps.add_char_class(kNumber, behavior), Status();
  }
  if (type == "Metaspace") {
    RK_TRY(Metaspace meta, parse_metaspace(field));
    RK_TRY(const bool split, field.at("split").boolean_or(true));
    return pre.steps.add_metaspace(std::move(meta.mark), meta.scheme, split), Status();
  }
  if (type == "WhitespaceSplit") {
    return pre.steps.add_char_class(kSpace, SplitBehavior::kRemoved), Status();
  }
  if (type == "Whitespace") {
    return pre.steps.add_regex(R"(\w+|[^\w\s]+)", SplitBehavior::kRemoved, true);
  }
  if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    const JsonField named = field.at("behavior");
    if (!named.is_null()) {
      RK_TRY(behavior, parse_behavior(named));
    }
    return pre.steps.add_char_class(kPunct, behavior), Status();
  }
  return unimplemented(field.path, ": type \"", type, "\"");
}

Status parse_decoder(const JsonField& field, JsonDecoder& decoder) {
  if (field.is_null()) return unimplemented(field.path, ": none (tokens joined by spaces)");
  RK_RETURN_IF_ERROR(check_steps(field, decoder.replacements.size()));
  RK_TRY(const std::string type, field.type());
  if (type == "Sequence") {
    return for_each(field.at("decoders"),
                    [&](const JsonField& part) { return parse_decoder(part, decoder); });
  }
  if (type == "ByteLevel") return decoder.byte_level = true, Status();
  if (type == "ByteFallback") return decoder.byte_fallback = true, Status();
  if (type == "Fuse") return decoder.fused = true, Status();
  if (type == "Replace") {
    RK_TRY(JsonPattern pattern, parse_pattern(field.at("pattern")));
    RK_TRY(std::string content, replacement(field.at("content")));
    if (pattern.is_regex) return unimplemented(field.path, ": a regex in a decoder");
    if (pattern.text.empty()) return invalid_argument(field.path, ".pattern: is empty");
    decoder.replacements.emplace_back(std::move(pattern.text), std::move(content));
    return Status();
  }
  if (type == "Strip") {
    RK_TRY(const std::string content, field.at("content").string());
    RK_TRY(const int64_t start, field.at("start").integer());
    RK_TRY(const int64_t stop, field.at("stop").integer());
    if (content != " " || start < 0 || start > 1 || stop != 0 || !decoder.fused) {
      return unimplemented(field.path, ": Strip of \"", content, "\", ", start, " and ", stop,
                           "; built is one space at the start of fused text");
    }
    if (start == 1) decoder.leading_space = LeadingSpace::kDropOne;
    return Status();
  }
  if (type == "Metaspace") {
    RK_TRY(Metaspace meta, parse_metaspace(field));
    decoder.replacements.emplace_back(std::move(meta.mark), " ");
    if (meta.scheme != SpaceMarkScheme::kNever)
      decoder.leading_space = LeadingSpace::kDropFirstToken;
    return Status();
  }
  return unimplemented(field.path, ": type \"", type, "\"");
}

Status parse_post_processor(const JsonField& field, std::vector<int32_t>& prefix,
                            std::vector<int32_t>& suffix) {
  if (field.is_null()) return Status();
  RK_TRY(const std::string type, field.type());
  if (type == "ByteLevel") return Status();  // shapes offsets only
  if (type == "TemplateProcessing") return parse_template(field, prefix, suffix);
  if (type == "Sequence") {
    return for_each(field.at("processors"), [&](const JsonField& part) {
      return parse_post_processor(part, prefix, suffix);
    });
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    RK_TRY(const int32_t cls, parse_token_pair(field.at("cls")));
    RK_TRY(const int32_t sep, parse_token_pair(field.at("sep")));
    prefix.insert(prefix.begin(), cls);
    suffix.push_back(sep);
    return Status();
  }
  return unimplemented(field.path, ": type \"", type, "\"");
}

}  // namespace rk::text
