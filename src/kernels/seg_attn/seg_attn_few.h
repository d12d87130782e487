// Attention of a few queries over many rows (decode): bound by reading K and V, so each row is read
// once and serves all query heads of its KV head. Scores are dot products whose partial sums are
// reduced a vector of keys at a time; values are summed in registers. Online softmax in base 2. For
// files compiled for an instruction set: internal linkage throughout.
#pragma once

#include "kernels/seg_attn/seg_attn_gather.h"

namespace rk::kernels {
namespace {

constexpr int kFewKeys = 128;   // keys between two updates of the running maximum
constexpr int kColumnVecs = 4;  // vectors of a value row summed at a time
constexpr int kFewQueries = 4;  // queries summed at a time

struct Few {
  int num;        // queries
  int64_t pitch;  // dim rounded up to whole vectors
  float *q, *o;   // [num, pitch]
  float* s;       // [num, kFewKeys]
  float* kf;      // [kLanes, pitch]
  float max[kMaxFew], sum[kMaxFew];
};

#ifdef __AVX512F__
// Lane i of the result is the sum of acc[i]'s lanes.
inline Vec sum_each(const Vec* acc) {
  Vec quad[4];
  for (int i = 0; i < 4; ++i) {
    const Vec* a = acc + 4 * i;
    const Vec x = vadd(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    const Vec y = vadd(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    quad[i] = vadd(_mm512_shuffle_ps(x, y, 0x44), _mm512_shuffle_ps(x, y, 0xee));
  }
  const Vec x = vadd(_mm512_shuffle_f32x4(quad[0], quad[1], 0x88),
                     _mm512_shuffle_f32x4(quad[0], quad[1], 0xdd));
  const Vec y = vadd(_mm512_shuffle_f32x4(quad[2], quad[3], 0x88),
                     _mm512_shuffle_f32x4(quad[2], quad[3], 0xdd));
  return vadd(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
}
#else
inline Vec sum_each(const Vec* acc) {
  Vec quad[2];
  for (int i = 0; i < 2; ++i) {
    const Vec* a = acc + 4 * i;
    const Vec x = vadd(_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1]));
    const Vec y = vadd(_mm256_unpacklo_ps(a[2], a[3]), _mm256_unpackhi_ps(a[2], a[3]));
    quad[i] = vadd(_mm256_shuffle_ps(x, y, 0x44), _mm256_shuffle_ps(x, y, 0xee));
  }
  return vadd(_mm256_permute2f128_ps(quad[0], quad[1], 0x20),
              _mm256_permute2f128_ps(quad[0], quad[1], 0x31));
}
#endif

inline void fetch_row(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T0);
}

// s[m][key] for the kLanes keys from `first`; rows beyond the block repeat its last one.
template <Stored kStored, int kDim>
void few_scores(const AttnTile& tile, const Few& few, const Block<kFewKeys>& block, int first) {
  const int64_t dim = kDim > 0 ? kDim : tile.dim, pitch = kDim > 0 ? kDim : few.pitch;
  for (int i = 0; i < kLanes; ++i) {
    const int key = first + i < block.num ? first + i : block.num - 1;
    load_row(kStored, block.k[key], few.kf + i * pitch, dim);
    fetch_row(block.v[key], dim * (kStored == Stored::kF32 ? 4 : 2));
  }
  for (int m = 0; m < few.num; ++m) {
    Vec acc[kLanes];
    const float* q = few.q + m * pitch;
    const Vec q0 = vload(q);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) acc[i] = vmul(q0, vload(few.kf + i * pitch));
    for (int64_t d = kLanes; d < pitch; d += kLanes) {
      const Vec qd = vload(q + d);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) acc[i] = vfma(qd, vload(few.kf + i * pitch + d), acc[i]);
    }
    vstore(few.s + m * kFewKeys + first, sum_each(acc));
  }
}

inline bool few_sees(const AttnTile& tile, int32_t position, int32_t q_pos) {
  if (position > q_pos) return false;
  return tile.window < 0 || position < tile.sink || position > int64_t{q_pos} - tile.window;
}

inline void few_hide(const AttnTile& tile, const Few& few, const Block<kFewKeys>& block) {
  const int32_t lowest = block.position[0], highest = block.position[block.num - 1];
  const int32_t last = tile.q_pos[tile.num_tokens - 1];
  if (highest <= tile.q_pos[0] &&
      (tile.window < 0 || highest < tile.sink || lowest > int64_t{last} - tile.window)) {
    return;
  }
  for (int m = 0; m < few.num; ++m) {
    const int32_t q_pos = tile.q_pos[m / tile.group];
    for (int i = 0; i < block.num; ++i) {
      if (!few_sees(tile, block.position[i], q_pos)) few.s[m * kFewKeys + i] = -__builtin_inff();
    }
  }
}

