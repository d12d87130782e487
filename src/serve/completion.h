// One running answer: tokens from the engine become text, stop strings end it, and a sink is told.
// Knows no HTTP. The sink is called on the engine thread (from cancel()'s caller never).
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "engine/request.h"
#include "text/stream_decoder.h"

namespace rk::serve {

struct CompletionOptions {
  std::vector<std::string> stop;  ///< the answer ends before the first of them
  bool include_stop = false;      ///< ... or behind it
  bool skip_special = true;       ///< special tokens are no text
};

struct TokenText {
  int32_t id = 0;
  std::string bytes;
  float logprob = 0.0F;
};
/// One generated token with its alternatives; only where the request asks for logprobs.
struct TokenDetail {
  TokenText token;
  std::vector<TokenText> top;
  size_t byte_offset = 0, text_offset = 0;  ///< bytes and characters of the answer before it
};

struct CompletionDelta {
  std::string text;  ///< whole characters; may be empty where details are not
  std::vector<TokenDetail> details;
};

struct CompletionEnd {
  std::string reason;  ///< "stop", "length", "guardian", "cancelled" or "error"
  std::string stop;    ///< the stop string that ended it, or ""
  Status status;       ///< not ok only with "error"
  engine::RequestStats stats;
  std::vector<double> gaps_ms;  ///< between tokens
};

class CompletionSink {
 public:
  virtual ~CompletionSink() = default;
  /// False cancels the answer.
  virtual bool on_delta(const CompletionDelta& delta) = 0;
  virtual void on_end(const CompletionEnd& end) = 0;  ///< exactly once, last
};

class Completion : public engine::Listener {
 public:
  Completion(const text::Tokenizer& tokenizer, CompletionOptions options,
             std::shared_ptr<CompletionSink> sink);

  bool on_token(const engine::TokenEvent& event) override;
  void on_done(const engine::Outcome& outcome) override;
  bool cancelled() const override { return cancelled_; }
  /// Ends the answer at the engine's next step. Any thread.
  void cancel() { cancelled_ = true; }

 private:
  bool take(const std::string& text, bool last);
  bool emit(std::string text, bool last);
  TokenText describe(const kernels::TokenLogprob& token) const;

  const text::Tokenizer& tokenizer_;
  const CompletionOptions options_;
  const std::shared_ptr<CompletionSink> sink_;
  text::StreamDecoder decoder_;
  std::atomic<bool> cancelled_{false};
  std::string held_;  // decoded and not emitted: it may begin a stop string
  std::string stop_;  // the one found
  size_t decoded_bytes_ = 0, decoded_chars_ = 0, emitted_bytes_ = 0;
  std::vector<TokenDetail> waiting_;  // details of tokens whose text is held
  std::vector<double> gaps_ms_;
  std::chrono::steady_clock::time_point last_token_;
  bool any_token_ = false, stopped_ = false;
};

}  // namespace rk::serve
