#include "kernels/seg_attn/head_rows.h"

namespace rk::kernels {

bool good_pages(const View& v, int64_t dim) {
  return v.rank == 3 && v.dim[2] == dim && v.stride[2] == 1 && v.stride[1] == dim && v.dim[1] > 0 &&
         (v.dtype == DType::kF32 || v.dtype == DType::kF16 || v.dtype == DType::kBf16);
}

Status check_pages(std::string_view op, const View& pages, int64_t dim) {
  if (good_pages(pages, dim)) return {};
  return invalid_argument(op, ": pages ", pages.describe(), " for a head dim of ", dim);
}

bool rows_of_heads(const View& v) {
  return v.rank == 3 && v.stride[2] == 1 && v.stride[1] == v.dim[2] && v.stride[0] % 8 == 0 &&
         reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
}

Status check_rotary(std::string_view op, const RopeView& rope, int64_t dim) {
  if (rope.rotary_dim >= 0 && rope.rotary_dim % 2 == 0 && rope.rotary_dim <= dim) return {};
  return invalid_argument(op, ": rotary_dim ", rope.rotary_dim, " does not fit head dim ", dim);
}

Status check_head_rows(std::string_view op, const HeadRows& head, const View& pages,
                       const RopeView& rope, int64_t last_pos) {
  const int64_t page_rows = pages.dim[1];
  for (const Run& run : head.runs) {
    if (run.row_begin >= run.row_end) continue;
    const int64_t last = run.first_page + (run.row_end - 1) / page_rows - run.row_begin / page_rows;
    if (run.row_begin < 0 || run.first_page < 0 ||
        last >= static_cast<int64_t>(head.pages.size())) {
      return invalid_argument(op, ": rows [", run.row_begin, ", ", run.row_end, ") from page ",
                              run.first_page, " of ", head.pages.size());
    }
    for (int64_t p = run.first_page; p <= last; ++p) {
      if (head.pages[p] < 0 || head.pages[p] >= pages.dim[0]) {
        return invalid_argument(op, ": page ", head.pages[p], " of ", pages.dim[0]);
      }
    }
    if (rope.rotary_dim > 0 && last_pos - run.offset >= rope.num_positions) {
      return invalid_argument(op, ": position ", last_pos, " less offset ", run.offset,
                              " is outside the table's ", rope.num_positions);
    }
  }
  return {};
}

bool row_visible(int64_t position, int64_t q_pos, int64_t sink, int64_t window) {
  if (position > q_pos) return false;
  return window < 0 || position < sink || position > q_pos - window;
}

std::vector<double> rotated_query(const View& q, int64_t t, int64_t h, int64_t distance,
                                  const RopeView& rope) {
  std::vector<double> out(q.dim[2]);
  for (int64_t d = 0; d < q.dim[2]; ++d) out[d] = q.at(t, h, d);
  const int64_t half = rope.rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const bool split = rope.pairs == RopePairs::kHalfSplit;
    double& a = out[split ? i : 2 * i];
    double& b = out[split ? i + half : 2 * i + 1];
    const double cos = rope.cos[distance * half + i], sin = rope.sin[distance * half + i];
    const double x = a, y = b;
    a = x * cos - y * sin;
    b = y * cos + x * sin;
  }
  return out;
}

}  // namespace rk::kernels
