// RMSNorm: y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * w. Sums in f32 (reference: double).
#pragma once

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/view.h"

namespace rk::kernels {

struct RmsNormArgs {
  View x;  ///< [T, D] f32, rows may be strided
  View w;  ///< [D] f32
  float eps = 1e-5F;
  View y;  ///< [T, D] f32 out; may be x
};
Status rms_norm(const RmsNormArgs& args, Context& ctx);

}  // namespace rk::kernels
