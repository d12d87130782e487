#include "kernels/norm/norm_body.h"

namespace rk::kernels {

void norm_row_avx2(const float* x, const float* w, float eps, float* y, int64_t dim) {
  norm_row(x, w, eps, y, dim);
}

}  // namespace rk::kernels
