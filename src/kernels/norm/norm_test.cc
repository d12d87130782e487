#include "kernels/norm/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace rk::kernels {
namespace {

std::vector<float> normed(const char* variant, int64_t rows, int64_t dim, int64_t pitch,
                          bool in_place) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(rows * pitch), w(dim), y(rows * dim);
  for (float& v : x) v = normal(random);
  for (float& v : w) v = normal(random);
  View xs(x.data(), DType::kF32, {rows, dim});
  xs.stride[0] = pitch;
  const View ys = in_place ? xs : View(y.data(), DType::kF32, {rows, dim});
  ForcedVariants forced{{"norm", variant}};
  ThreadPool pool(2);
  Context ctx{.pool = &pool, .forced = &forced};
  EXPECT_TRUE(rms_norm({xs, View(w.data(), DType::kF32, {dim}), 1e-5F, ys}, ctx).ok());
  for (int64_t t = 0; in_place && t < rows; ++t) {
    for (int64_t d = 0; d < dim; ++d) y[t * dim + d] = x[t * pitch + d];
  }
  return y;
}

TEST(RmsNorm, VariantsMatchTheReference) {
  for (const char* variant : {"avx512", "avx2"}) {
    if (!(variant == std::string("avx2") ? on_avx2() : on_avx512())) continue;
    for (const int64_t dim : {1, 7, 16, 17, 64, 576, 1000}) {
      for (const bool in_place : {false, true}) {
        SCOPED_TRACE(cat(variant, " dim=", dim, " in_place=", in_place));
        const auto want = normed("ref", 33, dim, dim + 5, false);
        const auto got = normed(variant, 33, dim, dim + 5, in_place);
        for (size_t i = 0; i < want.size(); ++i) {
          ASSERT_NEAR(got[i], want[i], 2e-6 * (1.0 + std::abs(want[i])));
        }
      }
    }
  }
}

TEST(RmsNorm, AKnownRow) {
  std::vector<float> x{3.0F, 4.0F}, w{1.0F, 2.0F}, y(2);
  Context ctx;
  const View xs(x.data(), DType::kF32, {1, 2}), ys(y.data(), DType::kF32, {1, 2});
  ASSERT_TRUE(rms_norm({xs, View(w.data(), DType::kF32, {2}), 0.0F, ys}, ctx).ok());
  EXPECT_NEAR(y[0], 3.0 / std::sqrt(12.5), 1e-6);
  EXPECT_NEAR(y[1], 8.0 / std::sqrt(12.5), 1e-6);
}

TEST(RmsNorm, ShapesMustFit) {
  std::vector<float> x(8);
  Context ctx;
  const View xs(x.data(), DType::kF32, {2, 4});
  EXPECT_EQ(rms_norm({xs, View(x.data(), DType::kF32, {3}), 0.0F, xs}, ctx).code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::kernels
