// The specification of swiglu(), in double.
#include <cmath>

#include "kernels/swiglu/swiglu_variants.h"

namespace rk::kernels {

Status swiglu_ref(const SwigluArgs& args, Context&) {
  const int64_t inner = args.y.dim[1];
  for (int64_t t = 0; t < args.y.dim[0]; ++t) {
    for (int64_t i = 0; i < inner; ++i) {
      const double gate = args.gate_up.at(t, i), up = args.gate_up.at(t, inner + i);
      args.y.set(gate / (1.0 + std::exp(-gate)) * up, t, i);
    }
  }
  return {};
}

}  // namespace rk::kernels
