// One row of rms_norm() by instruction set: plain pointers. Files compiled for an
// instruction set include this, so nothing here may have a body (kernels/context.h).
#pragma once

#include <cstdint>

namespace rk::kernels {

void norm_row_avx2(const float* x, const float* w, float eps, float* y, int64_t dim);
void norm_row_avx512(const float* x, const float* w, float eps, float* y, int64_t dim);

}  // namespace rk::kernels
