#include "kernels/norm/norm.h"

#include "kernels/norm/norm_variants.h"

namespace rk::kernels {
namespace {

bool any(const RmsNormArgs&) { return true; }

constexpr Variant<RmsNormArgs> kVariants[] = {
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
