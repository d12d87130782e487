// The memory-bound rest of a decoder layer on a card, fused to one pass each. Residuals and norm
// weights are f32, activations bf16, arithmetic f32. In stream order; nothing is allocated. All
// pointers are device pointers. T rows, H query heads, G KV heads, D head dim.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "kernels/rope/rope.h"
#include "kernels/seg_attn/seg_attn_cuda.h"
#include "tensor/device.h"
#include "tensor/view.h"

namespace rk::kernels {

/// y[t] = bf16( x[t] * weight / sqrt(mean(x[t]^2) + eps) );  x [T, N] f32, y [T, N] bf16; rows may
/// be strided. N up to 32768.
struct RmsNormCudaArgs {
  View x, weight, y;
  float eps = 1e-6F;
  const int32_t* rows = nullptr;  ///< y[i] of x[rows[i]], y may have other rows than x; null: all
};
Status rms_norm_cuda(const RmsNormCudaArgs& args, Stream stream);

/// After the QKV projection: q and k heads are normed (where weights are given), k is rotated at
/// the row's index in its span, k and v go to their pages; q is left in qkv, normed and not
/// rotated. A row's page is entry page_index[t] of its (layer, head) list, its slot page_slot[t].
/// Rows of sequence < 0 (a graph's padding) and rows whose page is < 0 (dropped) write nothing,
/// rows that lie in a stored piece nothing in heads that keep stored rows. What `sequences` points
/// to and the row arrays are read early: no kernel that may still run writes them. D is 64, 128 or
/// 256.
struct QkvWriteCudaArgs {
  View qkv;  ///< [T, (H + 2G) * D] bf16: q heads, k heads, v heads
  int num_heads = 1, num_kv_heads = 1, head_dim = 128, layer = 0;
  const float* q_norm = nullptr;  ///< [D] or null
  const float* k_norm = nullptr;
  float eps = 1e-6F;
  const int32_t* row_index = nullptr;   ///< [T] what k is rotated at
  const int32_t* sequence = nullptr;    ///< [T] index into `sequences`
  const int32_t* page_index = nullptr;  ///< [T]
  const int32_t* page_slot = nullptr;   ///< [T] row within the page
  const uint8_t* in_stored = nullptr;   ///< [T] or null; 1 only where its sequence has keeps_stored
  const DeviceSequence* sequences = nullptr;
  RopeView rope;          ///< device tables
  View k_pages, v_pages;  ///< [N, P, D] bf16
};
Status qkv_write_cuda(const QkvWriteCudaArgs& args, Stream stream);

/// y[t] = silu(gate[t]) * up[t];  gate_up [T, 2F] bf16 (gate first), y [T, F] bf16; rows may be
/// strided; y may lie on gate_up's gate half (same stride), nowhere else in it.
Status swiglu_cuda(const View& gate_up, const View& y, Stream stream);

/// y[i] = x[rows[i]] over rows of `x` [*, N] of any plain dtype, rows may be strided; y [num, N].
Status gather_rows_cuda(const View& x, const int32_t* rows, const View& y, Stream stream);

/// x[rows[i]] += y[i];  f32 rows of x [*, N], strided or not; y [num, N]; no row twice.
Status add_rows_cuda(const View& y, const int32_t* rows, const View& x, Stream stream);

/// norms[t] = sqrt(sum of x[t]^2);  x [T, N] bf16, rows may be strided.
Status row_norms_cuda(const View& x, float* norms, Stream stream);

/// to[index[i]] = value[i]: scattered 4-byte updates of device tables.
Status scatter_i32_cuda(const int64_t* index, const int32_t* value, int64_t num, int32_t* to,
                        Stream stream);

/// Page copies inside the pool: rows of page from[i] to page to[i], K and V. [num] each.
Status copy_pages_cuda(const View& k_pages, const View& v_pages, const int32_t* from,
                       const int32_t* to, int64_t num, Stream stream);

/// Page to[i] becomes the mean of pages from[i * num_from ...], K and V, summed in f32 in that
/// order. [num] targets, none of them a source; pages bf16 or f16.
Status mean_pages_cuda(const View& k_pages, const View& v_pages, const int32_t* from,
                       const int32_t* to, int num_from, int64_t num, Stream stream);

/// Normal values of mean 0 from a seed (bench shapes, tests): x f32, f16 or bf16, contiguous. The
/// same seed gives the same values whatever the grid.
Status fill_normal_cuda(const View& x, uint64_t seed, float deviation, Stream stream);

}  // namespace rk::kernels
