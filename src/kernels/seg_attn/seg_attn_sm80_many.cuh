// Items of any number of rows: each warp owns rows of the query tile, all warps share a ring
// of key and value tiles K0 V0 K1 V1 ... that is filled kRing - 1 loads ahead.
#pragma once

#include <new>

#include "kernels/seg_attn/seg_attn_sm80.cuh"

namespace rk::kernels::sm80 {

/// What the loads and products of a tile need.
struct PlannedTile {
  KeyTile tile;
  int pages[kTilePages];  // -1: not read
  bool valid;
};

/// The walk, kept in shared memory because the accumulators fill the registers. Warp 0 plans: a
/// tile's page ids are asked for when it is planned and written down one tile later, so that nobody
/// waits for them.
struct TilePlanner {
  static constexpr int kTiles = 8;
  KeyTiles walk;
  PlannedTile planned[kTiles];

  __device__ const PlannedTile& at(int tile) const { return planned[tile % kTiles]; }
  /// Ids that the calling lane holds for the next write_pages.
  __device__ __forceinline__ int plan(int tile, const int32_t* list) {
    PlannedTile& p = planned[tile % kTiles];
    const int lane = threadIdx.x % 32;
    if (lane == 0) p.valid = walk.next(&p.tile);
    __syncwarp();
    const bool read = p.valid && lane >= p.tile.page_begin() && lane < p.tile.page_end();
    return read ? list[p.tile.first_page + lane] : -1;
  }
  __device__ __forceinline__ void write_pages(int tile, int id) {
    if (threadIdx.x % 32 < kTilePages) planned[tile % kTiles].pages[threadIdx.x % 32] = id;
  }
};

template <class T, int D, int kWarps, int kRing>
struct Many {
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = kSegAttnTileRows / kWarps;  // of a warp
  static constexpr int kBlocks = kRows / 16;               // of 16 rows
  static constexpr int kQueryBytes = kSegAttnTileRows * D * 2;
  static constexpr int kTileBytes = kTileKeys * D * 2;

  const Params<T>& a;
  const Work& w;
  char* query;           // [128, D], permuted
  char* ring;            // [kRing][64, D], permuted
  TilePlanner& planner;  // shared memory

  float o[kBlocks][D / 8][4];
  float max_[kBlocks][2], sum[kBlocks][2];
  int q_pos[kBlocks][2];

  __device__ __forceinline__ int warp_row() const { return threadIdx.x / 32 * kRows; }
  // Row of the item that accumulator half `half` of block `block` belongs to.
  __device__ __forceinline__ int item_row(int block, int half) const {
    return warp_row() + block * 16 + half * 8 + threadIdx.x % 32 / 4;
  }

  // Load `index`: keys of tile index / 2 where even, values where odd.
  __device__ __forceinline__ void load(int index) const {
    const PlannedTile& p = planner.at(index / 2);
    if (p.valid) {
      const bool keys = index % 2 == 0;
      const T* from = keys ? a.k : a.v;
      const int64_t stride = keys ? a.k_stride : a.v_stride;
      const uint32_t to = shared_address(ring + index % kRing * kTileBytes);
      const int lo = p.tile.lo, hi = p.tile.hi;
      constexpr int kChunks = D / 8;
#pragma unroll
      for (int i = 0; i < kTileKeys * kChunks / kThreads; ++i) {
        const int unit = threadIdx.x + i * kThreads, row = unit / kChunks, chunk = unit % kChunks;
        const int page = p.pages[row / kPageRows];
        const bool valid = page >= 0 && row >= lo && row < hi;
        const T* source = from + (valid ? page * stride + row % kPageRows * D + chunk * 8 : 0);
        copy_async_16(to + chunk_offset<D>(row, chunk), source, valid);
      }
    }
    copy_async_commit();
  }

