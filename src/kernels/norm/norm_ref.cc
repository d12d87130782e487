// The specification of rms_norm(), in double.
#include <cmath>

#include "kernels/norm/norm_variants.h"

namespace rk::kernels {

Status rms_norm_ref(const RmsNormArgs& args, Context&) {
  const int64_t dim = args.x.dim[1];
  for (int64_t t = 0; t < args.x.dim[0]; ++t) {
    double sum = 0.0;
    for (int64_t d = 0; d < dim; ++d) sum += args.x.at(t, d) * args.x.at(t, d);
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(dim) + args.eps);
    for (int64_t d = 0; d < dim; ++d) args.y.set(args.x.at(t, d) * scale * args.w.at(d), t, d);
  }
  return {};
}

}  // namespace rk::kernels
