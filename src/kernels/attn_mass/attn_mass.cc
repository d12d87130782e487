#include "kernels/attn_mass/attn_mass.h"

#include "kernels/attn_mass/attn_mass_variants.h"
#include "kernels/seg_attn/head_rows.h"
#include "kernels/seg_attn/seen_rows.h"

namespace rk::kernels {
namespace {

bool any(const AttnMassArgs&) { return true; }

constexpr Variant<AttnMassArgs> kVariants[] = {
    {"avx512", on_avx512, attn_mass_fast_supports, attn_mass_avx512},
    {"avx2", on_avx2, attn_mass_fast_supports, attn_mass_avx2},
    {"ref", on_any, any, attn_mass_ref},
};

Status check(const AttnMassArgs& a) {
  if (a.q.rank != 3 || a.q.dtype != DType::kF32 || a.q.stride[2] != 1 || a.lse.rank != 2 ||
      a.lse.dtype != DType::kF32 || a.lse.dim[0] != a.q.dim[0] || a.lse.dim[1] != a.q.dim[1]) {
    return invalid_argument("attn_mass: q ", a.q.describe(), ", lse ", a.lse.describe(),
                            "; wanted f32 [T, H, D], [T, H]");
  }
  RK_RETURN_IF_ERROR(check_pages("attn_mass", a.k_pages, a.q.dim[2]));
  RK_RETURN_IF_ERROR(check_rotary("attn_mass", a.rope, a.q.dim[2]));
  const auto num_rows = static_cast<int64_t>(a.q_pos.size());
  const auto num_kv_heads = static_cast<int64_t>(a.heads.size());
  if (num_rows != a.q.dim[0] || num_kv_heads == 0 || a.q.dim[1] % num_kv_heads != 0) {
    return invalid_argument("attn_mass: ", num_rows, " positions and ", num_kv_heads,
                            " KV heads for q ", a.q.describe());
  }
  for (size_t t = 0; t < a.q_pos.size(); ++t) {
    if (a.q_pos[t] < (t > 0 ? a.q_pos[t - 1] : 0)) {
      return invalid_argument("attn_mass: position ", a.q_pos[t], " of row ", t,
                              " is below the one before it");
    }
  }
  if (a.q_pos.back() >= static_cast<int64_t>(a.mass.size())) {
    return invalid_argument("attn_mass: room for ", a.mass.size(), " positions, query at ",
                            a.q_pos.back());
  }
  for (const HeadRows& head : a.heads) {
    RK_RETURN_IF_ERROR(check_head_rows("attn_mass", head, a.k_pages, a.rope, a.q_pos.back()));
    for (const Run& run : head.runs) {
      if (run.row_begin < run.row_end && int64_t{run.offset} + run.row_begin < 0) {
        return invalid_argument("attn_mass: row ", run.row_begin, " at offset ", run.offset,
                                " stands before position 0");
      }
    }
  }
  return {};
}

Work work_of(const AttnMassArgs& a) {
  const double heads = static_cast<double>(a.q.dim[1]), dim = static_cast<double>(a.q.dim[2]);
  double pairs = 0, rows = 0;
  for (const HeadRows& head : a.heads) {
    const SeenRows seen = count_seen(head, a.q_pos);
    pairs += heads / static_cast<double>(a.heads.size()) * static_cast<double>(seen.pairs);
    rows += static_cast<double>(seen.rows);
  }
  const auto row_bytes = static_cast<double>(dtype_bytes(a.k_pages.dtype, a.q.dim[2]));
  return mass_work(pairs, rows * row_bytes, static_cast<double>(a.q.dim[0]), heads, dim, 4);
}

}  // namespace

Status attn_mass(const AttnMassArgs& args, Context& ctx) {
  if (args.q.rank == 3 && args.q.dim[0] == 0) return {};
  RK_RETURN_IF_ERROR(check(args));
  ctx.work += work_of(args);
  return dispatch("attn_mass", kVariants, args, ctx);
}

std::span<const Variant<AttnMassArgs>> attn_mass_variants() { return kVariants; }

}  // namespace rk::kernels
