// The specification of rope() and rope_relocate(): one pair at a time, in double.
#include <cmath>

#include "kernels/rope/rope_variants.h"

namespace rk::kernels {
namespace {

struct Pair {
  int64_t first, second;
};

Pair pair_of(int64_t i, int64_t half, RopePairs pairs) {
  return pairs == RopePairs::kHalfSplit ? Pair{i, i + half} : Pair{2 * i, 2 * i + 1};
}

}  // namespace

Status rope_ref(const RopeArgs& args, Context&) {
  const RopeView& table = args.table;
  const int64_t half = table.rotary_dim / 2;
  for (int64_t t = 0; t < args.x.dim[0]; ++t) {
    const float* cos = table.cos + args.pos[t] * half;
    const float* sin = table.sin + args.pos[t] * half;
    for (int64_t h = 0; h < args.x.dim[1]; ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const Pair p = pair_of(i, half, table.pairs);
        const double a = args.x.at(t, h, p.first), b = args.x.at(t, h, p.second);
        args.x.set(a * cos[i] - b * sin[i], t, h, p.first);
        args.x.set(b * cos[i] + a * sin[i], t, h, p.second);
      }
    }
  }
  return {};
}

void rope_relocate(const View& in, const View& out, int64_t delta,
                   const std::vector<double>& inv_freq, RopePairs pairs) {
  const auto half = static_cast<int64_t>(inv_freq.size());
  RK_CHECK(in.rank == 2 && out.rank == 2 && in.dim == out.dim && 2 * half <= in.dim[1]);
  for (int64_t row = 0; row < in.dim[0]; ++row) {
    for (int64_t d = 2 * half; d < in.dim[1]; ++d) out.set(in.at(row, d), row, d);
    for (int64_t i = 0; i < half; ++i) {
      const Pair p = pair_of(i, half, pairs);
      const double angle = static_cast<double>(delta) * inv_freq[i];
      const double cos = std::cos(angle), sin = std::sin(angle);
      const double a = in.at(row, p.first), b = in.at(row, p.second);
      out.set(a * cos - b * sin, row, p.first);
      out.set(b * cos + a * sin, row, p.second);
    }
  }
}

}  // namespace rk::kernels
