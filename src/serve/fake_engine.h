// For tests: a tokenizer of bytes and an engine that says what it is told, no model needed.
#pragma once

#include <atomic>
#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/service.h"
#include "text/tokenizer.h"

namespace rk::serve {

/// Ids 0..255 are bytes; 256 <s> (BOS, added), 257 <|im_start|>, 258 <|im_end|> (EOS).
class FakeTokenizer : public text::Tokenizer {
 public:
  using text::Tokenizer::encode;
  explicit FakeTokenizer(bool adds_bos = false) : adds_bos_(adds_bos) {}
  std::vector<int32_t> encode(std::span<const text::TextPiece> pieces,
                              bool add_special) const override {
    std::vector<int32_t> ids;
    if (add_special && adds_bos_) ids.push_back(256);
    for (const text::TextPiece& piece : pieces) {
      for (size_t i = 0; i < piece.text.size();) {
        int32_t special = -1;
        for (int32_t id = 256; id < 259 && piece.trusted; ++id) {
          if (piece.text.compare(i, token_bytes(id).size(), token_bytes(id)) == 0) special = id;
        }
        ids.push_back(special >= 0 ? special : static_cast<unsigned char>(piece.text[i]));
        i += special >= 0 ? token_bytes(special).size() : 1;
      }
    }
    return ids;
  }
  std::string token_bytes(int32_t id) const override {
    constexpr const char* kSpecial[] = {"<s>", "<|im_start|>", "<|im_end|>"};
    if (id >= 256 && id < 259) return kSpecial[id - 256];
    return id >= 0 && id < 256 ? std::string(1, static_cast<char>(id)) : "";
  }
  bool is_special(int32_t id) const override { return id >= 256; }
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string out;
    for (const int32_t id : ids) out += skip_special && is_special(id) ? "" : token_bytes(id);
    return out;
  }
  bool strips_leading_space() const override { return false; }
  int32_t vocab_size() const override { return 259; }
  int32_t bos() const override { return 256; }
  std::vector<int32_t> eos() const override { return {258}; }
  int32_t find_token(std::string_view literal) const override {
    for (int32_t id = 0; id < 259; ++id) {
      if (token_bytes(id) == literal) return id;
    }
    return -1;
  }
  std::string fingerprint() const override { return "fake"; }

 private:
  bool adds_bos_;
};

constexpr const char* kFakeChatTemplate =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Shared with the test, which outlives the service.
struct FakeEngineState {
  std::string answer = "Hello from the fake engine.";  ///< its bytes are the tokens
  std::atomic<int> token_ms{0};                        ///< time per token
  std::atomic<bool> endless{false};                    ///< the answer starts again at its end
  std::atomic<int> runs{0}, cancelled{0};
  std::atomic<bool> broken{false};      ///< its device failed
  bool repeats = false;                 ///< its answers are stopped by the guardian where asked
  engine::ShadowTracker::Stats shadow;  ///< set before the server starts
  engine::Request last;                 ///< of the newest run; read when nothing runs
  std::string last_prompt;              ///< its ids as text, spans joined by '|'
  std::set<std::vector<int32_t>> documents;
  bool remembers = true;           ///< documents seen are hits later
  std::string fail_word = "FAIL";  ///< a prompt with it fails; empty: none does
  std::vector<uint64_t> seeds;     ///< of every run
};

class FakeRunner : public engine::Runner {
 public:
  explicit FakeRunner(FakeEngineState& state) : state_(state) {}
  Status check(const engine::Request& request) const override {
    for (const engine::PromptSpan& span : request.spans) {
      for (const int32_t id : span.tokens) {
        if (id < 0 || id >= vocab_size()) return invalid_argument("token id ", id);
      }
    }
    return {};
  }
  int64_t context_tokens() const override { return 4096; }
  int64_t vocab_size() const override { return 259; }
  Status health() const override {
    return state_.broken ? unavailable("the fake card fell off the bus") : Status();
  }

  engine::ShadowTracker::Stats shadow_stats() const override { return state_.shadow; }

  void run(const engine::Request& request, double queue_ms, engine::Listener& listener) override {
    ++state_.runs;
    state_.last = request;
    if (state_.remembers) state_.seeds.push_back(request.sampling.seed);
    engine::Outcome outcome;
    describe(request, outcome.stats);
    outcome.stats.queue_ms = queue_ms;
    outcome.finish = engine::FinishReason::kLength;
    if (!state_.fail_word.empty() &&
        state_.last_prompt.find(state_.fail_word) != std::string::npos) {
      outcome.finish = engine::FinishReason::kError;
      outcome.status = internal("the fake engine was told to fail");
      return listener.on_done(outcome);
    }
    for (int i = 0; i < request.max_tokens; ++i) {
      const size_t at = static_cast<size_t>(i);
      if (at >= state_.answer.size() && !state_.endless) {
        outcome.finish = engine::FinishReason::kStop;
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(state_.token_ms));
      ++outcome.stats.generated;
      if (listener.cancelled() || !listener.on_token(event(request, at))) {
        outcome.finish = engine::FinishReason::kCancelled;
        ++state_.cancelled;
        break;
      }
    }
    if (request.guardian && state_.repeats) outcome.finish = engine::FinishReason::kGuardian;
    listener.on_done(outcome);
  }

 private:
  engine::TokenEvent event(const engine::Request& request, size_t at) const {
    const int32_t id = static_cast<unsigned char>(state_.answer[at % state_.answer.size()]);
    engine::TokenEvent out{id, {}};
    if (request.num_logprobs >= 0) {
      out.logprobs = kernels::Logprobs{{id, -0.5F}, {}};
      for (int i = 0; i < request.num_logprobs; ++i) {
        out.logprobs->top.push_back({i, -0.5F * static_cast<float>(i + 1)});
      }
    }
    return out;
  }
  void describe(const engine::Request& request, engine::RequestStats& stats) {
    state_.last_prompt.clear();
    stats.mode = request.mode == engine::Mode::kAuto ? engine::Mode::kPrefix : request.mode;
    if (stats.mode != engine::Mode::kDense && stats.mode != engine::Mode::kPrefix) {
      stats.gate = "bypassed";  // there is no card
      stats.quality_used = engine::Level::kNone;
    }
    stats.ttft_ms = 1;
    for (const engine::PromptSpan& span : request.spans) {
      const auto size = static_cast<int64_t>(span.tokens.size());
      stats.prompt_tokens += size;
      if (!state_.last_prompt.empty()) state_.last_prompt += '|';
      state_.last_prompt += FakeTokenizer().decode(span.tokens, false);
      const bool hit =
          span.segment && state_.remembers && !state_.documents.insert(span.tokens).second;
      (hit ? stats.document_cached : stats.fresh) += size;
      if (span.segment) {
        stats.documents.push_back({hit ? engine::DocumentState::kHit : engine::DocumentState::kMiss,
                                   false, static_cast<int>(size)});
        if (request.any_order) {  // as if the last ones fitted first
          stats.document_order.insert(stats.document_order.begin(),
                                      static_cast<int>(stats.document_order.size()));
        }
      }
    }
  }
  FakeEngineState& state_;
};

}  // namespace rk::serve
