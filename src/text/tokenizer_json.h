// The parts of a Hugging Face tokenizer.json, one parser each. Private to src/text; every error is
// kInvalidArgument (kUnimplemented for known kinds that are not built) and names the field.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/bpe_tokenizer.h"

namespace boost::json {
class value;
class object;
class array;
}  // namespace boost::json

namespace rk::text {

/// Typed access to one value; `path` names it in errors. A null `value` is an absent one.
struct JsonField {
  const boost::json::value* value = nullptr;
  std::string path;

  bool is_null() const;
  /// Requires: an object (see object()). Absent keys give a null field.
  JsonField at(std::string_view key) const;
  Result<const boost::json::object*> object() const;
  Result<const boost::json::array*> array() const;
  Result<std::string> string() const;
  Result<int64_t> integer() const;
  /// Absent or null: the default.
  Result<bool> boolean_or(bool otherwise) const;
  /// The "type" of an object.
  Result<std::string> type() const;
};

/// Pattern of a Split or Replace: {"String": ...} or {"Regex": ...}.
struct JsonPattern {
  bool is_regex = false;
  std::string text;
};

Status parse_normalizer(const JsonField& field, Normalizer& normalizer);

struct JsonPreTokenizer {
  PreTokenizer steps;
  bool byte_level = false;
};
Status parse_pretokenizer(const JsonField& field, JsonPreTokenizer& pre);

/// What decode does to each token, and to the start of the text.
struct JsonDecoder {
  bool byte_level = false, byte_fallback = false, fused = false;
  std::vector<std::pair<std::string, std::string>> replacements;
  LeadingSpace leading_space = LeadingSpace::kKeep;
};
Status parse_decoder(const JsonField& field, JsonDecoder& decoder);

/// Ids in front of and behind the text.
Status parse_post_processor(const JsonField& field, std::vector<int32_t>& prefix,
                            std::vector<int32_t>& suffix);

}  // namespace rk::text
