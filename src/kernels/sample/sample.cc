#include "kernels/sample/sample.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/fast_exp.h"

namespace rk::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int64_t kLanes = 16;

// Rounds a weight in [0, 1] to a multiple of 2^-34. Sums of up to 2^19 weights are then exact in
// double, in any order: threads and cards add as they like and draw the same token. Floats from
// 2^-11 on are such multiples already.
inline float on_grid(float weight) {
  constexpr float kBound = 0x1.0p-11F;
  return weight < kBound ? (weight + kBound) - kBound : weight;
}

// The largest finite logit, or -inf. Lanes keep the loop free of a dependency.
float max_finite(const float* x, int64_t n) {
  std::array<float, kLanes> lane;
  lane.fill(-kInf);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  }
  float best = -kInf;
  for (const float v : lane) best = std::max(best, v);
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  if (best < kInf) return best;
  best = -kInf;
  for (i = 0; i < n; ++i) best = x[i] > best && x[i] < kInf ? x[i] : best;
  return best;
}

// Monotone: larger logits have larger keys.
inline uint32_t order_key(float x) {
  const auto bits = std::bit_cast<uint32_t>(x + 0.0F);  // -0 becomes +0: they tie
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

struct Candidates {
  std::vector<int32_t> id;
  std::vector<float> logit;
  std::vector<float> weight;   // empty before the temperature is applied
  std::vector<uint32_t> live;  // scratch of keep_best
  size_t size() const { return id.size(); }
};

// Keeps the best candidates, in descending order of logit and ascending id, until their weights
// (all 1 where there are none yet) sum to at least `wanted`; the crossing one stays. Radix
// selection: four passes at most, nothing is sorted, id order is preserved.
void keep_best(Candidates& c, double wanted) {
  const auto weight = [&](size_t i) { return c.weight.empty() ? 1.0 : double{c.weight[i]}; };
  std::vector<uint32_t>& live = c.live;
  live.resize(c.size());
  for (size_t i = 0; i < c.size(); ++i) live[i] = static_cast<uint32_t>(i);
  uint32_t prefix = 0;
  double above = 0.0;  // weight of everything whose key is above the bucket being refined
  for (int shift = 24; shift >= 0; shift -= 8) {
    std::array<double, 256> mass{};
    std::array<bool, 256> used{};
    for (const uint32_t i : live) {
      const uint32_t bucket = order_key(c.logit[i]) >> shift & 255U;
      mass[bucket] += weight(i);
      used[bucket] = true;
    }
    int lowest = -1, chosen = -1;
    for (int b = 255; b >= 0 && chosen < 0; --b) {
      if (!used[b]) continue;
      lowest = b;
      if (above + mass[b] >= wanted) {
        chosen = b;
      } else {
        above += mass[b];
      }
    }
    if (chosen < 0) {  // rounding: the whole does not reach `wanted`; the last bucket crosses
      chosen = lowest;
      above -= mass[chosen];
    }
    prefix |= static_cast<uint32_t>(chosen) << shift;
    std::erase_if(live, [&](uint32_t i) {
      return (order_key(c.logit[i]) >> shift & 255U) != static_cast<uint32_t>(chosen);
    });
  }
  size_t kept = 0;
  bool crossed = false;
  for (size_t i = 0; i < c.size(); ++i) {
    const uint32_t key = order_key(c.logit[i]);
    if (key < prefix || (key == prefix && crossed)) continue;
    if (key == prefix) crossed = (above += weight(i)) >= wanted;
    c.id[kept] = c.id[i];
    c.logit[kept] = c.logit[i];
    if (!c.weight.empty()) c.weight[kept] = c.weight[i];
    ++kept;
  }
  c.id.resize(kept);
  c.logit.resize(kept);
  if (!c.weight.empty()) c.weight.resize(kept);
}

double sum(const std::vector<float>& values) {
  std::array<double, 8> lane{};
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    for (size_t l = 0; l < 8; ++l) lane[l] += double{values[i + l]};
  }
  double total = 0.0;
  for (; i < values.size(); ++i) total += double{values[i]};
  for (const double v : lane) total += v;
  return total;
}

