// Cuts one seg_attn call into pieces of work: query tiles, and for long contexts of few tiles also
// ranges of rows, whose results are merged by their log-sum-exp. The cuts depend on the arguments
// only, never on the number of threads, so results do not either. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/seg_attn/seg_attn.h"
#include "kernels/seg_attn/seg_attn_tile.h"

namespace rk::kernels {

struct AttnPiece {
  int32_t sequence, kv_head;
  int32_t token_begin, token_end;  ///< rows of q
  int32_t rows_begin, rows_end;    ///< entries of AttnPlan::rows
  int64_t part = -1;  ///< where its partial result starts, in queries; -1: it is the whole result
  int64_t cost = 0;   ///< rows times queries
};

/// A tile whose rows were cut: pieces' partial results lie one behind the other.
struct AttnMerge {
  int32_t kv_head;
  int32_t token_begin, token_end;
  int64_t part;
  int32_t num_parts;
};

struct AttnPlan {
  std::vector<AttnPiece> pieces;  ///< most work first
  std::vector<AttnMerge> merges;
  std::vector<TileRows> rows;
  int64_t num_partial = 0;              ///< (token, head) results to be merged
  int64_t max_queries = 0;              ///< of a piece
  void build(const SegAttnArgs& args);  ///< reuses memory

 private:
  std::vector<TileRows> uncut_;  // scratch of add_tile
  void add_tile(const SegAttnArgs& args, int32_t b, int32_t g, int32_t begin, int32_t end,
                int64_t rows_a_piece);
};

/// Appends the rows that queries at positions [first, last] may see, at most two ranges a run.
void visible_rows(const HeadRows& head, int64_t page_rows, int64_t first, int64_t last,
                  std::vector<TileRows>& out);

}  // namespace rk::kernels
