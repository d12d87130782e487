// One row of rms_norm() over whatever vectors simd/vec.h gives. Internal linkage throughout.
#pragma once

#include "kernels/norm/norm_rows.h"
#include "kernels/simd/vec.h"

namespace rk::kernels {
namespace {

inline void norm_row(const float* x, const float* w, float eps, float* y, int64_t dim) {
  Vec sums[4] = {vzero(), vzero(), vzero(), vzero()};
  int64_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const Vec v = vload(x + d + j * kLanes);
      sums[j] = vfma(v, v, sums[j]);
    }
  }
  for (; d < dim; d += kLanes) {
    const Vec v = vload_n(x + d, dim - d);
    sums[0] = vfma(v, v, sums[0]);
  }
  const float sum = vsum(vadd(vadd(sums[0], sums[1]), vadd(sums[2], sums[3])));
  const Vec scale = vset(1.0F / __builtin_sqrtf(sum / static_cast<float>(dim) + eps));
  for (d = 0; d + kLanes <= dim; d += kLanes) {
    vstore(y + d, vmul(vmul(vload(x + d), scale), vload(w + d)));
  }
  if (d < dim) {
    const int64_t n = dim - d;
    vstore_n(y + d, vmul(vmul(vload_n(x + d, n), scale), vload_n(w + d, n)), n);
  }
}

}  // namespace
}  // namespace rk::kernels
