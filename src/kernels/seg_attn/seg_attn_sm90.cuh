// What the pieces of the Hopper kernel share: its sizes, the shared memory of a block, and what the
// warps tell each other through it (docs/kernels.md). Private to seg_attn_*sm90*.
#pragma once

#include <cuda.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/seg_attn/key_tiles.cuh"

namespace rk::kernels::sm90 {

constexpr int kLoaderThreads = 96;  // warps 1 to 3 of the first warpgroup
// Threads of a warp that arrive at a barrier for it. One is enough behind __syncwarp() and 2 to 4 %
// faster on prompts, but racecheck only orders what a thread did before its own arrival: build with
// -DRK_RACECHECK for it.
#ifdef RK_RACECHECK
constexpr int kArrivals = 32;
#else
constexpr int kArrivals = 1;
#endif
// Claimed items on their way to the loaders. The producer is at most kStages tiles, so as many
// items, ahead of the consumers, and claims one more: no slot is written before it was read.
constexpr int kClaims = 8;

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
  // Decode: each role waits for the kernel before by itself, the producer only where it must.
  static constexpr bool kStartsEarly = kGroups == 1;
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

/// What the producer says of a stage; small, because the producer has few registers.
struct TileInfo {
  int flags;
  int position;        ///< of its first row
  uint32_t rows;       ///< rows that may be seen: [first byte, second byte)
  uint32_t unwritten;  ///< rows read and never written, V of them becomes 0: two such ranges

  __device__ int lo() const { return rows & 255; }
  __device__ int hi() const { return rows >> 8; }
  __device__ int page_begin() const { return lo() / kPageRows; }  ///< pages to read
  __device__ int page_end() const { return (hi() + kPageRows - 1) / kPageRows; }
};
__device__ inline TileInfo info_of(const KeyTile& tile) {
  const int begin = tile.page_begin() * kPageRows, end = tile.page_end() * kPageRows;
  const int before = max(tile.written_lo, begin), behind = min(tile.written_hi, end);
  return {(tile.masked ? kMasked : 0) | (before > begin || behind < end ? kUnwritten : 0),
          tile.position(), static_cast<uint32_t>(tile.lo | tile.hi << 8),
          static_cast<uint32_t>(begin | before << 8 | behind << 16 | end << 24)};
}

/// What the loaders say of a buffer of queries.
struct QueryInfo {
  SegAttnItem item;
  HeadSight sight;
  int q_begin;
};

template <class F>
struct Shared {
  uint8_t k[F::kStages][F::kTileBytes];  // atoms of 8 rows x 128 bytes: [row / 8][half][8][128]
  uint8_t v[F::kStages][F::kTileBytes];
  uint8_t q[F::kQBuffers][F::kQBytes];  // [warpgroup][half][64 rows][128], outputs pass here too
  uint64_t k_full[F::kStages], k_empty[F::kStages], v_full[F::kStages], v_empty[F::kStages];
  uint64_t q_full[F::kQBuffers], q_empty[F::kQBuffers], claimed[kClaims];
  TileInfo tiles[F::kStages];
  QueryInfo queries[F::kQBuffers];
  int q_pos[F::kQBuffers][F::kRows];
  int q_chunk[F::kRows];   ///< where a row of q starts, in chunks of eight elements
  int next_item[kClaims];  ///< -1: there are no more
};

struct Params {
  CUtensorMap k_page, v_page;    // boxes of one page
  CUtensorMap k_pages, v_pages;  // boxes of a tile of consecutive pages
  const void* q;
  void* o;
  float* lse;                  // null: not wanted
  int64_t q_stride, o_stride;  // elements; heads of a row lie side by side
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
  bool old_rows_ready;
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
