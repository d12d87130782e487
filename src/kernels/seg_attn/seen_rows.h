// How many stored rows the queries of a head see: the exact count behind the work of seg_attn and
// attn_mass. Pure; O(queries + runs).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/seg_attn/seg_attn.h"

namespace rk::kernels {

struct SeenRows {
  int64_t pairs = 0;  ///< (query token, row) pairs that are visible
  int64_t rows = 0;   ///< rows that at least one of the tokens sees
};

/// Of one KV head whose rows are `head`. Requires: q_pos ascends, runs ascend in position.
SeenRows count_seen(const HeadRows& head, std::span<const int32_t> q_pos);

/// The same where a row stands at every position below `num_rows`.
SeenRows count_seen(int32_t sink, int32_t window, std::span<const int32_t> q_pos, int64_t num_rows);

}  // namespace rk::kernels
