// What the pieces of the Hopper kernel share: its sizes, the shared memory of a block, and what the
// warps tell each other through it (docs/kernels.md). Private to seg_attn_*sm90*.
#pragma once

#include <cuda.h>

#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/seg_attn/key_tiles.cuh"

namespace rk::kernels::sm90 {

constexpr int kLoaderThreads = 96;  // warps 1 to 3 of the first warpgroup

/// Sizes of one form of the kernel: two warpgroups of rows for prompts, one for decode, where
/// memory is the bound and the room goes to stages.
template <class T_, int kDim, int kGroups>
struct Form {
  using T = T_;
  static constexpr int D = kDim;
  static constexpr int kWarpgroups = kGroups;
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kKeys = kDim == 256 ? 64 : 128;
  static constexpr int kPages = kKeys / kPageRows;
  static constexpr int kPageBytes = kPageRows * kDim * 2;
  static constexpr int kTileBytes = kKeys * kDim * 2;
  static constexpr int kQBytes = kRows * kDim * 2;
  static constexpr int kStages = kGroups == 2 ? (kDim == 64 ? 4 : 2)
                                              : (kDim == 64    ? 6
                                                 : kDim == 128 ? 3
                                                               : 2);
  static constexpr int kQBuffers = kQBytes > 32768 ? 1 : 2;
  static constexpr int kHalves = kDim / 64;  // 64 columns each: the 128 bytes of the swizzle
  static constexpr int kOutPieces = kDim == 256 ? 2 : 1;  // wgmma is at most 128 columns wide here
  static constexpr int kOut = kDim / kOutPieces / 2;      // accumulators of a piece
  static constexpr int kScores = kKeys / 2;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr bool kTurns = kGroups == 2 && kDim <= 128;  // warpgroups take turns at wgmma
};

enum : int {
  kNewQueries = 1,
  kLastOfQueries = 2,
  kLastOfItem = 4,
  kMasked = 8,
  kUnwritten = 16,
  kEnd = 32
};

/// What the producer says of a stage.
struct TileInfo {
  int flags;
  int position;  ///< of its first row
  int lo, hi;
  int zero_begin, zero_end;  ///< rows read and never written: V of them becomes 0
  int zero_begin2, zero_end2;
};

/// What it says of a buffer of queries. item < 0: there are no more.
struct QueryInfo {
  SegAttnItem item;
  HeadSight sight;
  int q_begin, offset;
  int more;
};

template <class F>
struct Shared {
  uint8_t k[F::kStages][F::kTileBytes];  // atoms of 8 rows x 128 bytes: [row / 8][half][8][128]
  uint8_t v[F::kStages][F::kTileBytes];
  uint8_t q[F::kQBuffers][F::kQBytes];  // [warpgroup][half][64 rows][128], outputs pass here too
  uint64_t k_full[F::kStages], k_empty[F::kStages], v_full[F::kStages], v_empty[F::kStages];
  uint64_t q_asked[F::kQBuffers], q_full[F::kQBuffers], q_empty[F::kQBuffers];
  TileInfo tiles[F::kStages];
  QueryInfo queries[F::kQBuffers];
  int q_pos[F::kQBuffers][F::kRows];
};

struct Params {
  CUtensorMap k_page, v_page;    // boxes of one page
  CUtensorMap k_pages, v_pages;  // boxes of a tile of consecutive pages
  const void* q;
  void* o;
  int64_t q_stride, q_head_stride, o_stride, o_head_stride;  // elements
  const int32_t* q_pos;
  const DeviceSequence* sequences;
  const SegAttnItem* items;
  const int32_t* counts;
  float* part_o;
  float* part_lse;
  int32_t* next_item;
  int layer, num_kv_heads, group;
  const float* cos;
  const float* sin;
  int num_positions, rotary_dim, interleaved;
  float scale;
};

/// A place in a ring of buffers: which, and the parity of the phase that fills it.
template <int kSize>
struct Ring {
  int index = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++index == kSize) index = 0, parity ^= 1;
  }
};

}  // namespace rk::kernels::sm90
