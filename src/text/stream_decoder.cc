#include "text/stream_decoder.h"

#include <algorithm>

#include "text/unicode.h"

namespace rk::text {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer),
      skip_special_(skip_special),
      leading_space_(tokenizer.leading_space()) {}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  std::string bytes = tokenizer_.token_bytes(id);
  if (tokenizer_.is_byte_fallback(id)) {
    byte_run_ += bytes;
    return {};
  }
  std::string out = flush_byte_run();
  if (bytes.empty()) return out;
  const bool first_token = at_start_ && out.empty() && pending_.empty();
  pending_ += bytes;
  size_t complete = pending_.size();
  // Only the last three bytes can belong to a character that goes on.
  for (size_t pos = complete - std::min<size_t>(complete, 3); pos < pending_.size(); ++pos) {
    if ((static_cast<unsigned char>(pending_[pos]) & 0xC0) == 0x80) continue;
    const Utf8Step step = next_utf8(pending_, pos);
    if (step.incomplete && pos + step.size == pending_.size()) complete = pos;
  }
  std::string text;
  append_repaired(text, std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return out + shown(std::move(text), first_token);
}

std::string StreamDecoder::finish() {
  std::string out = flush_byte_run();
  std::string text;
  append_repaired(text, pending_);
  pending_.clear();
  return out + shown(std::move(text), false);
}

std::string StreamDecoder::flush_byte_run() {
  if (byte_run_.empty()) return {};
  std::string text;
  if (is_valid_utf8(byte_run_)) {
    text = byte_run_;
  } else {
    for (size_t i = 0; i < byte_run_.size(); ++i) text += kReplacementChar;
  }
  byte_run_.clear();
  return shown(std::move(text), false);
}

std::string StreamDecoder::shown(std::string text, bool first_token) {
  if (!at_start_ || text.empty()) return text;
  at_start_ = false;
  if (leading_space_ == LeadingSpace::kDropFirstToken && first_token) std::erase(text, ' ');
  if (leading_space_ == LeadingSpace::kDropOne && text.front() == ' ') text.erase(0, 1);
  return text;
}

}  // namespace rk::text
