// Which rows of a request may leave out a layer's FFN (spec A6): those of its documents, each
// document ranked by itself. A document that does not fit one step is ranked in stretches of a
// step's size from its first row on, and steps are cut so that nothing else moves those bounds: the
// same document loses the same rows wherever the steps before it ended. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/visible.h"
#include "model/sparse_ffn.h"

namespace rk::engine {

struct DocumentFfn {
  double threshold = 1;
  int dense_layers = 0;
  int32_t recent_rows = 0;              ///< the last rows of each document that always run it
  std::vector<kv::RowRange> documents;  ///< positions, ascending and apart; all of them are active
  int64_t num_skipped = 0;              ///< rows times layers left out so far

  /// Where a step of active rows from index `begin` on ends, at most at `end`: before a document
  /// that would not end in it and does not begin it.
  size_t cut(std::span<const int32_t> active, size_t begin, size_t end) const;
  /// What the decoder needs to know of a step; false where it holds no document row.
  bool in_step(std::span<const int32_t> positions, model::SparseFfn& out);
};

}  // namespace rk::engine