  __device__ __forceinline__ void scores(int slot, float (&s)[kBlocks][8][4]) const {
    const int lane = threadIdx.x % 32;
    const uint32_t q = shared_address(query + warp_row() * D * 2);
    const uint32_t k = shared_address(ring + slot * kTileBytes);
    const int lane_rows = chunk_offset<D>(lane % 16, lane / 16);
    const int lane_keys = chunk_offset<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int n = 0; n < 8; ++n) s[b][n][0] = s[b][n][1] = s[b][n][2] = s[b][n][3] = 0.0F;
    }
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      uint32_t qa[kBlocks][4];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        load_matrices(qa[b], ((q + lane_rows) ^ (d * 32)) + b * 16 * D * 2);
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t kb[4];
        load_matrices(kb,
                      k + chunk_offset<D>(n * 16 + lane % 8 + lane / 16 * 8, 2 * d + lane / 8 % 2));
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          mma_16816<T>(s[b][2 * n], qa[b], kb[0], kb[1]);
          mma_16816<T>(s[b][2 * n + 1], qa[b], kb[2], kb[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void mask(const KeyTile& tile, float (&s)[kBlocks][8][4]) const {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const RowSight sight = row_sight(tile, w.sight, q_pos[b][half]);
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const int row = n * 8 + threadIdx.x % 4 * 2 + i;
            if (!sight.sees(row)) s[b][n][2 * half + i] = -INFINITY;
          }
        }
      }
    }
  }

  // Scores become weights 2^(s - max), and what was summed so far is brought to the new maximum.
  __device__ __forceinline__ void softmax(float (&s)[kBlocks][8][4]) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = max_[b][half];
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          top = fmaxf(top, fmaxf(s[b][n][2 * half], s[b][n][2 * half + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(~0U, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0U, top, 2));
        const float base = finite(top) * a.scale_log2;
        const float fade = fast_exp2(max_[b][half] * a.scale_log2 - base);
        max_[b][half] = top;
        float total = 0.0F;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& x = s[b][n][2 * half + i];
            x = fast_exp2(x * a.scale_log2 - base);
            total += x;
          }
        }
        sum[b][half] = sum[b][half] * fade + total;
