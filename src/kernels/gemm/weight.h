// What the variants of gemm share: the weight object behind PackedWeight and the makers of its two
// kinds. Private to kernels/gemm.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/layout.h"

namespace rk::kernels::gemm_detail {

using DoneFn = std::function<void(const View&)>;

/// A weight that knows how to multiply. Immutable.
class Weight : public PackedWeight {
 public:
  /// Requires: shapes agree, M > 0.
  virtual Status run(const GemmArgs& args, Context& ctx) const = 0;
  virtual void unpack_row(int64_t row, float* out) const = 0;

 protected:
  using PackedWeight::PackedWeight;
};

/// The specification: f32 rows, double sums.
Result<std::unique_ptr<PackedWeight>> pack_ref(std::span<const View> parts, int64_t n, int64_t k,
                                               Context& ctx, const DoneFn& done);

/// The fast variants: about the file's bytes, in `kernels`' layout.
Result<std::unique_ptr<PackedWeight>> pack_blocked(const Kernels& kernels,
                                                   std::span<const View> parts, int64_t n,
                                                   int64_t k, Context& ctx, const DoneFn& done);

}  // namespace rk::kernels::gemm_detail
