// The specification of seg_attn(): one query, one head, plain softmax in double. No threads, no
// SIMD, no cleverness.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/seg_attn/head_rows.h"
#include "kernels/seg_attn/seg_attn_variants.h"

namespace rk::kernels {
namespace {

struct Seen {
  double score;
  int64_t page, slot;
};

void attend(const SegAttnArgs& a, int64_t b, int64_t t, int64_t h) {
  const int64_t num_kv_heads = static_cast<int64_t>(a.heads.size()) / (a.q_begin.size() - 1);
  const int64_t dim = a.q.dim[2], page_rows = a.k_pages.dim[1];
  const HeadRows& head = a.heads[b * num_kv_heads + h * num_kv_heads / a.q.dim[1]];
  std::vector<Seen> seen;
  double max = -std::numeric_limits<double>::infinity();
  for (const Run& run : head.runs) {
    std::vector<double> q;
    for (int64_t j = run.row_begin; j < run.row_end; ++j) {
      if (!row_visible(run.offset + j, a.q_pos[t], head.sink, head.window)) continue;
      if (q.empty()) q = rotated_query(a.q, t, h, int64_t{a.q_pos[t]} - run.offset, a.rope);
      const int64_t page = head.pages[run.first_page + j / page_rows - run.row_begin / page_rows];
      const int64_t slot = j % page_rows;
      double dot = 0.0;
      for (int64_t d = 0; d < dim; ++d) dot += q[d] * a.k_pages.at(page, slot, d);
      seen.push_back({dot * a.scale, page, slot});
      max = std::max(max, seen.back().score);
    }
  }
  double sum = 0.0;
  for (Seen& row : seen) sum += row.score = std::exp(row.score - max);
  for (int64_t d = 0; d < dim; ++d) {
    double out = 0.0;
    for (const Seen& row : seen) out += row.score / sum * a.v_pages.at(row.page, row.slot, d);
    a.o.set(out, t, h, d);
  }
  if (!a.lse.empty()) a.lse.set(max + std::log(sum), t, h);
}

}  // namespace

Status seg_attn_ref(const SegAttnArgs& args, Context&) {
  for (int64_t b = 0; b + 1 < static_cast<int64_t>(args.q_begin.size()); ++b) {
    for (int64_t t = args.q_begin[b]; t < args.q_begin[b + 1]; ++t) {
      for (int64_t h = 0; h < args.q.dim[1]; ++h) attend(args, b, t, h);
    }
  }
  return {};
}

}  // namespace rk::kernels
