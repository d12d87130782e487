// Random numbers that are the same on every machine and compiler (the standard's distributions are
// not): SplitMix64. For generated samples and resampling, not for secrets. One thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/split_mix.h"

namespace rk::rag {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    const uint64_t number = split_mix(state_);
    state_ += kSplitMixStep;
    return number;
  }
  /// In [0, n). Requires: n > 0. The bias is below n / 2^64.
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  /// True with this probability; always at 1, never at 0.
  bool chance(double probability) { return unit_interval(next()) < probability; }
  /// Requires: not empty.
  template <class T>
  const T& of(const std::vector<T>& values) {
    return values[below(values.size())];
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  uint64_t state_;
};

/// A seed of its own for every (seed, name, number).
inline uint64_t derived_seed(uint64_t seed, std::string_view name, uint64_t number) {
  Random mix(seed);
  uint64_t out = mix.next();
  for (const char c : name) out = Random(out ^ static_cast<unsigned char>(c)).next();
  return Random(out ^ number).next();
}

}  // namespace rk::rag
