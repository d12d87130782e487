// One row of swiglu() by instruction set: plain pointers. Files compiled for an
// instruction set include this, so nothing here may have a body (kernels/context.h).
#pragma once

#include <cstdint>

namespace rk::kernels {

void swiglu_row_avx2(const float* gate, const float* up, float* y, int64_t n);
void swiglu_row_avx512(const float* gate, const float* up, float* y, int64_t n);

}  // namespace rk::kernels
