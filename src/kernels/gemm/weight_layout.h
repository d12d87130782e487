// How a weight matrix lies on the card, for the few-rows kernel: in units of 32 rows by some K,
// 2 KiB of codes each, where lane (g, t) = (lane / 4, lane % 4) of a warp finds its operands of
// m16n8k16 products as one 16-byte word for each of the rows g, g+8, g+16 and g+24.
//
//   bf16, fp8   plain [N, K] (fp8 with scales beside it); the unit is gathered: lane's word of row
//   r is K elements
//               [8t, 8t+8) or [16t, 16t+16) of the unit's 32 or 64
//   int8        64 of K: word w of 4 holds elements 16w + 4t .. +3, in bytes 0 2 1 3
//   int4        128 of K: word w of 4 holds elements 32w + 8t .. +7, pair p in nibbles p and p+4
//
// Quantised units are contiguous: [row/8][lane] 16-byte words, then for each 16 rows and each g the
// scales of its groups of 32, rows g and g+8 side by side: f16 scale and f16 minimum, or (int8 with
// scales of 16, from Q6_K) two f16 scales. Rows and K are padded with zeros.
#pragma once

#include <cstdint>

#include "kernels/gemm/gemm_cuda.h"
#include "tensor/dtype.h"

namespace rk::kernels {

inline constexpr int kUnitRows = 32;
inline constexpr int kUnitCodeBytes = 2048;

constexpr int unit_k(CudaWeightForm form) {
  return form == CudaWeightForm::kBf16 ? 32 : form == CudaWeightForm::kInt4G32 ? 128 : 64;
}
constexpr int unit_bytes(CudaWeightForm form) {
  return kUnitCodeBytes + (form == CudaWeightForm::kInt4G32   ? 512
                           : form == CudaWeightForm::kInt8G32 ? 256
                                                              : 0);
}
constexpr bool is_packed(CudaWeightForm form) {
  return form == CudaWeightForm::kInt4G32 || form == CudaWeightForm::kInt8G32;
}
constexpr bool is_fp8(CudaWeightForm form) {
  return form == CudaWeightForm::kFp8 || form == CudaWeightForm::kFp8Blocks;
}
constexpr int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step; }

/// Scales of a row of 128 x 128 blocks, to whole fours.
constexpr int64_t fp8_scale_stride(int64_t k) { return up_to(up_to(k, 128), 4) * 4; }

/// Bytes of the codes of [n, k] (scales of packed forms included, fp8's not).
constexpr int64_t weight_bytes(CudaWeightForm form, int64_t n, int64_t k) {
  if (form == CudaWeightForm::kBf16) return 2 * n * k;
  if (is_fp8(form)) return n * k;
  return up_to(n, kUnitRows) * up_to(k, unit_k(form)) * unit_bytes(form);
}

/// Rows of one form; a weight is one or more of these, one below the other.
struct WeightPiece {
  CudaWeightForm form = CudaWeightForm::kBf16;
  bool sixteens = false;  ///< int8 with two scales a group and no minimum
  int64_t row_begin = 0;  ///< in the weight
  int64_t n = 0, k = 0;
  void* data = nullptr;
  /// fp8: of element (n, k) at [n / block_rows * scale_stride + k / block_columns]. kFp8: [n];
  /// kFp8Blocks: [ceil(n / 128), scale_stride].
  float* scale = nullptr;
  int64_t block_rows = 1, block_columns = int64_t{1} << 40, scale_stride = 1;
};

}  // namespace rk::kernels
