// Our own kernels behind gemm_cuda.h. Private to this folder. In stream order; pointers are device
// pointers.
#pragma once

#include "base/status.h"
#include "kernels/gemm/weight_layout.h"
#include "tensor/view.h"

namespace rk::kernels {

inline constexpr int kFewRows = 16;  ///< most rows of one few_rows launch

struct FewRowsArgs {
  const void* x = nullptr;  ///< [m, k] bf16, rows contiguous
  int64_t m = 0;
  const float* bias = nullptr;  ///< [N] of the weight, or null
  void* y = nullptr;            ///< [m, N] bf16 or f32
  int64_t y_stride = 0;
  bool y_f32 = false, accumulate = false;
  float* parts = nullptr;       ///< few_rows_parts_bytes of scratch
  int32_t* counters = nullptr;  ///< [few_rows_counters]; 0 before and after
  int num_sms = 132;
};
int64_t few_rows_parts_bytes(int num_sms);
inline constexpr int64_t kFewRowsCounters = int64_t{1} << 16;

/// y = x w^T (+ bias) for one piece. Requires: 1 <= m <= kFewRows, few_rows_can(piece).
/// K is split over blocks so that all multiprocessors stream alike; partial sums meet in a fixed
/// order, so the result does not depend on timing. f32 accumulation.
Status few_rows(const WeightPiece& piece, const FewRowsArgs& args, Stream stream);
bool few_rows_can(const WeightPiece& piece);

struct OneRowArgs {
  const void* x = nullptr;      ///< [k] bf16, or f32 where it is normed; 16-byte aligned
  const float* norm = nullptr;  ///< [k]: x is RMS-normed by it first; or null
  float eps = 0.0F;
  const float* bias = nullptr;  ///< [n], or null; not with `gated`
  void* y = nullptr;            ///< [n] bf16 or f32; [n / 2] where gated
  bool y_f32 = false, accumulate = false;
  bool gated = false;  ///< y = silu(first half of the rows) * second half
  int num_sms = 132;
};
inline constexpr int kOneRowMaxK = 65536;
/// y = x w^T for one row of x. Requires: one_row_can(piece, norm is given).
Status one_row(const WeightPiece& piece, const OneRowArgs& args, Stream stream);
/// Hopper, plain bf16 rows, K that shared memory holds (and registers, where x is normed).
bool one_row_can(const WeightPiece& piece, bool norm);

struct FewCodesArgs {
  const void* x = nullptr;      ///< [m, k] bf16, or f32 where it is normed; rows contiguous
  const float* norm = nullptr;  ///< [k]: rows of x are RMS-normed by it first; or null
  float eps = 0.0F;
  int64_t m = 0;
  const float* bias = nullptr;  ///< [N] of the weight, or null; not with `gated`
  void* y = nullptr;            ///< [m, N] bf16 or f32; [m, N / 2] where gated
  int64_t y_stride = 0;
  bool y_f32 = false, accumulate = false;
  bool gated = false;           ///< y = silu(first half of the rows) * second half; of one piece
  float* parts = nullptr;       ///< as few_rows
  int32_t* counters = nullptr;  ///< as few_rows
  int num_sms = 132;
};
inline constexpr int kNormedCodeRows = 2;  ///< most rows that are normed inside
/// y = x w^T (+ bias) for one packed piece, x in 16 bits with a scale for 32 elements.
/// Requires: few_codes_can(piece, m, gated); with a norm, m <= kNormedCodeRows.
Status few_codes(const WeightPiece& piece, const FewCodesArgs& args, Stream stream);
/// Hopper, and x fits shared memory beside the rings.
bool few_codes_can(const WeightPiece& piece, int64_t m, bool gated);

/// Of the thread's current card.
int num_multiprocessors();
bool on_hopper();

/// How the blocks share the work: block b takes units [b*units/grid, (b+1)*units/grid) of the
/// tile-major order. Pure.
struct FewRowsPlan {
  int row_warps = 1;  ///< of 8: each has 32 rows of a tile; the others split K
  int grid = 1;
  int64_t chunks = 0, tiles = 0;  ///< units along K and tiles of 32 * row_warps rows
};
FewRowsPlan few_rows_plan(CudaWeightForm form, int64_t n, int64_t k, int64_t m, int num_sms);

/// Rows [row, row + n) of the piece from raw rows of a file's dtype that lie on the card.
Status pack_rows(const WeightPiece& piece, int64_t row, DType dtype, const void* raw, int64_t n,
                 Stream stream);
/// out[n, k] bf16 = the piece.
Status expand_rows(const WeightPiece& piece, void* out, Stream stream);
/// Random codes of a packed piece such that weights have the given deviation.
Status random_codes(const WeightPiece& piece, uint64_t seed, float deviation, Stream stream);
/// out[i] = row ids[i] as f32 where the piece holds that row; other rows are left alone.
Status gather_piece(const WeightPiece& piece, int64_t total_rows, const int32_t* ids, int64_t num,
                    float* out, int64_t out_stride, Stream stream);

/// codes[m, k] e4m3 and scale[m] with x ~ scale * code; scale = amax / 448 of the row, or of the
/// whole where `one_scale` (scale then has m + 1 places). x bf16, rows contiguous.
Status quantize_fp8(const void* x, int64_t m, int64_t k, void* codes, float* scale, bool one_scale,
                    Stream stream);
/// The same in groups of 128 elements of a row: scale[ceil(k / 128)][m]. Requires: k % 8 == 0.
Status quantize_fp8_blocks(const void* x, int64_t m, int64_t k, void* codes, float* scale,
                           Stream stream);
/// Codes and scales of a kFp8Blocks piece from bf16 rows.
Status weights_to_fp8_blocks(const void* bf16, const WeightPiece& piece, Stream stream);
/// y[m, n] += bias[n], bf16 or f32.
Status add_bias(const float* bias, int64_t m, int64_t n, void* y, int64_t y_stride, bool y_f32,
                Stream stream);
Status to_bf16(const float* from, void* to, int64_t num, Stream stream);

}  // namespace rk::kernels
