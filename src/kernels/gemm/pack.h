// Between GGUF's rows and the packed layout (layout.h), both ways. Scalar. Immutable functions.
#pragma once

#include <cstdint>

#include "kernels/gemm/layout.h"
#include "tensor/view.h"

namespace rk::kernels::gemm_detail {

/// Requires: a plain or block dtype (not i8, i32).
Format format_of(DType dtype);
/// Bytes of one packed block of 32 rows by k features.
int64_t block_bytes(Format format, int64_t k);

/// One row of `part`'s dtype, at `row`, into lane `lane` of a zeroed block.
void pack_row(DType dtype, const void* row, int64_t k, int lane, uint8_t* block);
/// The values of lane `lane` of a block, f32[k].
void unpack_lane(Format format, const uint8_t* block, int64_t k, int lane, float* out);

}  // namespace rk::kernels::gemm_detail
