// How tests of attn_mass() on every device compare masses.
#pragma once

#include <cmath>
#include <numeric>
#include <vector>

namespace rk::kernels {

inline double sum(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

/// Of all elements together, relative.
inline double distance(const std::vector<double>& got, const std::vector<double>& want) {
  double diff = 0.0, norm = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    diff += std::pow(got[i] - want[i], 2);
    norm += std::pow(want[i], 2);
  }
  return std::sqrt(diff / norm);
}

}  // namespace rk::kernels
