// Attention mass: how much the queries of a call look at each row. One more pass over K for a
// softmax whose sums are known:
//
//   mass[d + j] += sum_{t,h} p_{t,h,j},   p_{t,h,j} = exp( scale * <R(q_pos[t] - d) q[t,h], k_j> -
//                                                          lse[t,h] )
//
// over the rows j that seg_attn() lets query (t,h) see (seg_attn.h: runs, sink, window, frames),
// with the lse that it gave. Of one sequence; rows of all KV heads are added up by position. A
// query that sees nothing (lse -inf) adds nothing. f32 within a head, f64 over heads and calls.
// Results do not depend on the number of threads. Knows no layer: the caller takes means.
#pragma once

#include <span>

#include "base/status.h"
#include "kernels/context.h"
#include "kernels/seg_attn/seg_attn.h"
#include "tensor/view.h"

namespace rk::kernels {

struct AttnMassArgs {
  View q;                           ///< [T, H, D] f32, not rotated
  View k_pages;                     ///< [N, P, D] f32|f16|bf16, each contiguous within a page
  std::span<const int32_t> q_pos;   ///< [T] ascending
  std::span<const HeadRows> heads;  ///< [G]
  RopeView rope;
  float scale = 1.0F;
  View lse;                ///< [T, H] f32 of seg_attn() over the same rows
  std::span<double> mass;  ///< by position, added to; covers q_pos[T-1]
};

/// Fastest variant that supports `args`, or the forced one (`--kernel attn_mass=...`).
/// Errors: kInvalidArgument for inconsistent shapes; kUnimplemented if a forced variant cannot run.
Status attn_mass(const AttnMassArgs& args, Context& ctx);

std::span<const Variant<AttnMassArgs>> attn_mass_variants();

}  // namespace rk::kernels
