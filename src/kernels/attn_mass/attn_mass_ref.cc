// The specification of attn_mass(): one query, one head, one row at a time, in double. No threads,
// no SIMD, no cleverness.
#include <cmath>
#include <limits>

#include "kernels/attn_mass/attn_mass_variants.h"
#include "kernels/seg_attn/head_rows.h"

namespace rk::kernels {
namespace {

void add_query(const AttnMassArgs& a, int64_t t, int64_t h) {
  const auto num_kv_heads = static_cast<int64_t>(a.heads.size());
  const int64_t page_rows = a.k_pages.dim[1];
  const HeadRows& head = a.heads[h * num_kv_heads / a.q.dim[1]];
  const double lse = a.lse.at(t, h);
  if (lse == -std::numeric_limits<double>::infinity()) return;
  for (const Run& run : head.runs) {
    std::vector<double> q;
    for (int64_t j = run.row_begin; j < run.row_end; ++j) {
      if (!row_visible(run.offset + j, a.q_pos[t], head.sink, head.window)) continue;
      if (q.empty()) q = rotated_query(a.q, t, h, int64_t{a.q_pos[t]} - run.offset, a.rope);
      const int64_t page = head.pages[run.first_page + j / page_rows - run.row_begin / page_rows];
      double dot = 0.0;
      for (int64_t d = 0; d < a.q.dim[2]; ++d) dot += q[d] * a.k_pages.at(page, j % page_rows, d);
      a.mass[run.offset + j] += std::exp(dot * a.scale - lse);
    }
  }
}

}  // namespace

Status attn_mass_ref(const AttnMassArgs& args, Context&) {
  for (int64_t t = 0; t < args.q.dim[0]; ++t) {
    for (int64_t h = 0; h < args.q.dim[1]; ++h) add_query(args, t, h);
  }
  return {};
}

}  // namespace rk::kernels
