// Items of at most 16 packed rows (decode): bound by memory, so warps each stream their own
// pages through their own part of the ring, without a barrier between them, and merge at the end.
// Warp i takes page i of every tile (one page a warp); its ring holds K0 V0 K1 V1 ... of those
// pages.
#pragma once

#include "kernels/seg_attn/seg_attn_sm80.cuh"

namespace rk::kernels::sm80 {

inline constexpr int kFewRows = 16;

/// What a warp needs of a page that is on its way.
struct FewPage {
  KeyTile tile;
  int row;  // of the page's first row, in the tile
};
template <int kWarps>
struct FewShared {
  static constexpr int kPages = 4;
  FewPage pages[kWarps][kPages];
  float max[kWarps][kFewRows], sum[kWarps][kFewRows];
};

/// The pages of one warp, in order; an id is asked for one page ahead of its use.
struct FewWalk {
  KeyTiles tiles;
  FewPage page;
  int id = -1, num_tiles = 0;
  bool valid = false;

  __device__ __forceinline__ void next(const int32_t* list, int warp, int num_warps) {
    for (;;) {
      valid = tiles.next(&page.tile);
      if (!valid) return;
      const int i = (warp + num_tiles++) % num_warps;  // the pages of short tiles go round
      page.row = i * kPageRows;
      if (i >= page.tile.page_begin() && i < page.tile.page_end()) {
        id = list[page.tile.first_page + i];
        return;
      }
    }
  }
};

template <class T, int D, int kWarps, int kRing>
struct Few {
  static constexpr int kPageBytes = kPageRows * D * 2;
  static constexpr int kQueryBytes = kFewRows * D * 2;  // of a warp
  static constexpr int kHeld = D <= 128 ? D / 16 : 1;   // query fragments kept in registers
  static constexpr int kMergeStride = D + 8;            // floats; rows fall into different banks
  static_assert((kRing - 1) / 2 + 1 < FewShared<kWarps>::kPages, "pages on their way must fit");
  static_assert(kWarps * kFewRows * kMergeStride * 4 <= kWarps * kRing * kPageBytes);

  const Params<T>& a;
  const Work& w;
  char* query;  // [kWarps][16, D], permuted
  char* ring;   // [kWarps][kRing][16, D], permuted
  FewShared<kWarps>& shared;

  float o[D / 8][4];
  float max_[2], sum[2];

  __device__ __forceinline__ uint32_t slot(int index) const {
    return shared_address(ring + (threadIdx.x / 32 * kRing + index % kRing) * kPageBytes);
  }

  __device__ __forceinline__ void load(const T* pages, int64_t stride, int id, const FewPage& at,
                                       uint32_t to) const {
    const T* from = pages + (id < 0 ? 0 : id * stride);
    const int lo = at.tile.lo - at.row, hi = at.tile.hi - at.row;
    constexpr int kChunks = D / 8;
#pragma unroll
    for (int i = 0; i < kPageRows * kChunks / 32; ++i) {
      const int unit = threadIdx.x % 32 + i * 32, row = unit / kChunks;
      const bool valid = id >= 0 && row >= lo && row < hi;
      copy_async_16(to + chunk_offset<D>(row, unit % kChunks), from + (valid ? unit * 8 : 0),
                    valid);
    }
  }

  // Scores of 16 rows by 16 keys.
  __device__ __forceinline__ void scores(uint32_t k, uint32_t rows, const uint32_t (&q)[kHeld][4],
                                         float (&s)[2][4]) const {
    const int lane = threadIdx.x % 32;
    [[maybe_unused]] const int lane_rows = chunk_offset<D>(lane % 16, lane / 16);
    const int lane_keys = chunk_offset<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    float odd[2][4];  // two chains of products, half as long
#pragma unroll
    for (int i = 0; i < 4; ++i) s[0][i] = s[1][i] = odd[0][i] = odd[1][i] = 0.0F;
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      uint32_t kb[4], qa[4];
      if constexpr (kHeld < D / 16) {
        load_matrices(qa, (rows + lane_rows) ^ (d * 32));
      } else {
        qa[0] = q[d][0], qa[1] = q[d][1], qa[2] = q[d][2], qa[3] = q[d][3];
      }
      load_matrices(kb, (k + lane_keys) ^ (d * 32));
      mma_16816<T>(d % 2 ? odd[0] : s[0], qa, kb[0], kb[1]);
      mma_16816<T>(d % 2 ? odd[1] : s[1], qa, kb[2], kb[3]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) s[0][i] += odd[0][i], s[1][i] += odd[1][i];
  }

