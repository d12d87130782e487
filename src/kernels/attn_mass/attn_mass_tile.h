// One piece of work of the fast variants: some queries of one KV head against some of its rows.
// Plain data, because files compiled for an instruction set include it (kernels/context.h says
// why).
#pragma once

#include "kernels/seg_attn/seg_attn_tile.h"

namespace rk::kernels {

struct MassTile {
  AttnTile attn;  ///< v and o unused; lse is read
  float* mass;    ///< by position, added to
};

/// Queries of a tile at most: converting a row to f32 is shared by that many.
constexpr int kMassTileQueries = 192;

/// Floats of scratch that any tile of at most `num_queries` (token, head) pairs needs.
constexpr int64_t mass_scratch_floats(int64_t num_queries, int64_t dim) {
  const int64_t lanes = (num_queries + 63) / 48 * 48 + 48, wide = (dim + 15) / 16 * 16;
  return lanes * (2 * wide + 8) + 64 * wide + 64 * 64 + 64 * 16 + wide + 4096;
}

void attn_mass_tile_avx512(const MassTile& tile);
void attn_mass_tile_avx2(const MassTile& tile);

}  // namespace rk::kernels
