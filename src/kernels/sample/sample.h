// Choosing the next token from one row of logits. Order, as users of other engines expect:
// repetition, presence and frequency penalties, logit bias, then greedy (temperature 0) or
// temperature, top-k, top-p, min-p and a draw. Deterministic: same logits, options, history and
// draw number give the same token on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"

namespace rk::kernels {

struct SampleOptions {
  float temperature = 0.0F;         ///< 0 = greedy (ties: lowest id)
  int top_k = 0;                    ///< 0 = all
  float top_p = 1.0F;               ///< (0, 1]
  float min_p = 0.0F;               ///< [0, 1): drop below min_p * max probability
  float repetition_penalty = 1.0F;  ///< > 0; over prompt and generated tokens
  float presence_penalty = 0.0F;    ///< over generated tokens
  float frequency_penalty = 0.0F;   ///< over generated tokens
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
};
/// Errors: kInvalidArgument naming the field, its value and the allowed range (NaN is refused).
Status check_sample_options(const SampleOptions& options, int64_t vocab_size);

struct SampleHistory {
  std::span<const int32_t> prompt;     ///< ids the repetition penalty looks at
  std::span<const int32_t> generated;  ///< ids generated so far
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0F;
};

/// `draw` is the index of this token in the answer: the random number is a pure function of
/// (seed, draw). Logits are not changed. Errors: kInternal where no logit is finite.
Result<int32_t> sample(std::span<const float> logits, const SampleOptions& options,
                       const SampleHistory& history, uint64_t draw);

/// log softmax of the raw logits: of `token`, and the `num_top` most likely, best first.
struct Logprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;
};
Logprobs logprobs(std::span<const float> logits, int32_t token, int num_top);

}  // namespace rk::kernels
