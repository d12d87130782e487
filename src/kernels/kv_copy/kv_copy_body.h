// One row of kv_write() over whatever vectors simd/vec.h gives. Internal linkage throughout.
#pragma once

#include "kernels/kv_copy/kv_copy_rows.h"
#include "kernels/simd/vec.h"

namespace rk::kernels {
namespace {

inline void store_vec(uint16_t* out, Vec v, StoredRow stored) {
  if (stored == StoredRow::kF16) {
    vstore_f16(out, v);
  } else {
    vstore_bf16(out, v);
  }
}

inline void store_row(const float* in, void* out, int64_t n, StoredRow stored) {
  if (stored == StoredRow::kF32) {
    for (int64_t i = 0; i < n; i += kLanes) {
      vstore_n(static_cast<float*>(out) + i, vload_n(in + i, n - i), n - i);
    }
    return;
  }
  auto* half = static_cast<uint16_t*>(out);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_vec(half + i, vload(in + i), stored);
  if (i == n) return;
  uint16_t tail[kLanes];
  store_vec(tail, vload_n(in + i, n - i), stored);
  for (int64_t j = i; j < n; ++j) half[j] = tail[j - i];
}

}  // namespace
}  // namespace rk::kernels
