// SplitMix64: numbers that look random and are the same on every machine and compiler. Not for
// secrets. Pure.
#pragma once

#include <cstdint>

namespace rk {

constexpr uint64_t kSplitMixStep = 0x9E3779B97F4A7C15U;

/// The number of a counter that has come to `x`: every bit of it depends on every bit of x. The
/// next one is that of x + kSplitMixStep.
constexpr uint64_t split_mix(uint64_t x) {
  x += kSplitMixStep;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

/// 64 random bits as a number in [0, 1).
constexpr double unit_interval(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

}  // namespace rk
