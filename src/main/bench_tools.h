// What the engine's benches share: prompts without meaning, and a listener that notes times.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "engine/request.h"

namespace rk::cli {

/// Token ids without meaning, the same for the same seed: speed does not depend on them.
inline std::vector<int32_t> random_tokens(int64_t num, int64_t vocab, uint64_t seed) {
  std::vector<int32_t> out;
  uint64_t state = seed * 2654435761U + 12345;
  for (int64_t i = 0; i < num; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    out.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab)));
  }
  return out;
}

class Timer : public engine::Listener {
 public:
  bool on_token(const engine::TokenEvent& event) override {
    times_ms.push_back(now_ms());
    if (first_logits.empty()) first_logits.assign(event.logits.begin(), event.logits.end());
    return true;
  }
  void on_done(const engine::Outcome& outcome) override {
    status = outcome.status;
    stats = outcome.stats;
  }
  std::vector<double> times_ms;
  std::vector<float> first_logits;  ///< with Request::give_logits
  Status status;
  engine::RequestStats stats;
};

}  // namespace rk::cli
