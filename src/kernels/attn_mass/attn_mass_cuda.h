// Attention mass on a card: the formula of attn_mass.h over device memory, of one sequence.
//
//   mass[g, d + j] += sum_{t, h of g} p_{t,h,j}
//
// A block owns rows of one run for one KV head and walks the queries, so every sum has one owner:
// results are the same every time, without atomics. Scores are those of seg_attn_cuda(): the query
// is rotated by its distance to the run and rounded to the pages' dtype. f32; the caller adds up
// KV heads (and calls) by position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/seg_attn/seg_attn_cuda.h"

namespace rk::kernels {

/// Rows [first_row, first_row + attn_mass_tile_rows()) of a run, those that it has; first_row is a
/// multiple of 16.
struct AttnMassTile {
  int32_t run = 0, first_row = 0;
};
constexpr int attn_mass_tile_rows(int64_t head_dim) { return head_dim == 256 ? 128 : 256; }
/// Every row of every run that stands before position `end` in exactly one tile: no query sees what
/// is behind it, and the last run may be open. Pure; the same for all layers.
std::vector<AttnMassTile> attn_mass_tiles(std::span<const Run> runs, int32_t end, int tile_rows);

struct AttnMassCudaArgs {
  View q;                          ///< [T, H, D] bf16|f16, rows may be strided, not rotated
  View k_pages;                    ///< [N, 16, D] of q's dtype
  const int32_t* q_pos = nullptr;  ///< [T] ascending
  const float* lse = nullptr;      ///< [T, H] of seg_attn_cuda() over the same rows
  const DeviceSequence* sequence = nullptr;  ///< the queries' (its q_begin is not read)
  const AttnMassTile* tiles = nullptr;       ///< [num_tiles] of its runs
  int num_tiles = 0;
  int layer = 0, num_kv_heads = 1;
  RopeView rope;  ///< device tables
  float scale = 1.0F;
  float* mass = nullptr;    ///< [G, mass_stride] by position, added to
  int64_t mass_stride = 0;  ///< more than the last query's position
};

/// Runs in stream order, allocates nothing. D is 64, 128 or 256. Errors: kInvalidArgument,
/// kUnimplemented (a build without CUDA); kInternal where the launch fails.
Status attn_mass_cuda(const AttnMassCudaArgs& args, Stream stream);

}  // namespace rk::kernels
