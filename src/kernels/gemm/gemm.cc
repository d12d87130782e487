#include "kernels/gemm/gemm.h"

#include "base/check.h"
#include "kernels/gemm/weight.h"

namespace rk::kernels {
namespace {

using gemm_detail::DoneFn;
using gemm_detail::Weight;

struct WeightVariant {
  const char* name;
  bool (*runs_here)();
  Result<std::unique_ptr<PackedWeight>> (*pack)(std::span<const View> parts, int64_t n, int64_t k,
                                                Context& ctx, const DoneFn& done);
};

template <const gemm_detail::Kernels& kernels>
Result<std::unique_ptr<PackedWeight>> pack_for(std::span<const View> parts, int64_t n, int64_t k,
                                               Context& ctx, const DoneFn& done) {
  return gemm_detail::pack_blocked(kernels, parts, n, k, ctx, done);
}
bool on_vnni() { return cpu_features().avx512_vnni; }

/// Fastest first. A weight remembers its variant, so that the choice is made once, at load.
constexpr WeightVariant kVariants[] = {
    {"vnni", on_vnni, pack_for<gemm_detail::kVnniKernels>},
    {"avx2", on_avx2, pack_for<gemm_detail::kAvx2Kernels>},
    {"ref", on_any, gemm_detail::pack_ref},
};

bool readable(DType dtype) {
  return dtype != DType::kI8 && dtype != DType::kI32 && dtype != DType::kE4m3;
}

Status check_part(const View& part, size_t index, int64_t k) {
  const auto bad = [&](const auto&... why) {
    return invalid_argument("gemm weight: part ", index, ", ", part.describe(), ": ", why...);
  };
  if (part.rank != 2 || part.dim[0] <= 0 || part.dim[1] <= 0 || part.data == nullptr) {
    return bad("not a matrix with elements");
  }
  if (!readable(part.dtype)) return bad("no weight of this dtype");
  if (part.dim[1] != k) return bad("K is ", part.dim[1], ", the first part's is ", k);
  const int block = dtype_info(part.dtype).block_elems;
  if (k % block != 0) return bad("K is ", k, ", the dtype's blocks hold ", block);
  if (part.stride[0] != k || part.stride[1] != 1) return bad("rows are not dense");
  return {};
}

const WeightVariant* first_that_runs() {
  for (const WeightVariant& v : kVariants) {
    if (v.runs_here()) return &v;
  }
  return nullptr;
}

Result<const WeightVariant*> choose(const Context& ctx) {
  const std::string_view want = ctx.forced_variant("gemm");
  if (want.empty()) return first_that_runs();
  std::string known;
  for (const WeightVariant& v : kVariants) {
    if (want == v.name) {
      if (v.runs_here()) return &v;
      return unimplemented("--kernel gemm=", want, ": this processor cannot; it has ",
                           cpu_feature_names());
    }
    known += cat(known.empty() ? "" : ", ", v.name);
  }
  return invalid_argument("--kernel gemm=", want, ": no such variant; known: ", known);
}

}  // namespace

Result<std::unique_ptr<PackedWeight>> pack_weight(std::span<const View> parts, Context& ctx,
                                                  const std::function<void(const View&)>& done) {
  if (parts.empty()) return invalid_argument("gemm weight: no parts");
  const int64_t k = parts[0].dim[1];
  int64_t n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    RK_RETURN_IF_ERROR(check_part(parts[i], i, k));
    n += parts[i].dim[0];
  }
  RK_TRY(const WeightVariant* variant, choose(ctx));
  return variant->pack(parts, n, k, ctx, done);
}

Status gemm(const GemmArgs& args, Context& ctx) {
  if (args.w == nullptr) return invalid_argument("gemm: no weight");
  const int64_t n = args.w->n(), k = args.w->k();
  const View &x = args.x, &y = args.y, &bias = args.bias;
  const auto bad = [&](const char* what, const View& v) {
    return invalid_argument("gemm: ", what, " is ", v.describe(), ", the weight [", n, ", ", k,
                            "]");
  };
  if (x.dtype != DType::kF32 || x.rank != 2 || x.dim[1] != k || x.stride[1] != 1)
    return bad("x", x);
  if (y.dtype != DType::kF32 || y.rank != 2 || y.dim[1] != n || y.stride[1] != 1)
    return bad("y", y);
  if (y.dim[0] != x.dim[0]) {
    return invalid_argument("gemm: x has ", x.dim[0], " rows, y ", y.dim[0]);
  }
  if (!bias.empty() &&
      (bias.dtype != DType::kF32 || bias.rank != 1 || bias.dim[0] != n || bias.stride[0] != 1)) {
    return bad("bias", bias);
  }
  if (x.dim[0] == 0) return {};
  if (x.data == nullptr || y.data == nullptr) return invalid_argument("gemm: x or y has no data");
  ctx.work +=
      gemm_work(static_cast<double>(x.dim[0]), static_cast<double>(n), static_cast<double>(k),
                static_cast<double>(args.w->num_bytes()), 4, 4, args.accumulate);
  return static_cast<const Weight*>(args.w)->run(args, ctx);
}

std::vector<std::string> gemm_variants() {
  std::vector<std::string> names;
  for (const WeightVariant& v : kVariants) {
    if (v.runs_here()) names.emplace_back(v.name);
  }
  return names;
}

void unpack_row(const PackedWeight& w, int64_t row, float* out) {
  RK_CHECK(0 <= row && row < w.n());
  static_cast<const Weight&>(w).unpack_row(row, out);
}

}  // namespace rk::kernels
