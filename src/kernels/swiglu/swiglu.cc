#include "kernels/swiglu/swiglu.h"

#include "kernels/swiglu/swiglu_variants.h"

namespace rk::kernels {
namespace {

bool any(const SwigluArgs&) { return true; }

constexpr Variant<SwigluArgs> kVariants[] = {
    {"ref", on_any, any, swiglu_ref},
};

bool f32_rows(const View& v) { return v.rank == 2 && v.dtype == DType::kF32 && v.stride[1] == 1; }

}  // namespace

Status swiglu(const SwigluArgs& args, Context& ctx) {
  if (!f32_rows(args.gate_up) || !f32_rows(args.y) || args.gate_up.dim[0] != args.y.dim[0] ||
      args.gate_up.dim[1] != 2 * args.y.dim[1]) {
    return invalid_argument("swiglu: gate_up ", args.gate_up.describe(), ", y ", args.y.describe(),
                            "; wanted f32 [T, 2I] and [T, I]");
  }
  if (args.y.empty()) return {};
  return dispatch("swiglu", kVariants, args, ctx);
}

}  // namespace rk::kernels
