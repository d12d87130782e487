#include "kernels/swiglu/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace rk::kernels {
namespace {

std::vector<float> activated(const char* variant, std::vector<float> gate_up, int64_t rows,
                             bool in_place) {
  const int64_t inner = static_cast<int64_t>(gate_up.size()) / rows / 2;
  std::vector<float> y(rows * inner);
  const View in(gate_up.data(), DType::kF32, {rows, 2 * inner});
  View out(y.data(), DType::kF32, {rows, inner});
  if (in_place) {
    out = in;
    out.dim[1] = inner;
  }
  ForcedVariants forced{{"swiglu", variant}};
  ThreadPool pool(2);
  Context ctx{.pool = &pool, .forced = &forced};
  EXPECT_TRUE(swiglu({in, out}, ctx).ok());
  for (int64_t t = 0; in_place && t < rows; ++t) {
    for (int64_t i = 0; i < inner; ++i) y[t * inner + i] = gate_up[t * 2 * inner + i];
  }
  return y;
}

TEST(Swiglu, VariantsMatchTheReference) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0F, 4.0F);
  for (const char* variant : {"avx512", "avx2"}) {
    if (!(variant == std::string("avx2") ? on_avx2() : on_avx512())) continue;
    for (const int64_t inner : {1, 15, 16, 17, 100, 1536}) {
      std::vector<float> x(9 * 2 * inner);
      for (float& v : x) v = normal(random);
      const auto want = activated("ref", x, 9, false);
      for (const bool in_place : {false, true}) {
        SCOPED_TRACE(cat(variant, " inner=", inner, " in_place=", in_place));
        const auto got = activated(variant, x, 9, in_place);
        for (size_t i = 0; i < want.size(); ++i) {
          ASSERT_NEAR(got[i], want[i], 1e-6 * std::abs(want[i]) + 1e-30);
        }
      }
    }
  }
}

TEST(Swiglu, FarGatesSaturate) {
  const std::vector<float> x{-1000.0F, -90.0F, 0.0F, 90.0F, 1000.0F, 1.0F, 1.0F, 1.0F, 1.0F, 1.0F};
  for (const char* variant : {"avx512", "avx2", "ref"}) {
    const bool runs = variant == std::string("avx512") ? on_avx512() : on_avx2();
    if (!runs) continue;
    const auto y = activated(variant, x, 1, false);
    EXPECT_NEAR(y[0], 0.0F, 1e-30F) << variant;
    EXPECT_NEAR(y[1], 0.0F, 1e-30F) << variant;
    EXPECT_EQ(y[2], 0.0F) << variant;
    EXPECT_EQ(y[3], 90.0F) << variant;
    EXPECT_EQ(y[4], 1000.0F) << variant;
  }
}

}  // namespace
}  // namespace rk::kernels
