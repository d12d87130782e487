#include "kernels/swiglu/swiglu.h"

#include <algorithm>

#include "kernels/swiglu/swiglu_rows.h"
#include "kernels/swiglu/swiglu_variants.h"

namespace rk::kernels {
namespace {

bool any(const SwigluArgs&) { return true; }

using RowFn = void (*)(const float*, const float*, float*, int64_t);

template <RowFn kRow>
Status by_rows(const SwigluArgs& args, Context& ctx) {
  const int64_t inner = args.y.dim[1], grain = std::max<int64_t>(1, 8192 / inner);
  parallel_for(ctx, args.y.dim[0], grain, [&args, inner](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const auto* gate = args.gate_up.row<const float>(t);
      kRow(gate, gate + inner, args.y.row<float>(t), inner);
    }
  });
  return {};
}

constexpr Variant<SwigluArgs> kVariants[] = {
    {"avx512", on_avx512, any, by_rows<swiglu_row_avx512>},
    {"avx2", on_avx2, any, by_rows<swiglu_row_avx2>},
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
