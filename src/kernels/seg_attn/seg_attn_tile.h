// One piece of work of the fast variants: some queries of one KV head against some of its rows.
// Plain data, because files compiled for an instruction set include it (kernels/context.h says
// why).
#pragma once

#include <cstdint>

namespace rk::kernels {

/// Rows [row_begin, row_end) of a span at `offset`; row j is on page pages[page_shift + j / P].
struct TileRows {
  int64_t page_shift;
  int32_t row_begin, row_end;
  int32_t offset;
};

enum class StoredAs { kF32, kF16, kBf16 };

/// N tokens, `group` query heads each, head dim D; strides in elements.
struct AttnTile {
  const float* q;  ///< first token, first head of the group
  int64_t q_token_stride, q_head_stride;
  float* o;  ///< same shape as q
  int64_t o_token_stride, o_head_stride;
  float* lse;  ///< natural log; may be null
  int64_t lse_token_stride, lse_head_stride;
  const int32_t* q_pos;  ///< [N] ascending
  int num_tokens, group, dim;

  const TileRows* rows;  ///< ascending in position; a superset of what the tokens see
  int64_t num_rows;      ///< entries of `rows`
  const int32_t* pages;
  const void *k, *v;
  int64_t k_page_stride, v_page_stride;
  int64_t page_rows;
  StoredAs stored;
  int32_t sink, window;

  const float *cos, *sin;
  int half_rotary;
  bool interleaved;
  float scale;
  float* scratch;  ///< 64-byte aligned
};

/// At most so many (token, head) pairs go through attend_few, which keeps them all in sight of each
/// row that it reads; more go through attend_many, which computes them side by side in vector
/// lanes.
constexpr int kMaxFew = 8;

/// Floats of scratch that any tile of at most `num_queries` (token, head) pairs needs.
constexpr int64_t tile_scratch_floats(int64_t num_queries, int64_t dim) {
  const int64_t lanes = (num_queries + 63) / 48 * 48 + 48, wide = (dim + 15) / 16 * 16;
  return lanes * (3 * wide + 8) + 2 * 64 * wide + 128 * 64 + 4096;
}

void attend_many_avx512(const AttnTile& tile);
void attend_few_avx512(const AttnTile& tile);
void attend_many_avx2(const AttnTile& tile);
void attend_few_avx2(const AttnTile& tile);

}  // namespace rk::kernels
