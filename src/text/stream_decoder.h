// Token ids to text as they arrive; never emits half a character. Engine or server thread; one per
// answer.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace rk::text {

class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special);
  /// Text that is complete with this token; may be empty.
  std::string push(int32_t id);
  /// What is left at the end, incomplete bytes as U+FFFD.
  std::string finish();
  // The concatenation of all outputs equals Tokenizer::decode of all ids.

 private:
  std::string flush_byte_run();
  std::string shown(std::string text, bool first_token);

  const Tokenizer& tokenizer_;
  const bool skip_special_;
  const LeadingSpace leading_space_;
  bool at_start_ = true;
  std::string pending_;   ///< an unfinished character
  std::string byte_run_;  ///< byte-fallback tokens; valid or not is known at the run's end
};

}  // namespace rk::text