// Scores become weights; returns what the earlier sums of query m shrink by.
inline float few_softmax(Few& few, int m, int num_keys) {
  float* s = few.s + m * kFewKeys;
  for (int i = num_keys; i < (num_keys + kLanes - 1) / kLanes * kLanes; ++i) {
    s[i] = -__builtin_inff();
  }
  Vec best = vset(few.max[m]);
  for (int i = 0; i < num_keys; i += kLanes) best = vmax(best, vload(s + i));
  float lane[kLanes], max = few.max[m];
  vstore(lane, best);
  for (const float v : lane) max = v > max ? v : max;
  if (max == -__builtin_inff()) {
    for (int i = 0; i < num_keys; ++i) s[i] = 0.0F;
    return 1.0F;
  }
  const Vec base = vset(max);
  Vec sum = vzero();
  for (int i = 0; i < num_keys; i += kLanes) {
    const Vec p = vexp2(vsub(vload(s + i), base));
    sum = vadd(sum, p);
    vstore(s + i, p);
  }
  vstore(lane, vexp2(vset(few.max[m] - max)));
  few.max[m] = max;
  few.sum[m] = few.sum[m] * lane[0] + vsum(sum);
  return lane[0];
}

template <Stored kStored>
inline Vec load_values(const char* row, int64_t d) {
  if (kStored == Stored::kF16) return vload_f16(reinterpret_cast<const uint16_t*>(row) + d);
  if (kStored == Stored::kBf16) return vload_bf16(reinterpret_cast<const uint16_t*>(row) + d);
  return vload(reinterpret_cast<const float*>(row) + d);
}

// o[m][d..] = o * rescale[m] + sum over keys of weight times value, kVecs vectors of kQueries
// queries.
template <Stored kStored, int kQueries, int kVecs>
void few_values(const Few& few, const Block<kFewKeys>& block, const Block<kFewKeys>& following,
                int m, int64_t d, const float* rescale) {
  constexpr int64_t kElemBytes = kStored == Stored::kF32 ? 4 : 2;
  Vec acc[kQueries][kVecs];
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kVecs; ++j) {
      acc[i][j] = vmul(vload(few.o + (m + i) * few.pitch + d + j * kLanes), vset(rescale[m + i]));
    }
  }
  const float* p = few.s + m * kFewKeys;
  for (int key = 0; key < block.num; ++key) {
    Vec v[kVecs];
    if (m == 0 && key < following.num) {
      fetch_row(following.k[key] + d * kElemBytes, kVecs * kLanes * kElemBytes);
    }
    for (int j = 0; j < kVecs; ++j) v[j] = load_values<kStored>(block.v[key], d + j * kLanes);
    for (int i = 0; i < kQueries; ++i) {
      const Vec weight = vset(p[i * kFewKeys + key]);
      for (int j = 0; j < kVecs; ++j) acc[i][j] = vfma(weight, v[j], acc[i][j]);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kVecs; ++j) {
      vstore(few.o + (m + i) * few.pitch + d + j * kLanes, acc[i][j]);
    }
  }
}

// The last columns where dim is no whole number of vectors: one row at a time through a buffer.
inline void few_values_tail(const AttnTile& tile, const Few& few, const Block<kFewKeys>& block,
                            int64_t d, const float* rescale, Stored stored) {
  float tail[kLanes] = {};
  Vec acc[kMaxFew];
  for (int m = 0; m < few.num; ++m) {
    acc[m] = vmul(vload(few.o + m * few.pitch + d), vset(rescale[m]));
  }
  const int64_t skip = d * (stored == Stored::kF32 ? 4 : 2);
  for (int key = 0; key < block.num; ++key) {
    load_row(stored, block.v[key] + skip, tail, tile.dim - d);
    const Vec v = vload(tail);
    for (int m = 0; m < few.num; ++m) {
      acc[m] = vfma(vset(few.s[m * kFewKeys + key]), v, acc[m]);
    }
  }
  for (int m = 0; m < few.num; ++m) vstore(few.o + m * few.pitch + d, acc[m]);
}

