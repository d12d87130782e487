// Turns the heads of one row by instruction set: plain pointers. Files compiled for an
// instruction set include this, so nothing here may have a body (kernels/context.h).
#pragma once

#include <cstdint>

namespace rk::kernels {

void rope_heads_avx2(float* x, int64_t num_heads, int64_t head_stride, const float* cos,
                     const float* sin, int64_t half, bool interleaved);
void rope_heads_avx512(float* x, int64_t num_heads, int64_t head_stride, const float* cos,
                       const float* sin, int64_t half, bool interleaved);

}  // namespace rk::kernels