#pragma unroll
        for (int d = 0; d < D / 8; ++d) {
          o[b][d][2 * half] *= fade;
          o[b][d][2 * half + 1] *= fade;
        }
      }
    }
  }

  __device__ __forceinline__ void add_values(int slot, const uint32_t (&p)[kBlocks][4][4]) {
    const int lane = threadIdx.x % 32;
    const uint32_t v = shared_address(ring + slot * kTileBytes);
    const int lane_rows = chunk_offset<D>(lane % 16, lane / 16);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        uint32_t vb[4];
        load_matrices_transposed(vb, ((v + lane_rows) ^ (d * 32)) + n * 16 * D * 2);
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          mma_16816<T>(o[b][2 * d], p[b][n], vb[0], vb[1]);
          mma_16816<T>(o[b][2 * d + 1], p[b][n], vb[2], vb[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void run() {
    const int num_rows = w.item.m_end - w.item.m_begin;
    const bool busy = warp_row() < num_rows;
    const int last_row = min(warp_row() + kRows, num_rows) - 1;
    const int warp_last = busy ? a.q_pos[w.q_begin + (w.item.m_begin + last_row) / a.group] : -1;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int m = w.item.m_begin + min(item_row(b, half), num_rows - 1);
        q_pos[b][half] = a.q_pos[w.q_begin + m / a.group];
        max_[b][half] = -INFINITY;
        sum[b][half] = 0.0F;
      }
#pragma unroll
      for (int d = 0; d < D / 8; ++d) o[b][d][0] = o[b][d][1] = o[b][d][2] = o[b][d][3] = 0.0F;
    }
    constexpr int kAhead = (kRing - 1) / 2 + 1;  // tiles whose pages are known before they are used
    int ids = -1;
    if (threadIdx.x < 32) {
      if (threadIdx.x == 0) {
        new (&planner.walk) KeyTiles(w.runs, w.num_runs, w.sight, w.p_min, w.p_max,
                                     w.item.key_begin, w.item.key_end, kTileKeys);
      }
      for (int i = 0; i < kAhead; ++i) planner.write_pages(i, planner.plan(i, w.pages));
      ids = planner.plan(kAhead, w.pages);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRing - 1; ++i) load(i);
    bool rotated = false;
    int offset = 0;
    for (int j = 0;; ++j) {
      const PlannedTile& p = planner.at(j);
      if (!p.valid) break;
      const bool seen = busy && p.tile.position() + p.tile.lo <= warp_last;
      if (seen && (!rotated || p.tile.offset != offset)) {  // a warp reads only its own rows
        offset = p.tile.offset;
        rotated = true;
        __syncwarp();
        rotate_rows<T, D>(a, w, warp_row(), kRows, offset, query + warp_row() * D * 2);
        __syncwarp();
      }
      copy_async_wait<kRing - 2>();
      __syncthreads();
      load(2 * j + kRing - 1);
      if (threadIdx.x < 32) {
        planner.write_pages(j + kAhead, ids);
        ids = planner.plan(j + kAhead + 1, w.pages);
      }
      uint32_t weights[kBlocks][4][4];
      if (seen) {
        float s[kBlocks][8][4];
        scores(2 * j % kRing, s);
        if (p.tile.masked) mask(p.tile, s);
        softmax(s);
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
          for (int n = 0; n < 4; ++n) {
            weights[b][n][0] = pack_pair<T>(s[b][2 * n][0], s[b][2 * n][1]);
            weights[b][n][1] = pack_pair<T>(s[b][2 * n][2], s[b][2 * n][3]);
            weights[b][n][2] = pack_pair<T>(s[b][2 * n + 1][0], s[b][2 * n + 1][1]);
            weights[b][n][3] = pack_pair<T>(s[b][2 * n + 1][2], s[b][2 * n + 1][3]);
          }
        }
      }
      copy_async_wait<kRing - 2>();
      __syncthreads();
      load(2 * j + kRing);
      if (seen) add_values((2 * j + 1) % kRing, weights);
    }
    copy_async_wait<0>();
    if (busy) store();
  }

  __device__ __forceinline__ void store() {
    const int lane = threadIdx.x % 32, num_rows = w.item.m_end - w.item.m_begin;
    __syncwarp();
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float total = sum[b][half];
        total += __shfl_xor_sync(~0U, total, 1);
        total += __shfl_xor_sync(~0U, total, 2);
        const float inverse = total > 0.0F ? 1.0F / total : 0.0F;
        const int row = item_row(b, half);
        const float lse = (max_[b][half] * a.scale_log2 + log2f(total)) * kLn2;
        if (a.lse != nullptr && w.item.part < 0 && lane % 4 == 0 && row < num_rows) {
          a.lse[lse_offset(a, w, w.item.m_begin + row)] = lse;
        }
        if (w.item.part < 0) {  // through the warp's query rows, to store whole chunks
          const int own = row - warp_row();
#pragma unroll
          for (int d = 0; d < D / 8; ++d) {
            char* to = query + warp_row() * D * 2 + chunk_offset<D>(own, d) + lane % 4 * 4;
            *reinterpret_cast<uint32_t*>(to) =
                pack_pair<T>(o[b][d][2 * half] * inverse, o[b][d][2 * half + 1] * inverse);
          }
        } else if (row < num_rows) {
          const int64_t at = int64_t{w.item.part} * kSegAttnTileRows + row;
#pragma unroll
          for (int d = 0; d < D / 8; ++d) {
            *reinterpret_cast<float2*>(a.part_o + at * D + d * 8 + lane % 4 * 2) = {
                o[b][d][2 * half] * inverse, o[b][d][2 * half + 1] * inverse};
          }
          if (lane % 4 == 0) a.part_lse[at] = lse;
        }
      }
    }
    if (w.item.part >= 0) return;
    __syncwarp();
    constexpr int kChunks = D / 8;
    for (int unit = lane; unit < kRows * kChunks; unit += 32) {
      const int row = unit / kChunks, chunk = unit % kChunks;
      if (warp_row() + row >= num_rows) break;
      const char* from = query + warp_row() * D * 2 + chunk_offset<D>(row, chunk);
      T* to = a.o + row_offset(a, w, w.item.m_begin + warp_row() + row, D, a.o_stride);
      *reinterpret_cast<uint4*>(to + chunk * 8) = *reinterpret_cast<const uint4*>(from);
    }
  }
};

}  // namespace rk::kernels::sm80
