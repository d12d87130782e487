// What the ops that read a head's rows (seg_attn, attn_mass) check and specify alike.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/seg_attn/seg_attn.h"

namespace rk::kernels {

/// [N, P, dim] of a stored type, contiguous within a page.
bool good_pages(const View& pages, int64_t dim);
Status check_pages(std::string_view op, const View& pages, int64_t dim);
/// [N, R, D] of a 16-bit type as a card reads it: heads of a token (rows of a page) one behind the
/// other, 16-byte aligned.
bool rows_of_heads(const View& view);
/// The rotary part fits the head.
Status check_rotary(std::string_view op, const RopeView& rope, int64_t dim);
/// Every page that a run names exists in `pages` [N, P, D], and every distance that a query up to
/// position `last_pos` can turn by is in the tables.
Status check_head_rows(std::string_view op, const HeadRows& head, const View& pages,
                       const RopeView& rope, int64_t last_pos);

// For references only.
bool row_visible(int64_t position, int64_t q_pos, int64_t sink, int64_t window);
/// R(distance) q[t,h] in double.
std::vector<double> rotated_query(const View& q, int64_t t, int64_t h, int64_t distance,
                                  const RopeView& rope);

}  // namespace rk::kernels
