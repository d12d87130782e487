#include "kernels/rope/rope_body.h"

namespace rk::kernels {

void rope_heads_avx2(float* x, int64_t num_heads, int64_t head_stride, const float* cos,
                     const float* sin, int64_t half, bool interleaved) {
  rope_heads(x, num_heads, head_stride, cos, sin, half, interleaved);
}

}  // namespace rk::kernels
