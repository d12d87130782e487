// Walks a tile's rows page by page into blocks of row pointers, and turns its queries. For files
// compiled for an instruction set: internal linkage throughout.
#pragma once

#include "kernels/seg_attn/seg_attn_tile.h"
#include "kernels/simd/vec.h"

namespace rk::kernels {
namespace {

template <int kRows>
struct Block {
  int num = 0;
  int32_t offset = 0;
  int32_t position[kRows];  // ascending
  const char* k[kRows];
  const char* v[kRows];
};

/// Yields blocks of rows that share an offset; a block spans runs where their offsets are equal.
struct Gather {
  const AttnTile& tile;
  int64_t entry = 0;
  int32_t next = 0;  // row in the entry
  int64_t elem_bytes;

  explicit Gather(const AttnTile& t) : tile(t), elem_bytes(t.stored == StoredAs::kF32 ? 4 : 2) {
    if (t.num_rows > 0) next = t.rows[0].row_begin;
  }

  template <int kRows>
  void fill(Block<kRows>& block) {
    block.num = 0;
    const int64_t row_bytes = tile.dim * elem_bytes;
    while (block.num < kRows && entry < tile.num_rows) {
      const TileRows& rows = tile.rows[entry];
      if (next >= rows.row_end) {
        if (++entry < tile.num_rows) next = tile.rows[entry].row_begin;
        continue;
      }
      if (block.num == 0) block.offset = rows.offset;
      if (block.offset != rows.offset) return;
      const int64_t index = next / tile.page_rows, slot = next % tile.page_rows;
      const int64_t page = tile.pages[rows.page_shift + index];
      int64_t take = tile.page_rows - slot;
      if (take > rows.row_end - next) take = rows.row_end - next;
      if (take > kRows - block.num) take = kRows - block.num;
      const char* k = static_cast<const char*>(tile.k) + page * tile.k_page_stride * elem_bytes;
      const char* v = static_cast<const char*>(tile.v) + page * tile.v_page_stride * elem_bytes;
      for (int64_t i = 0; i < take; ++i) {
        block.position[block.num] = rows.offset + next + static_cast<int32_t>(i);
        block.k[block.num] = k + (slot + i) * row_bytes;
        block.v[block.num] = v + (slot + i) * row_bytes;
        ++block.num;
      }
      next += static_cast<int32_t>(take);
    }
  }
};

/// out[0..D) = R(distance) q times `factor`.
inline void rotate(const AttnTile& tile, const float* q, int64_t distance, float factor,
                   float* out) {
  const int64_t half = tile.half_rotary;
  const float* cos = tile.cos + distance * half;
  const float* sin = tile.sin + distance * half;
  const Vec scale = vset(factor);
  if (tile.interleaved) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = q[2 * i], b = q[2 * i + 1];
      out[2 * i] = (a * cos[i] - b * sin[i]) * factor;
      out[2 * i + 1] = (b * cos[i] + a * sin[i]) * factor;
    }
  } else {
    for (int64_t i = 0; i < half; i += kLanes) {
      const int64_t n = half - i;
      const Vec c = vload_n(cos + i, n), s = vload_n(sin + i, n);
      const Vec a = vload_n(q + i, n), b = vload_n(q + half + i, n);
      vstore_n(out + i, vmul(vfnma(b, s, vmul(a, c)), scale), n);
      vstore_n(out + half + i, vmul(vfma(a, s, vmul(b, c)), scale), n);
    }
  }
  for (int64_t d = 2 * half; d < tile.dim; d += kLanes) {
    vstore_n(out + d, vmul(vload_n(q + d, tile.dim - d), scale), tile.dim - d);
  }
}

inline float* take_floats(float*& scratch, int64_t n) {
  float* out = scratch;
  scratch += (n + 15) / 16 * 16;
  return out;
}

inline Stored stored_as(const AttnTile& tile) {
  return tile.stored == StoredAs::kF32   ? Stored::kF32
         : tile.stored == StoredAs::kF16 ? Stored::kF16
                                         : Stored::kBf16;
}

}  // namespace
}  // namespace rk::kernels