void drop_unlikely(Candidates& c, float least) {
  size_t kept = 0;
  for (size_t i = 0; i < c.size(); ++i) {
    if (c.weight[i] < least) continue;
    c.id[kept] = c.id[i];
    c.logit[kept] = c.logit[i];
    c.weight[kept++] = c.weight[i];
  }
  c.id.resize(kept);
  c.logit.resize(kept);
  c.weight.resize(kept);
}

void keep_top_p(Candidates& c, double top_p) {
  const double total = sum(c.weight);
  // All candidates below this weigh at most 1 - top_p together, so the smallest sufficient set is
  // among the others: usually a few hundred of a large vocabulary.
  const double least = (1.0 - top_p) * total / static_cast<double>(c.size());
  drop_unlikely(c, static_cast<float>(least) * 0.999F);
  keep_best(c, top_p * total);
}

// splitmix64 of (seed, draw) to [0, 1), 53 bits.
double random_unit(uint64_t seed, uint64_t draw) {
  const auto mix = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  };
  const uint64_t bits = mix(mix(seed + 0x9e3779b97f4a7c15ULL) + (draw + 1) * 0x9e3779b97f4a7c15ULL);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

bool changes_logits(const SampleOptions& o) {
  return o.repetition_penalty != 1.0F || o.presence_penalty != 0.0F ||
         o.frequency_penalty != 0.0F || !o.logit_bias.empty();
}

void adjust(std::vector<float>& x, const SampleOptions& o, const SampleHistory& history) {
  const auto vocab = static_cast<int64_t>(x.size());
  std::vector<uint8_t> seen(o.repetition_penalty != 1.0F ? x.size() : 0);
  const auto repeat = [&](std::span<const int32_t> ids) {
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab || seen[id] != 0) continue;
      seen[id] = 1;
      x[id] = x[id] > 0 ? x[id] / o.repetition_penalty : x[id] * o.repetition_penalty;
    }
  };
  if (!seen.empty()) {
    repeat(history.prompt);
    repeat(history.generated);
  }
  if (o.presence_penalty != 0.0F || o.frequency_penalty != 0.0F) {
    std::vector<uint32_t> count(x.size());
    for (const int32_t id : history.generated) {
      if (id >= 0 && id < vocab) ++count[id];
    }
    for (const int32_t id : history.generated) {
      if (id < 0 || id >= vocab || count[id] == 0) continue;
      x[id] -= o.presence_penalty + o.frequency_penalty * static_cast<float>(count[id]);
      count[id] = 0;
    }
  }
  for (const auto& [id, bias] : o.logit_bias) {
    if (id >= 0 && id < vocab) x[id] += bias;
  }
}

// One set a thread, so that a warm call allocates nothing.
Candidates& finite_candidates(std::span<const float> logits) {
  static thread_local Candidates c;
  c.id.resize(logits.size());
  c.logit.resize(logits.size());
  c.weight.clear();
  size_t kept = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    c.id[kept] = static_cast<int32_t>(i);
    c.logit[kept] = logits[i];
    kept += std::abs(logits[i]) < kInf ? 1 : 0;
  }
  c.id.resize(kept);
  c.logit.resize(kept);
  return c;
}

int32_t draw_from(const Candidates& c, double unit) {
  const double target = unit * sum(c.weight);
  double reached = 0.0;
  int32_t last = c.id[0];
  for (size_t i = 0; i < c.size(); ++i) {
    if (c.weight[i] <= 0.0F) continue;
    last = c.id[i];
    reached += double{c.weight[i]};
    if (reached > target) break;
  }
  return last;
}

Status out_of_range(const char* field, double value, const char* range) {
  return invalid_argument(field, " is ", value, ", allowed is ", range);
}

}  // namespace

