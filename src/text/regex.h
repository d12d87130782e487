// One compiled regular expression of a tokenizer file (PCRE2, UTF and Unicode properties, JIT),
// with bounds on the work of a match. Immutable, thread-safe.
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"

namespace rk::text {

class Regex {
 public:
  /// Errors: kInvalidArgument with the offset and the reason.
  static Result<Regex> compile(std::string_view pattern);

  /// Searches one text from left to right. One thread; not longer than its Regex and text.
  class Search {
   public:
    Search(const Regex& regex, std::string_view text);
    ~Search();
    Search(const Search&) = delete;
    Search& operator=(const Search&) = delete;
    /// The next match, perhaps empty. False at the end, and when the bound on work is hit.
    bool next(size_t& begin, size_t& end);

   private:
    const Regex& regex_;
    std::string_view text_;
    void* match_data_;
    size_t pos_ = 0;
    bool after_empty_ = false;
  };

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace rk::text
