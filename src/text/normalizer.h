// Text normalisation in front of a tokenizer: Unicode normal forms, replacement, prefixes. Linear
// in the text whatever it holds (a long run of combining marks costs n log n). Knows no JSON.
// Immutable once set up, thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/regex.h"

namespace rk::text {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// Requires: valid UTF-8.
std::string normal_form(std::string_view text, NormalForm form);
/// Simple, one to one lower case.
std::string lower_case(std::string_view text);

class Normalizer {
 public:
  void add_form(NormalForm form) { steps_.push_back({.kind = Kind::kForm, .form = form}); }
  void add_lowercase() { steps_.push_back({.kind = Kind::kLowercase}); }
  void add_strip_accents() { steps_.push_back({.kind = Kind::kStripAccents}); }
  void add_strip(bool left, bool right) {
    steps_.push_back({.kind = Kind::kStrip, .left = left, .right = right});
  }
  /// Before every text that is not empty.
  void add_prepend(std::string what) {
    steps_.push_back({.kind = Kind::kPrepend, .content = std::move(what)});
  }
  /// Requires: `pattern` not empty.
  void add_replace(std::string pattern, std::string content) {
    steps_.push_back(
        {.kind = Kind::kReplace, .pattern = std::move(pattern), .content = std::move(content)});
  }
  Status add_replace_regex(std::string_view pattern, std::string content);

  bool empty() const { return steps_.empty(); }
  size_t num_steps() const { return steps_.size(); }
  /// Steps of a hostile file that blow the text up (beyond 16 times and 64 KiB) end the run there.
  std::string run(std::string_view text) const;

 private:
  enum class Kind { kForm, kLowercase, kStripAccents, kStrip, kPrepend, kReplace, kReplaceRegex };
  struct Step {
    Kind kind;
    NormalForm form = NormalForm::kNfc;
    bool left = false, right = false;
    std::string pattern, content;
    std::shared_ptr<const Regex> regex;
  };
  static std::string run_step(const Step& step, std::string text);

  std::vector<Step> steps_;
};

}  // namespace rk::text