Status check_sample_options(const SampleOptions& o, int64_t vocab_size) {
  if (!(o.temperature >= 0.0F && o.temperature < kInf)) {
    return out_of_range("temperature", o.temperature, "0 or more, finite");
  }
  if (o.top_k < 0) return out_of_range("top_k", o.top_k, "0 (all) or more");
  if (!(o.top_p > 0.0F && o.top_p <= 1.0F)) return out_of_range("top_p", o.top_p, "(0, 1]");
  if (!(o.min_p >= 0.0F && o.min_p < 1.0F)) return out_of_range("min_p", o.min_p, "[0, 1)");
  if (!(o.repetition_penalty > 0.0F && o.repetition_penalty < kInf)) {
    return out_of_range("repetition_penalty", o.repetition_penalty, "above 0, finite");
  }
  if (!(std::abs(o.presence_penalty) <= 2.0F)) {
    return out_of_range("presence_penalty", o.presence_penalty, "[-2, 2]");
  }
  if (!(std::abs(o.frequency_penalty) <= 2.0F)) {
    return out_of_range("frequency_penalty", o.frequency_penalty, "[-2, 2]");
  }
  for (const auto& [id, bias] : o.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return invalid_argument("logit_bias: token ", id, " is none of the model's ", vocab_size);
    }
    if (!(std::abs(bias) <= 100.0F)) {
      return invalid_argument("logit_bias of token ", id, " is ", bias, ", allowed is [-100, 100]");
    }
  }
  return {};
}

Result<int32_t> sample(std::span<const float> logits, const SampleOptions& o,
                       const SampleHistory& history, uint64_t draw) {
  std::vector<float> adjusted;
  if (changes_logits(o)) {
    adjusted.assign(logits.begin(), logits.end());
    adjust(adjusted, o, history);
    logits = adjusted;
  }
  const float max = max_finite(logits.data(), static_cast<int64_t>(logits.size()));
  if (max == -kInf) return internal("sample: none of ", logits.size(), " logits is finite");
  if (o.temperature == 0.0F || o.top_k == 1) {
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), max) - logits.begin());
  }
  Candidates& c = finite_candidates(logits);
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < c.size()) keep_best(c, o.top_k);
  c.weight.resize(c.size());
  for (size_t i = 0; i < c.size(); ++i) {
    c.weight[i] = on_grid(exp_negative((c.logit[i] - max) / o.temperature));
  }
  if (o.top_p < 1.0F) keep_top_p(c, double{o.top_p});
  if (o.min_p > 0.0F) drop_unlikely(c, o.min_p);  // the best one's weight is 1
  return draw_from(c, random_unit(o.seed, draw));
}

Logprobs logprobs(std::span<const float> logits, int32_t token, int num_top) {
  RK_CHECK(token >= 0 && token < static_cast<int64_t>(logits.size()));
  Candidates& c = finite_candidates(logits);
  const float max = max_finite(logits.data(), static_cast<int64_t>(logits.size()));
  c.weight.resize(c.size());
  for (size_t i = 0; i < c.size(); ++i) c.weight[i] = exp_negative(c.logit[i] - max);
  const double norm = double{max} + std::log(sum(c.weight));
  const auto logprob = [&](float x) {
    return std::abs(x) < kInf ? static_cast<float>(double{x} - norm) : -kInf;
  };
  Logprobs out{.chosen = {token, logprob(logits[token])}};
  if (num_top <= 0) return out;
  c.weight.clear();
  if (static_cast<size_t>(num_top) < c.size()) keep_best(c, num_top);
  std::vector<size_t> order(c.size());
  for (size_t i = 0; i < c.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return c.logit[a] > c.logit[b]; });
  for (const size_t i : order) out.top.push_back({c.id[i], logprob(c.logit[i])});
  return out;
}

}  // namespace rk::kernels
