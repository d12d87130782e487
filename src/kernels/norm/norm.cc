#include "kernels/norm/norm.h"

#include <algorithm>

#include "kernels/norm/norm_rows.h"
#include "kernels/norm/norm_variants.h"

namespace rk::kernels {
namespace {

bool any(const RmsNormArgs&) { return true; }

using RowFn = void (*)(const float*, const float*, float, float*, int64_t);

template <RowFn kRow>
Status by_rows(const RmsNormArgs& args, Context& ctx) {
  const int64_t dim = args.x.dim[1], grain = std::max<int64_t>(1, 16384 / dim);
  parallel_for(ctx, args.x.dim[0], grain, [&args, dim](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      kRow(args.x.row<const float>(t), args.w.ptr<const float>(), args.eps, args.y.row<float>(t),
           dim);
    }
  });
  return {};
}

constexpr Variant<RmsNormArgs> kVariants[] = {
    {"avx512", on_avx512, any, by_rows<norm_row_avx512>},
    {"avx2", on_avx2, any, by_rows<norm_row_avx2>},
    {"ref", on_any, any, rms_norm_ref},
};

bool f32_rows(const View& v) { return v.rank == 2 && v.dtype == DType::kF32 && v.stride[1] == 1; }

}  // namespace

Status rms_norm(const RmsNormArgs& args, Context& ctx) {
  if (!f32_rows(args.x) || !f32_rows(args.y) || args.w.rank != 1 || args.w.dtype != DType::kF32 ||
      args.w.stride[0] != 1 || args.x.dim != args.y.dim || args.w.dim[0] != args.x.dim[1]) {
    return invalid_argument("rms_norm: x ", args.x.describe(), ", w ", args.w.describe(), ", y ",
                            args.y.describe(), "; wanted f32 [T, D], [D], [T, D]");
  }
  if (args.x.empty()) return {};
  return dispatch("norm", kVariants, args, ctx);
}

}  // namespace rk::kernels
