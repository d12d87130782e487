// What both paths of the portable variant share: arguments, shared memory rows, and the query's
// rotation. Rows of D elements lie in shared memory with their 16-byte chunks permuted by the row,
// so that the eight rows of a matrix fragment fall into different banks.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/seg_attn/key_tiles.cuh"
#include "kernels/seg_attn/seg_attn_cuda.h"

namespace rk::kernels::sm80 {

inline constexpr int kTileKeys = 64;
inline constexpr int kTilePages = kTileKeys / kPageRows;
inline constexpr float kLn2 = 0.693147180559945F;

template <class T>
struct Params {
  const T* q;
  const T *k, *v;
  T* o;
  float* lse;                                      // null: not wanted
  int64_t q_stride, k_stride, v_stride, o_stride;  // of a token, of a page; elements
  const int32_t* q_pos;
  const DeviceSequence* sequences;
  const SegAttnItem* items;
  const int32_t* counts;
  int32_t* next_item;
  float *part_o, *part_lse;
  const float *cos, *sin;
  int rotary_dim;
  bool half_split;
  int layer, num_kv_heads, group;
  float scale_log2;  // of scores, so that softmax is a power of two
};

/// One item with what its threads ask of the sequence. Lives in shared memory.
struct Work {
  SegAttnItem item;
  const Run* runs;
  const int32_t* pages;  // the head's list
  HeadSight sight;
  int num_runs, q_begin, p_min, p_max;
};

template <class T>
__device__ inline void open_work(const Params<T>& a, int index, Work* work) {
  const SegAttnItem item = a.items[index];
  const DeviceSequence sequence = a.sequences[item.sequence];
  const int head = a.layer * a.num_kv_heads + item.kv_head;
  work->item = item;
  work->runs = sequence.runs;
  work->num_runs = sequence.num_runs;
  work->pages = sequence.pages + head * sequence.page_stride;
  work->sight = sequence.sight[head];
  work->q_begin = sequence.q_begin;
  work->p_min = a.q_pos[sequence.q_begin + item.m_begin / a.group];
  work->p_max = a.q_pos[sequence.q_begin + (item.m_end - 1) / a.group];
}

/// Byte offset of a chunk of eight elements in rows of D.
template <int D>
__device__ __forceinline__ int chunk_offset(int row, int chunk) {
  return (row * (D / 8) + (chunk ^ (row & 7))) * 16;
}

/// Where packed row m of the item begins in q or o.
template <class T>
__device__ __forceinline__ int64_t row_offset(const Params<T>& a, const Work& w, int m, int dim,
                                              int64_t stride) {
  return (w.q_begin + m / a.group) * stride +
         (w.item.kv_head * a.group + m % a.group) * int64_t{dim};
}

/// Where the packed row's log-sum-exp goes.
template <class T>
__device__ __forceinline__ int64_t lse_offset(const Params<T>& a, const Work& w, int m) {
  return (w.q_begin + m / a.group) * (int64_t{a.num_kv_heads} * a.group) +
         w.item.kv_head * a.group + m % a.group;
}

/// Eight elements of a query row, turned by `distance`. `a` holds the tables: cos, sin, rotary_dim,
/// half_split.
template <class T, int D, class Args>
__device__ inline uint4 rotated_chunk(const Args& a, const T* row, int chunk, int distance) {
  const uint4 raw = *reinterpret_cast<const uint4*>(row + chunk * 8);
  const int first = chunk * 8, half = a.rotary_dim / 2;
  if (first >= a.rotary_dim) return raw;
  float x[8], y[8];
  const uint32_t bits[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_pair<T>(bits[i]);
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
  const float* cos = a.cos + int64_t{distance} * half;
  const float* sin = a.sin + int64_t{distance} * half;
  if (!a.half_split) {
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      if (first + i >= a.rotary_dim) {
        y[i] = x[i];
        y[i + 1] = x[i + 1];
        continue;
      }
      const float c = cos[(first + i) / 2], s = sin[(first + i) / 2];
      y[i] = x[i] * c - x[i + 1] * s;
      y[i + 1] = x[i + 1] * c + x[i] * s;
    }
  } else if (half % 8 == 0) {
    const bool upper = first >= half;
    const int pair = upper ? first - half : first;
    const uint4 other = *reinterpret_cast<const uint4*>(row + (upper ? pair : first + half));
    const uint32_t other_bits[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const float2 o = unpack_pair<T>(other_bits[i / 2]);
      const float2 c = *reinterpret_cast<const float2*>(cos + pair + i);
      const float2 s = *reinterpret_cast<const float2*>(sin + pair + i);
      y[i] = upper ? x[i] * c.x + o.x * s.x : x[i] * c.x - o.x * s.x;
      y[i + 1] = upper ? x[i + 1] * c.y + o.y * s.y : x[i + 1] * c.y - o.y * s.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int d = first + i;
      if (d >= a.rotary_dim) {
        y[i] = x[i];
      } else if (d < half) {
        y[i] = x[i] * cos[d] - static_cast<float>(row[d + half]) * sin[d];
      } else {
        y[i] = x[i] * cos[d - half] + static_cast<float>(row[d - half]) * sin[d - half];
      }
    }
  }
  return {pack_pair<T>(y[0], y[1]), pack_pair<T>(y[2], y[3]), pack_pair<T>(y[4], y[5]),
          pack_pair<T>(y[6], y[7])};
}

/// A warp rotates the query rows [first, first + num_rows) of the item into its rows of `to`; rows
/// beyond the item become zeros.
template <class T, int D>
__device__ inline void rotate_rows(const Params<T>& a, const Work& w, int first, int num_rows,
                                   int offset, char* to) {
  constexpr int kChunks = D / 8;
  for (int unit = threadIdx.x % 32; unit < num_rows * kChunks; unit += 32) {
    const int row = unit / kChunks, chunk = unit % kChunks, m = w.item.m_begin + first + row;
    uint4 value = {0, 0, 0, 0};
    if (m < w.item.m_end) {
      const int distance = max(a.q_pos[w.q_begin + m / a.group] - offset, 0);
      value = rotated_chunk<T, D>(a, a.q + row_offset(a, w, m, D, a.q_stride), chunk, distance);
    }
    *reinterpret_cast<uint4*>(to + chunk_offset<D>(row, chunk)) = value;
  }
}

/// For one query row, the rows of a tile that it sees: lo <= row < end, and row < sink_end or
/// row >= near.
struct RowSight {
  int lo, end, sink_end, near;
  __device__ __forceinline__ bool sees(int row) const {
    return row >= lo && row < end && (row < sink_end || row >= near);
  }
};
__device__ __forceinline__ RowSight row_sight(const KeyTile& tile, HeadSight sight, int q_pos) {
  const int position = tile.position();
  return {tile.lo, min(tile.hi, q_pos - position + 1), sight.sink - position,
          sight.window < 0 ? 0 : q_pos - sight.window + 1 - position};
}

/// Scores of the new maximum in powers of two; 0 while a row has seen nothing.
__device__ __forceinline__ float finite(float x) { return x == -INFINITY ? 0.0F : x; }

}  // namespace rk::kernels::sm80
