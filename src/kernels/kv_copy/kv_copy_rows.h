// Rows of f32 to stored dtypes by instruction set: plain pointers. Files compiled for an
// instruction set include this, so nothing here may have a body (kernels/context.h).
#pragma once

#include <cstdint>

namespace rk::kernels {

enum class StoredRow { kF32, kF16, kBf16 };

void store_row_avx2(const float* in, void* out, int64_t n, StoredRow stored);
void store_row_avx512(const float* in, void* out, int64_t n, StoredRow stored);

}  // namespace rk::kernels
