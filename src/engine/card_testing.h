// A card for tests: reuse reaches nothing, selective:0.3 `balanced`, boundary:0 `fast`.
#pragma once

#include "engine/card.h"

namespace rk::engine {

inline CardEntry entry(Mode mode, double kl_high, double needle_loss_high, double ttft_ratio) {
  CardEntry e;
  e.mode = mode;
  e.ratio = mode == Mode::kSelective ? 0.3 : 0;
  e.min_tokens = 1000;
  e.max_tokens = 8000;
  e.min_documents = 2;
  e.max_documents = 10;
  e.data = "mk";
  e.n = 200;
  e.dense_score = 0.8;
  e.mode_score = 0.79;
  e.retained_low = 0.95;
  e.retained_high = 1.02;
  e.mean_kl = kl_high / 2;
  e.kl_high = kl_high;
  e.p95_kl = 4 * kl_high;
  e.top1 = 0.95;
  e.agreement = 0.7;
  e.needle_n = 200;
  e.needle_loss_high = needle_loss_high;
  e.ttft_ratio = ttft_ratio;
  return e;
}

inline Card card() {
  Card c{"tiny", "ab12", "cd34", "f16", "commit 1", {}};
  c.entries = {entry(Mode::kReuse, 0.4, 0.5, 0.02), entry(Mode::kSelective, 0.049, 0.05, 0.35),
               entry(Mode::kBoundary, 0.14, 0.15, 0.1)};
  return c;
}

}  // namespace rk::engine
