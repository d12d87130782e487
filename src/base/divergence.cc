#include "base/divergence.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "base/fast_exp.h"

namespace rk {
namespace {

// Sum of get(0) ... get(size - 1) in double, in an order that vectors allow.
template <class Get>
double sum_of(size_t size, const Get& get) {
  constexpr size_t kLanes = 8;
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    float values[kLanes];
    for (size_t j = 0; j < kLanes; ++j) values[j] = get(i + j);
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += double{values[j]};
  }
  for (; i < size; ++i) lanes[0] += double{get(i)};
  return std::accumulate(std::begin(lanes), std::end(lanes), 0.0);
}

}  // namespace

void to_log_probabilities(std::span<float> rows, size_t vocab) {
  for (size_t begin = 0; begin < rows.size(); begin += vocab) {
    const auto row = rows.subspan(begin, vocab);
    const float peak = *std::max_element(row.begin(), row.end());
    const double sum = sum_of(row.size(), [&](size_t i) { return exp_negative(row[i] - peak); });
    const auto norm = static_cast<float>(std::log(sum));
    for (float& x : row) x = (x - peak) - norm;
  }
}

double kl_divergence(std::span<const float> log_p, std::span<const float> log_q) {
  const double kl = sum_of(log_p.size(), [&](size_t i) {
    const float p = exp_negative(log_p[i]);
    if (log_p[i] != log_p[i]) return log_p[i];  // NaN must not pass for nothing
    return p > 0.0F ? p * (log_p[i] - log_q[i]) : 0.0F;
  });
  return kl < 0 ? 0 : kl;  // rounding may leave it a hair below; NaN stays
}

int64_t most_likely(std::span<const float> log_p) {
  return std::max_element(log_p.begin(), log_p.end()) - log_p.begin();
}

}  // namespace rk
