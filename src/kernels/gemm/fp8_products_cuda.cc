#include <algorithm>

#include "kernels/gemm/fp8_products.h"

namespace rk::kernels {
namespace {

constexpr int64_t kMaxRows = int64_t{1} << 20, kMaxBias = int64_t{1} << 20;

}  // namespace

Fp8Scales fp8_scales(const Fp8Matrix& w, CudaWeightForm form) {
  Fp8Scales out;
  if (form == CudaWeightForm::kFp8) {
    for (int64_t n = 0; n < w.n(); ++n) out.values.push_back(w.scale(n, 0));
    return out;
  }
  const int64_t columns = w.scale_columns();
  out.stride = fp8_scale_stride(w.k());
  for (int64_t n = 0; n < w.n(); n += kFp8Block) {
    for (int64_t c = 0; c < out.stride; ++c) {
      out.values.push_back(c < columns ? w.scale(n, c * kFp8Block) : 0.0F);
    }
  }
  return out;
}

Result<Fp8Products> Fp8Products::create(CublasLt& lt, int64_t elements, Stream stream) {
  Fp8Products out;
  out.lt_ = &lt;
  out.stream_ = stream;
  LtShape probe{.m = 256, .n = 512, .k = 512, .y_stride = 512, .scales = LtScales::kRows};
  out.row_scales_ = lt.can(probe);
  // Every kind of result that layers ask for, or none.
  probe.scales = LtScales::kBlocks;
  LtShape sum = probe;
  sum.y_f32 = sum.accumulate = true;
  out.block_scales_ = lt.can(probe) && lt.can(sum);
  probe.bias = true;
  out.block_bias_ = out.block_scales_ && lt.can(probe);
  RK_TRY(out.codes_, Buffer::allocate(elements, Memory::kCard));
  RK_TRY(out.scales_, Buffer::allocate((elements / 64 + kMaxRows + 1) * 4, Memory::kCard));
  RK_TRY(out.bias_, Buffer::allocate(kMaxBias * 2, Memory::kCard));
  return out;
}

CudaWeightForm Fp8Products::form_of(std::span<const Fp8Matrix> parts) const {
  const auto every = [&](const auto& holds) { return std::ranges::all_of(parts, holds); };
  if (!every([](const Fp8Matrix& w) { return w.n() % 16 == 0 && w.k() % 16 == 0; })) {
    return CudaWeightForm::kBf16;
  }
  if (every([](const Fp8Matrix& w) { return w.has_blocks(); })) {
    return block_scales_ ? CudaWeightForm::kFp8Blocks : CudaWeightForm::kBf16;
  }
  const bool whole_rows = every([](const Fp8Matrix& w) { return w.scale_columns() == 1; });
  const bool one = every([](const Fp8Matrix& w) { return w.scales.size() == 1; });
  return whole_rows && (row_scales_ || one) ? CudaWeightForm::kFp8 : CudaWeightForm::kBf16;
}

Status Fp8Products::run(const WeightPiece& w, const GemmCudaArgs& a, bool measure) {
  const bool blocks = w.form == CudaWeightForm::kFp8Blocks;
  const int64_t m = a.x.dim[0];
  if (m * w.k > codes_.num_bytes()) {
    return exhausted("gemm: fp8 wants ", m * w.k, " bytes of scratch for x, there are ",
                     codes_.num_bytes());
  }
  auto* scales = scales_.as<float>();
  RK_RETURN_IF_ERROR(
      blocks ? quantize_fp8_blocks(a.x.data, m, w.k, codes_.data(), scales, stream_)
             : quantize_fp8(a.x.data, m, w.k, codes_.data(), scales, !row_scales_, stream_));
  LtShape shape{.m = m,
                .n = w.n,
                .k = w.k,
                .y_stride = a.y.dim[0] > 1 ? a.y.stride[0] : a.w->n(),
                .scales = blocks        ? LtScales::kBlocks
                          : row_scales_ ? LtScales::kRows
                                        : LtScales::kOne,
                .y_f32 = a.y.dtype == DType::kF32,
                .bias = !a.bias.empty() && (!blocks || block_bias_),
                .accumulate = a.accumulate};
  const int64_t y_bytes = shape.y_f32 ? 4 : 2;
  LtOperands operands{.x = codes_.data(),
                      .w = w.data,
                      .x_scale = scales,
                      .w_scale = w.scale,
                      .y = a.y.ptr<char>() + w.row_begin * y_bytes};
  const float* bias = a.bias.empty() ? nullptr : a.bias.ptr<float>() + w.row_begin;
  if (shape.bias) {
    RK_RETURN_IF_ERROR(to_bf16(bias, bias_.data(), w.n, stream_));
    operands.bias = bias_.data();
  }
  RK_RETURN_IF_ERROR(measure ? lt_->prepare(shape, operands) : lt_->run(shape, operands));
  if (bias == nullptr || shape.bias) return {};
  return add_bias(bias, m, w.n, operands.y, shape.y_stride, shape.y_f32, stream_);
}

}  // namespace rk::kernels
