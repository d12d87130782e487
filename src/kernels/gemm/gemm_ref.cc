// The specification of gemm: every weight as f32, every sum in double.
#include "kernels/gemm/weight.h"
#include "tensor/buffer.h"
#include "tensor/quant_block.h"

namespace rk::kernels::gemm_detail {
namespace {

class RefWeight final : public Weight {
 public:
  RefWeight(int64_t n, int64_t k, Buffer rows) : Weight(n, k), rows_(std::move(rows)) {}
  const char* variant() const override { return "ref"; }
  int64_t num_bytes() const override { return rows_.num_bytes(); }
  float* row(int64_t i) const { return rows_.as<float>() + i * k(); }

  Status run(const GemmArgs& args, Context& ctx) const override {
    parallel_for(ctx, n(), 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t m = 0; m < args.x.dim[0]; ++m) {
        for (int64_t i = begin; i < end; ++i) run_one(args, m, i);
      }
    });
    return {};
  }

  void unpack_row(int64_t i, float* out) const override { std::copy_n(row(i), k(), out); }

 private:
  void run_one(const GemmArgs& args, int64_t m, int64_t i) const {
    const float* x = args.x.row<float>(m);
    const float* w = row(i);
    double sum = args.bias.empty() ? 0.0 : args.bias.at(i);
    for (int64_t j = 0; j < k(); ++j) sum += double{x[j]} * double{w[j]};
    float& y = args.y.row<float>(m)[i];
    y = static_cast<float>(args.accumulate ? y + sum : sum);
  }

  Buffer rows_;
};

}  // namespace

Result<std::unique_ptr<PackedWeight>> pack_ref(std::span<const View> parts, int64_t n, int64_t k,
                                               Context& ctx, const DoneFn& done) {
  RK_TRY(Buffer rows, Buffer::allocate(n * k * static_cast<int64_t>(sizeof(float))));
  auto weight = std::make_unique<RefWeight>(n, k, std::move(rows));
  int64_t first = 0;
  for (const View& part : parts) {
    parallel_for(ctx, part.dim[0], 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        dequantize(part.dtype, part.rows(i, i + 1).data, weight->row(first + i), k);
      }
    });
    first += part.dim[0];
    if (done) done(part);
  }
  return std::unique_ptr<PackedWeight>(std::move(weight));
}

}  // namespace rk::kernels::gemm_detail