template <Stored kStored, int kVecs>
void few_columns(const Few& few, const Block<kFewKeys>& block, const Block<kFewKeys>& following,
                 int64_t d, const float* rescale) {
  int m = 0;
  for (; m + kFewQueries <= few.num; m += kFewQueries) {
    few_values<kStored, kFewQueries, kVecs>(few, block, following, m, d, rescale);
  }
  switch (few.num - m) {
    case 3:
      return few_values<kStored, 3, kVecs>(few, block, following, m, d, rescale);
    case 2:
      return few_values<kStored, 2, kVecs>(few, block, following, m, d, rescale);
    case 1:
      return few_values<kStored, 1, kVecs>(few, block, following, m, d, rescale);
    default:
      return;
  }
}

template <Stored kStored, int kDim>
void attend_few(const AttnTile& tile) {
  const int64_t dim = kDim > 0 ? kDim : tile.dim;
  Few few;
  few.num = tile.num_tokens * tile.group;
  few.pitch = (dim + kLanes - 1) / kLanes * kLanes;
  float* scratch = tile.scratch;
  few.q = take_floats(scratch, few.num * few.pitch);
  few.o = take_floats(scratch, few.num * few.pitch);
  few.s = take_floats(scratch, few.num * kFewKeys);
  few.kf = take_floats(scratch, kLanes * few.pitch);
  for (int64_t i = 0; i < few.num * few.pitch; ++i) few.q[i] = few.o[i] = 0.0F;
  for (int64_t i = 0; i < kLanes * few.pitch; ++i) few.kf[i] = 0.0F;
  for (int m = 0; m < few.num; ++m) {
    few.max[m] = -__builtin_inff();
    few.sum[m] = 0.0F;
  }
  Gather gather(tile);
  Block<kFewKeys> blocks[2];
  gather.fill(blocks[0]);
  bool turned = false;
  int32_t turned_for = 0;
  for (int current = 0; blocks[current].num > 0; current ^= 1) {
    const Block<kFewKeys>& block = blocks[current];
    Block<kFewKeys>& following = blocks[current ^ 1];
    gather.fill(following);
    if (!turned || turned_for != block.offset) {
      for (int m = 0; m < few.num; ++m) {
        const int t = m / tile.group, h = m % tile.group;
        // A query before the span sees nothing of it, so what it holds does not matter.
        if (tile.q_pos[t] < block.offset) continue;
        rotate(tile, tile.q + t * tile.q_token_stride + h * tile.q_head_stride,
               int64_t{tile.q_pos[t]} - block.offset, tile.scale * kLog2E, few.q + m * few.pitch);
      }
      turned = true;
      turned_for = block.offset;
    }
    for (int key = 0; key < block.num; key += kLanes) {
      few_scores<kStored, kDim>(tile, few, block, key);
    }
    few_hide(tile, few, block);
    float rescale[kMaxFew];
    for (int m = 0; m < few.num; ++m) rescale[m] = few_softmax(few, m, block.num);
    int64_t d = 0;
    for (; d + kColumnVecs * kLanes <= dim; d += kColumnVecs * kLanes) {
      few_columns<kStored, kColumnVecs>(few, block, following, d, rescale);
    }
    for (; d + kLanes <= dim; d += kLanes) {
      few_columns<kStored, 1>(few, block, following, d, rescale);
    }
    if (d < dim) few_values_tail(tile, few, block, d, rescale, kStored);
  }
  for (int m = 0; m < few.num; ++m) {
    const int t = m / tile.group, h = m % tile.group;
    const float inverse = few.sum[m] == 0.0F ? 0.0F : 1.0F / few.sum[m];
    float* o = tile.o + t * tile.o_token_stride + h * tile.o_head_stride;
    for (int d = 0; d < tile.dim; ++d) o[d] = few.o[m * few.pitch + d] * inverse;
    if (tile.lse == nullptr) continue;
    tile.lse[t * tile.lse_token_stride + h * tile.lse_head_stride] =
        (few.max[m] + __builtin_log2f(few.sum[m])) / kLog2E;
  }
}

template <Stored kStored>
void attend_few_stored(const AttnTile& tile) {
  switch (tile.dim) {
    case 64:
      return attend_few<kStored, 64>(tile);
    case 128:
      return attend_few<kStored, 128>(tile);
    default:
      return attend_few<kStored, 0>(tile);
  }
}

inline void attend_few_any(const AttnTile& tile) {
  switch (tile.stored) {
    case StoredAs::kF32:
      return attend_few_stored<Stored::kF32>(tile);
    case StoredAs::kF16:
      return attend_few_stored<Stored::kF16>(tile);
    case StoredAs::kBf16:
      return attend_few_stored<Stored::kBf16>(tile);
  }
}

}  // namespace
}  // namespace rk::kernels
