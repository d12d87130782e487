// Cuts text into the words that merges never cross, as Hugging Face pre-tokenizers do. The patterns
// of known families are scanned by hand, others by a regex. Knows no vocabulary and no JSON.
// Immutable once set up, thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/regex.h"

namespace rk::text {

/// What happens to the parts of a text that match a pattern (names as in `tokenizers`).
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
enum class SpaceMarkScheme { kNever, kFirst, kAlways };

class WordSink {
 public:
  /// `word` is gone after the call.
  virtual void word(std::string_view word) = 0;

 protected:
  ~WordSink() = default;
};

class PreTokenizer {
 public:
  /// GPT-2's own pattern.
  void add_gpt2() { steps_.push_back({.kind = Kind::kGpt2}); }
  /// The pattern of cl100k's descendants: Llama 3 (numbers of up to 3 digits), Qwen2 (1).
  void add_cl100k(int max_digits) {
    steps_.push_back({.kind = Kind::kCl100k, .max_digits = max_digits});
  }
  /// Split by a regex; GPT-2's, Llama 3's and Qwen2's get their scanners.
  Status add_regex(std::string_view pattern, SplitBehavior behavior, bool invert);
  void add_literal(std::string pattern, SplitBehavior behavior, bool invert);
  /// Every character with one of these CharClass bits is a match.
  void add_char_class(uint8_t classes, SplitBehavior behavior);
  /// A space before every text that does not begin with one.
  void add_prefix_space() { steps_.push_back({.kind = Kind::kPrefixSpace}); }
  void add_metaspace(std::string mark, SpaceMarkScheme scheme, bool split);

  size_t num_steps() const { return steps_.size(); }

  /// Words of `text` (valid UTF-8) in order. `at_start`: it is the start of the whole input.
  void run(std::string_view text, bool at_start, WordSink& sink) const;

 private:
  enum class Kind { kGpt2, kCl100k, kRegex, kLiteral, kCharClass, kPrefixSpace, kMetaspace };
  struct Step {
    Kind kind;
    int max_digits = 0;
    uint8_t classes = 0;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false, split = false;
    SpaceMarkScheme scheme = SpaceMarkScheme::kNever;
    std::string literal;
    std::shared_ptr<const Regex> regex;
  };
  class Splitter;
  void run_step(size_t index, std::string_view text, bool at_start, WordSink& sink) const;

  std::vector<Step> steps_;
};

/// The end of the word that begins at `pos` (scanners of the known patterns; pos < text.size()).
size_t scan_gpt2(std::string_view text, size_t pos, const uint8_t* classes);
size_t scan_cl100k(std::string_view text, size_t pos, int max_digits, const uint8_t* classes);

/// The pre-tokenizer that a GGUF file names in tokenizer.ggml.pre.
/// Errors: kUnimplemented naming it.
Result<PreTokenizer> pretokenizer_of_gguf(std::string_view name);

}  // namespace rk::text
