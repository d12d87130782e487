#include "kernels/kv_copy/kv_copy_body.h"

namespace rk::kernels {

void store_row_avx512(const float* in, void* out, int64_t n, StoredRow stored) {
  store_row(in, out, n, stored);
}

}  // namespace rk::kernels