  __device__ __forceinline__ void mask(const FewPage& at, const int (&q_pos)[2],
                                       float (&s)[2][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowSight sight = row_sight(at.tile, w.sight, q_pos[half]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = at.row + i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
        if (!sight.sees(row)) s[i / 2][2 * half + i % 2] = -INFINITY;
      }
    }
  }

  __device__ __forceinline__ void softmax(float (&s)[2][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* x[4] = {&s[0][2 * half], &s[0][2 * half + 1], &s[1][2 * half], &s[1][2 * half + 1]};
      float top = fmaxf(fmaxf(*x[0], *x[1]), fmaxf(*x[2], *x[3]));
      top = fmaxf(top, __shfl_xor_sync(~0U, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0U, top, 2));
      top = fmaxf(top, max_[half]);
      const float base = finite(top) * a.scale_log2;
      const float fade = fast_exp2(max_[half] * a.scale_log2 - base);
      max_[half] = top;
#pragma unroll
      for (int i = 0; i < 4; ++i) *x[i] = fast_exp2(*x[i] * a.scale_log2 - base);
      sum[half] = sum[half] * fade + ((*x[0] + *x[1]) + (*x[2] + *x[3]));
#pragma unroll
      for (int d = 0; d < D / 8; ++d) o[d][2 * half] *= fade, o[d][2 * half + 1] *= fade;
    }
  }

  __device__ __forceinline__ void add_values(uint32_t v, const float (&s)[2][4]) {
    const int lane = threadIdx.x % 32;
    const int lane_rows = chunk_offset<D>(lane % 16, lane / 16);
    const uint32_t p[4] = {pack_pair<T>(s[0][0], s[0][1]), pack_pair<T>(s[0][2], s[0][3]),
                           pack_pair<T>(s[1][0], s[1][1]), pack_pair<T>(s[1][2], s[1][3])};
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      uint32_t vb[4];
      load_matrices_transposed(vb, (v + lane_rows) ^ (d * 32));
      mma_16816<T>(o[2 * d], p, vb[0], vb[1]);
      mma_16816<T>(o[2 * d + 1], p, vb[2], vb[3]);
    }
  }

  __device__ __forceinline__ void run() {
    const int num_rows = w.item.m_end - w.item.m_begin;
#pragma unroll
    for (int half = 0; half < 2; ++half) max_[half] = -INFINITY, sum[half] = 0.0F;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) o[d][0] = o[d][1] = o[d][2] = o[d][3] = 0.0F;
    stream(num_rows);
    copy_async_wait<0>();
    __syncthreads();
    publish();
    __syncthreads();
    merge(num_rows);
  }

  __device__ __forceinline__ void stream(int num_rows) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    FewWalk walk{KeyTiles(w.runs, w.num_runs, w.sight, w.p_min, w.p_max, w.item.key_begin,
                          w.item.key_end, kWarps * kPageRows)};
    walk.next(w.pages, warp, kWarps);
    FewPage* on_way = shared.pages[warp];
    int num_pages = 0, id = -1;  // pages begun; id of the latest
    bool loading = false;
    const auto load_next = [&](int index) {
      if (index % 2 == 0) {
        loading = walk.valid;
        if (loading) {
          FewPage& at = on_way[num_pages++ % FewShared<kWarps>::kPages];
          if (lane == 0) at = walk.page;
          id = walk.id;
          load(a.k, a.k_stride, id, walk.page, slot(index));
          walk.next(w.pages, warp, kWarps);
          __syncwarp();
        }
      } else if (loading) {
        load(a.v, a.v_stride, id, on_way[(num_pages - 1) % FewShared<kWarps>::kPages], slot(index));
      }
      copy_async_commit();
    };
