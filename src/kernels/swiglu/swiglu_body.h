// One row of swiglu() over whatever vectors simd/vec.h gives. Internal linkage throughout.
#pragma once

#include "kernels/simd/vec.h"
#include "kernels/swiglu/swiglu_rows.h"

namespace rk::kernels {
namespace {

inline Vec silu_times(Vec gate, Vec up) {
  const Vec denominator = vadd(vset(1.0F), vexp(vsub(vzero(), gate)));
  return vmul(vdiv(gate, denominator), up);
}

inline void swiglu_row(const float* gate, const float* up, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    vstore(y + i, silu_times(vload(gate + i), vload(up + i)));
  }
  if (i < n) vstore_n(y + i, silu_times(vload_n(gate + i, n - i), vload_n(up + i, n - i)), n - i);
}

}  // namespace
}  // namespace rk::kernels
