// Random numbers that are the same on every machine and compiler (the standard's distributions are
// not): SplitMix64. For generated samples and resampling, not for secrets. One thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace rk::rag {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
  }
  /// In [0, n). Requires: n > 0. The bias is below n / 2^64.
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  /// True with this probability; always at 1, never at 0.
  bool chance(double probability) {
    return static_cast<double>(next() >> 11) * 0x1p-53 < probability;
  }
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