#pragma unroll
    for (int i = 0; i < kRing - 1; ++i) load_next(i);
    int q_pos[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int m = w.item.m_begin + min(half * 8 + lane / 4, num_rows - 1);
      q_pos[half] = a.q_pos[w.q_begin + m / a.group];
    }
    uint32_t q[kHeld][4];
    char* rows = query + warp * kQueryBytes;
    bool rotated = false;
    int offset = 0;
    for (int j = 0; j < num_pages; ++j) {
      const FewPage& at = on_way[j % FewShared<kWarps>::kPages];
      if (!rotated || at.tile.offset != offset) {
        rotated = true;
        offset = at.tile.offset;
        __syncwarp();
        rotate_rows<T, D>(a, w, 0, kFewRows, offset, rows);
        __syncwarp();
#pragma unroll
        for (int d = 0; kHeld == D / 16 && d < kHeld; ++d) {
          load_matrices(q[d], shared_address(rows) + chunk_offset<D>(lane % 16, 2 * d + lane / 16));
        }
      }
      float s[2][4];
      copy_async_wait<kRing - 2>();
      __syncwarp();
      load_next(2 * j + kRing - 1);
      scores(slot(2 * j), shared_address(rows), q, s);
      if (at.tile.masked) mask(at, q_pos, s);
      softmax(s);
      copy_async_wait<kRing - 2>();
      __syncwarp();
      load_next(2 * j + kRing);
      add_values(slot(2 * j + 1), s);
    }
  }

  // The warp's sums, over the ring that nobody needs any more.
  __device__ __forceinline__ void publish() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* out = reinterpret_cast<float*>(ring) + warp * kFewRows * kMergeStride;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = half * 8 + lane / 4;
      float total = sum[half];
      total += __shfl_xor_sync(~0U, total, 1);
      total += __shfl_xor_sync(~0U, total, 2);
      if (lane % 4 == 0) {
        shared.max[warp][row] = max_[half];
        shared.sum[warp][row] = total;
      }
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        *reinterpret_cast<float2*>(out + row * kMergeStride + d * 8 + lane % 4 * 2) = {
            o[d][2 * half], o[d][2 * half + 1]};
      }
    }
  }

  __device__ __forceinline__ void merge(int num_rows) const {
    const float* all = reinterpret_cast<const float*>(ring);
    for (int unit = threadIdx.x; unit < num_rows * (D / 4); unit += kWarps * 32) {
      const int row = unit / (D / 4), d = unit % (D / 4) * 4;
      float top = -INFINITY;
#pragma unroll
      for (int i = 0; i < kWarps; ++i) top = fmaxf(top, shared.max[i][row]);
      const float base = finite(top) * a.scale_log2;
      float total = 0.0F;
      float4 out = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll
      for (int i = 0; i < kWarps; ++i) {
        const float weight = fast_exp2(shared.max[i][row] * a.scale_log2 - base);
        const float4 x =
            *reinterpret_cast<const float4*>(all + (i * kFewRows + row) * kMergeStride + d);
        total += weight * shared.sum[i][row];
        out.x += weight * x.x, out.y += weight * x.y;
        out.z += weight * x.z, out.w += weight * x.w;
      }
      const float inverse = total > 0.0F ? 1.0F / total : 0.0F;
      out = {out.x * inverse, out.y * inverse, out.z * inverse, out.w * inverse};
      const float lse = (top * a.scale_log2 + log2f(total)) * kLn2;
      if (w.item.part < 0) {
        if (a.lse != nullptr && d == 0) a.lse[lse_offset(a, w, w.item.m_begin + row)] = lse;
        T* to = a.o + row_offset(a, w, w.item.m_begin + row, D, a.o_stride) + d;
        *reinterpret_cast<uint2*>(to) = {pack_pair<T>(out.x, out.y), pack_pair<T>(out.z, out.w)};
      } else {
        const int64_t at = int64_t{w.item.part} * kSegAttnTileRows + row;
        *reinterpret_cast<float4*>(a.part_o + at * D + d) = out;
        if (d == 0) a.part_lse[at] = lse;
      }
    }
  }
};

}  // namespace rk::kernels::sm80
