#include "kernels/seg_attn/seg_attn.h"

#include "kernels/seg_attn/head_rows.h"
#include "kernels/seg_attn/seen_rows.h"
#include "kernels/seg_attn/seg_attn_variants.h"

namespace rk::kernels {
namespace {

bool any(const SegAttnArgs&) { return true; }

constexpr Variant<SegAttnArgs> kVariants[] = {
    {"avx512", on_avx512, seg_attn_fast_supports, seg_attn_avx512},
    {"avx2", on_avx2, seg_attn_fast_supports, seg_attn_avx2},
    {"ref", on_any, any, seg_attn_ref},
};

bool f32_heads(const View& v) { return v.rank == 3 && v.dtype == DType::kF32 && v.stride[2] == 1; }

Status check_shapes(const SegAttnArgs& a) {
  if (!f32_heads(a.q) || !f32_heads(a.o) || a.q.dim != a.o.dim) {
    return invalid_argument("seg_attn: q ", a.q.describe(), ", o ", a.o.describe(),
                            "; wanted f32 [T, H, D] twice");
  }
  if (!a.lse.empty() && (a.lse.rank != 2 || a.lse.dtype != DType::kF32 ||
                         a.lse.dim[0] != a.q.dim[0] || a.lse.dim[1] != a.q.dim[1])) {
    return invalid_argument("seg_attn: lse ", a.lse.describe(), " for q ", a.q.describe());
  }
  if (!good_pages(a.k_pages, a.q.dim[2]) || !good_pages(a.v_pages, a.q.dim[2]) ||
      a.k_pages.dim != a.v_pages.dim || a.k_pages.dtype != a.v_pages.dtype) {
    return invalid_argument("seg_attn: k_pages ", a.k_pages.describe(), ", v_pages ",
                            a.v_pages.describe(), " for q ", a.q.describe());
  }
  RK_RETURN_IF_ERROR(check_rotary("seg_attn", a.rope, a.q.dim[2]));
  const auto num_seqs = static_cast<int64_t>(a.q_begin.size()) - 1;
  if (num_seqs < 1 || a.q_begin[0] != 0 || a.q_begin[num_seqs] != a.q.dim[0] ||
      static_cast<int64_t>(a.q_pos.size()) != a.q.dim[0]) {
    return invalid_argument("seg_attn: ", a.q_pos.size(), " positions and ", a.q_begin.size(),
                            " sequence bounds do not cover ", a.q.dim[0], " rows");
  }
  const auto num_heads = static_cast<int64_t>(a.heads.size());
  if (num_heads == 0 || num_heads % num_seqs != 0 || a.q.dim[1] % (num_heads / num_seqs) != 0) {
    return invalid_argument("seg_attn: ", num_heads, " KV heads of ", num_seqs,
                            " sequences do not divide ", a.q.dim[1], " query heads");
  }
  return {};
}

Status check(const SegAttnArgs& a) {
  RK_RETURN_IF_ERROR(check_shapes(a));
  const auto num_seqs = static_cast<int64_t>(a.q_begin.size()) - 1;
  const int64_t num_kv_heads = static_cast<int64_t>(a.heads.size()) / num_seqs;
  for (int64_t b = 0; b < num_seqs; ++b) {
    if (a.q_begin[b] > a.q_begin[b + 1]) {
      return invalid_argument("seg_attn: sequence ", b, " has rows [", a.q_begin[b], ", ",
                              a.q_begin[b + 1], ")");
    }
    for (int64_t t = a.q_begin[b]; t < a.q_begin[b + 1]; ++t) {
      if (a.q_pos[t] < (t > a.q_begin[b] ? a.q_pos[t - 1] : 0)) {
        return invalid_argument("seg_attn: position ", a.q_pos[t], " of row ", t,
                                " is below the one before it");
      }
    }
    if (a.q_begin[b] == a.q_begin[b + 1]) continue;
    for (int64_t g = 0; g < num_kv_heads; ++g) {
      RK_RETURN_IF_ERROR(check_head_rows("seg_attn", a.heads[b * num_kv_heads + g], a.k_pages,
                                         a.rope, a.q_pos[a.q_begin[b + 1] - 1]));
    }
  }
  return {};
}

Work work_of(const SegAttnArgs& a) {
  const size_t num_seqs = a.q_begin.size() - 1, num_kv_heads = a.heads.size() / num_seqs;
  const double heads = static_cast<double>(a.q.dim[1]), dim = static_cast<double>(a.q.dim[2]);
  const auto group = heads / static_cast<double>(num_kv_heads);
  double pairs = 0, rows = 0;
  for (size_t i = 0; i < a.heads.size(); ++i) {
    const size_t b = i / num_kv_heads;
    const auto begin = static_cast<size_t>(a.q_begin[b]),
               end = static_cast<size_t>(a.q_begin[b + 1]);
    const SeenRows seen = count_seen(a.heads[i], a.q_pos.subspan(begin, end - begin));
    pairs += group * static_cast<double>(seen.pairs);
    rows += static_cast<double>(seen.rows);
  }
  const auto row_bytes = static_cast<double>(dtype_bytes(a.k_pages.dtype, a.q.dim[2]));
  return attention_work(pairs, 2 * rows * row_bytes, static_cast<double>(a.q.dim[0]), heads, dim,
                        4);
}

}  // namespace

Status seg_attn(const SegAttnArgs& args, Context& ctx) {
  if (args.q.rank == 3 && args.q.dim[0] == 0) return {};
  RK_RETURN_IF_ERROR(check(args));
  ctx.work += work_of(args);
  return dispatch("seg_attn", kVariants, args, ctx);
}

std::span<const Variant<SegAttnArgs>> seg_attn_variants() { return kVariants; }

}  // namespace rk::kernels
