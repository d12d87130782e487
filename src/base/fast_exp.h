// exp in single precision that a compiler can vectorise and that gives the same bits everywhere.
#pragma once

#include <bit>
#include <cstdint>

namespace rk {

/// exp(x) for x <= 0, relative error 1e-7; 0 below -87 and for NaN.
inline float exp_negative(float x) {
  const float clamped = x > -87.0F ? x : -87.0F;  // NaN lands here too
  const float scaled = clamped * 1.44269504F - 0.5F;
  const auto n = static_cast<int32_t>(scaled);  // rounds to nearest, scaled is negative
  const auto whole = static_cast<float>(n);
  const float r = (clamped - whole * 0.693359375F) + whole * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float value = (p * r * r + r + 1.0F) * std::bit_cast<float>((n + 127) << 23);
  return x > -87.0F ? value : 0.0F;
}

}  // namespace rk
