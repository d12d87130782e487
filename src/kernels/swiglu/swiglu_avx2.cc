#include "kernels/swiglu/swiglu_body.h"

namespace rk::kernels {

void swiglu_row_avx2(const float* gate, const float* up, float* y, int64_t n) {
  swiglu_row(gate, up, y, n);
}

}  // namespace rk::kernels
