// Distributions over a vocabulary, and how far apart two of them are. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace rk {

/// Rows of `vocab` logits become rows of log probabilities, in place. Requires: whole rows.
void to_log_probabilities(std::span<float> rows, size_t vocab);
/// KL(p || q) in nats from log probabilities of equal size, at least 0; entries with p = 0 (-inf)
/// add nothing, q = 0 where p > 0 gives +inf, NaN gives NaN. Accumulates in double.
double kl_divergence(std::span<const float> log_p, std::span<const float> log_q);
/// Index of the largest entry, the first of equals. Requires: not empty.
int64_t most_likely(std::span<const float> log_p);

}  // namespace rk
