// GGUF's block formats, scalar: the layouts are specified here in code. Kernels have faster readers
// and are tested against these.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace rk {

/// out[0..num) = the values of `num` consecutive elements of any readable dtype (plain or block).
/// Requires: num is a multiple of the block; `in` starts at a block.
void dequantize(DType dtype, const void* in, float* out, int64_t num);

/// The plain round-to-nearest encoders of the same formats (kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0,
/// kF16, kBf16, kF32; for K-quants a simple, valid one), for tests, benches and stored KV.
void quantize(DType dtype, const float* in, void* out, int64_t num);

}  // namespace rk
