#include "serve/completion.h"

#include <algorithm>

namespace rk::serve {
namespace {

// Bytes at the end of `text` that could be the start of `stop`.
size_t possible_start(const std::string& text, const std::string& stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.compare(text.size() - n, n, stop, 0, n) == 0) return n;
  }
  return 0;
}

}  // namespace

Completion::Completion(const text::Tokenizer& tokenizer, CompletionOptions options,
                       std::shared_ptr<CompletionSink> sink)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      sink_(std::move(sink)),
      decoder_(tokenizer, options_.skip_special) {}

TokenText Completion::describe(const kernels::TokenLogprob& token) const {
  return {token.token, tokenizer_.token_bytes(token.token), token.logprob};
}

bool Completion::on_token(const engine::TokenEvent& event) {
  const auto now = std::chrono::steady_clock::now();
  if (any_token_) {
    gaps_ms_.push_back(std::chrono::duration<double, std::milli>(now - last_token_).count());
  }
  any_token_ = true;
  last_token_ = now;
  if (event.logprobs) {
    TokenDetail detail{describe(event.logprobs->chosen), {}, decoded_bytes_, decoded_chars_};
    for (const kernels::TokenLogprob& top : event.logprobs->top)
      detail.top.push_back(describe(top));
    waiting_.push_back(std::move(detail));
  }
  return take(decoder_.push(event.token), false) && !cancelled_;
}

// Looks for stop strings in what is not emitted yet; an emitted byte can begin none.
bool Completion::take(const std::string& text, bool last) {
  decoded_bytes_ += text.size();
  decoded_chars_ += static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
  held_ += text;
  size_t found = std::string::npos, keep = 0;
  for (const std::string& stop : options_.stop) {
    const size_t at = held_.find(stop);
    if (at < found || (at != std::string::npos && at == found && stop.size() > stop_.size())) {
      found = at;
      stop_ = stop;
    }
    keep = std::max(keep, possible_start(held_, stop));
  }
  if (found != std::string::npos) {
    stopped_ = true;
    held_.resize(found + (options_.include_stop ? stop_.size() : 0));
    (void)emit(std::move(held_), true);
    return false;
  }
  if (last) keep = 0;
  std::string ready = held_.substr(0, held_.size() - keep);
  held_.erase(0, ready.size());
  return emit(std::move(ready), last);
}

bool Completion::emit(std::string text, bool last) {
  emitted_bytes_ += text.size();
  CompletionDelta delta;
  delta.text = std::move(text);
  const auto held = std::find_if(waiting_.begin(), waiting_.end(), [&](const TokenDetail& detail) {
    return stopped_ ? detail.byte_offset >= emitted_bytes_
                    : !last && detail.byte_offset >= emitted_bytes_;
  });
  delta.details.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(held));
  waiting_.erase(waiting_.begin(), held);
  if (delta.text.empty() && delta.details.empty()) return true;
  return sink_->on_delta(delta);
}

void Completion::on_done(const engine::Outcome& outcome) {
  if (!stopped_ && !cancelled_) (void)take(decoder_.finish(), true);
  CompletionEnd end;
  end.stats = outcome.stats;
  end.gaps_ms = std::move(gaps_ms_);
  end.stop = stopped_ ? stop_ : "";
  if (stopped_) {
    end.reason = "stop";
  } else if (outcome.finish == engine::FinishReason::kError) {
    end.reason = "error";
    end.status =
        outcome.status.ok() ? internal("the engine failed without a reason") : outcome.status;
  } else if (outcome.finish == engine::FinishReason::kCancelled) {
    end.reason = "cancelled";
  } else {
    end.reason = outcome.finish == engine::FinishReason::kLength     ? "length"
                 : outcome.finish == engine::FinishReason::kGuardian ? "guardian"
                                                                     : "stop";
  }
  sink_->on_end(end);
}

}  // namespace rk::serve
