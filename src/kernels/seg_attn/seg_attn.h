// SegPagedAttention (paper §4.3, Algorithm 2; spec A1, A3): each query attends to the rows that its
// KV head may see, over per-head page lists.
//
//   o[t,h] = sum_j p_j v_j,   p = softmax_j( scale * <R(q_pos[t] - d) q[t,h], k_j> )
//
// over the rows j of the runs of (b,g) with position d + j <= q_pos[t] that lie inside sink or
// window: d + j < sink or d + j > q_pos[t] - window (window < 0 sees everything).
//
// T query rows, B sequences, H query heads, G KV heads (g = h / (H/G)), D head dim, P rows a page.
// A run is part of one span: K was rotated at the row's index j inside the span, so the query is
// rotated on entry instead of the cache (spec A3). No mask tensor: ranges are tested at run edges
// only. Accumulates in f32. Knows no head class, no document, no model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "kernels/rope/rope.h"
#include "tensor/view.h"

namespace rk::kernels {

/// Rows [row_begin, row_end) of a span at offset `offset`: row j stands at position offset + j, on
/// page pages[first_page + j / P - row_begin / P], slot j % P. Runs of a head ascend in position.
struct Run {
  int32_t first_page = 0;  ///< index into HeadRows::pages of the page holding row_begin
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t offset = 0;
};

/// What one KV head of one sequence holds.
struct HeadRows {
  std::span<const Run> runs;
  std::span<const int32_t> pages;  ///< page ids
  int32_t sink = 0;
  int32_t window = -1;  ///< < 0 sees everything
};

struct SegAttnArgs {
  View q;                            ///< [T, H, D] f32, not rotated
  View k_pages, v_pages;             ///< [N, P, D] f32|f16|bf16, each contiguous within a page
  std::span<const int32_t> q_pos;    ///< [T] position of each query, ascending within a sequence
  std::span<const int32_t> q_begin;  ///< [B+1] rows of sequence b: [q_begin[b], q_begin[b+1])
  std::span<const HeadRows> heads;   ///< [B*G], b-major
  RopeView rope;
  float scale = 1.0F;  ///< usually 1/sqrt(D)
  View o;              ///< [T, H, D] f32 out; 0 where no row is visible
  View lse;            ///< [T, H] f32 out or empty; natural log; -inf where no row is visible
};

/// Fastest variant that supports `args`, or the forced one.
/// Errors: kInvalidArgument for inconsistent shapes; kUnimplemented if a forced variant cannot run.
Status seg_attn(const SegAttnArgs& args, Context& ctx);

std::span<const Variant<SegAttnArgs>> seg_attn_variants();

}  // namespace rk::kernels
