// SwiGLU: y[t,i] = silu(gate[t,i]) * up[t,i], silu(z) = z / (1 + exp(-z)).
#pragma once

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/view.h"

namespace rk::kernels {

struct SwigluArgs {
  View gate_up;  ///< [T, 2I] f32: gate in the first half of a row, up in the second
  View y;  ///< [T, I] f32 out; may overlap gate_up's first half of each row exactly (in place)
};
Status swiglu(const SwigluArgs& args, Context& ctx);

}  // namespace rk::kernels
