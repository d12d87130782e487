// rope() of one row's heads over whatever vectors simd/vec.h gives. Internal linkage throughout.
#pragma once

#include "kernels/rope/rope_rows.h"
#include "kernels/simd/vec.h"

namespace rk::kernels {
namespace {

inline void turn_half_split(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t n = half - i;
    const Vec c = vload_n(cos + i, n), s = vload_n(sin + i, n);
    const Vec a = vload_n(x + i, n), b = vload_n(x + half + i, n);
    vstore_n(x + i, vfnma(b, s, vmul(a, c)), n);
    vstore_n(x + half + i, vfma(a, s, vmul(b, c)), n);
  }
}

inline void turn_interleaved(float* x, const float* cos, const float* sin, int64_t half) {
  int64_t i = 0;
  for (; i + kLanes / 2 <= half; i += kLanes / 2) {
    float* pairs = x + 2 * i;
    vstore(pairs, vturn_pairs(vload(pairs), vload_twice(cos + i), vload_twice(sin + i)));
  }
  for (; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

inline void rope_heads(float* x, int64_t num_heads, int64_t head_stride, const float* cos,
                       const float* sin, int64_t half, bool interleaved) {
  for (int64_t h = 0; h < num_heads; ++h) {
    if (interleaved) {
      turn_interleaved(x + h * head_stride, cos, sin, half);
    } else {
      turn_half_split(x + h * head_stride, cos, sin, half);
    }
  }
}

}  // namespace
}  // namespace rk::kernels
