// Which stored rows a request recomputes in `selective(r)` (spec A5): those that its question looks
// at most, whole blocks of 16 until a share of the ratio is spent, the rest one by one. Pure; knows
// no pages, heads or layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kv/visible.h"

namespace rk::kv {

/// Rows of a block; blocks start at row 0 of their document, its last may be short.
constexpr int32_t kSelectBlockRows = 16;

/// One span of a prompt, in prompt order.
struct SelectSpan {
  int32_t num_rows = 0;
  bool candidate = false;  ///< a non-exact segment: its rows may become targets
};

/// Targets of each span given: ascending, apart, not empty. ceil(ratio * N) rows are wanted, N
/// being the rows of all candidates. Blocks are taken by mean score until they hold `block_share`
/// of those or more (1: all; 0: none is taken); then single rows by score until all are there. Ties
/// go to the lower position. `scores` is by position; only their order and means matter, so any
/// positive factor may be left out; NaN counts as the least. O(rows log rows). Errors:
/// kInvalidArgument for a ratio or share outside [0, 1] or NaN, fewer scores than rows where they
/// decide (ratio neither 0 nor 1).
Result<std::vector<std::vector<RowRange>>> select_rows(std::span<const SelectSpan> spans,
                                                       std::span<const double> scores, double ratio,
                                                       double block_share = 1);

/// Rows of all candidates (N above).
int64_t num_candidate_rows(std::span<const SelectSpan> spans);

/// Errors: kInvalidArgument for a ratio outside [0, 1] or NaN.
Status check_ratio(double ratio);

}  // namespace rk::kv
