#include "kernels/rope/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace rk::kernels {
namespace {

using Floats = std::vector<float>;

Floats relocated(Floats in, int64_t delta, RopePairs pairs = RopePairs::kHalfSplit) {
  Floats out(in.size());
  rope_relocate(View(in.data(), DType::kF32, {1, static_cast<int64_t>(in.size())}),
                View(out.data(), DType::kF32, {1, static_cast<int64_t>(in.size())}), delta,
                {1.0, 0.01}, pairs);
  return out;
}

Floats turned(Floats x, int32_t pos, double magnitude = 1.0) {
  const RopeTable table =
      RopeTable::create({1.0, 0.01}, 16, magnitude, RopePairs::kHalfSplit).value();
  Context ctx;
  EXPECT_TRUE(rope(View(x.data(), DType::kF32, {1, 1, 4}), &pos, table.view(), ctx).ok());
  return x;
}

void expect_near(const Floats& got, const Floats& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << i;
}

double dot(const Floats& a, const Floats& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Spec 11.1.
TEST(Rope, WorkedExample) {
  const Floats k{1, 2, 3, 4}, q{0.5F, -1, 0.25F, 2};
  const Floats k3{-1.413353F, 1.879118F, -2.828857F, 4.058191F};
  const Floats k10{0.792992F, 1.590675F, -3.061236F, 4.179683F};
  expect_near(relocated(k, 3), k3, 2e-6);
  expect_near(relocated(k, 10), k10, 2e-6);
  expect_near(relocated(relocated(k, 3), 7), k10, 2e-6);
  expect_near(relocated(relocated(k, 10), -10), k, 2e-6);
  expect_near(relocated(k, 0), k, 0.0);
  expect_near(turned(k, 3), k3, 2e-6);
  EXPECT_NEAR(dot(turned(q, 12), turned(k, 10)), 6.455249, 1e-5);
  EXPECT_NEAR(dot(turned(q, 5), turned(k, 3)), 6.455249, 1e-5);
  EXPECT_NEAR(dot(turned(q, 12), turned(k, 3)), 4.632924, 1e-5);
}

// Spec 11.1: yarn's magnitude is in stored keys once and relocation leaves it alone.
TEST(Rope, RelocationKeepsTheMagnitude) {
  const double m = 0.1 * std::log(4.0) + 1.0;
  const Floats stored = turned({1, 2, 3, 4}, 3, m);
  expect_near(stored, {-1.609285F, 2.139619F, -3.221020F, 4.620776F}, 2e-6);
  expect_near(relocated(stored, 7), {0.902924F, 1.811189F, -3.485613F, 4.759111F}, 2e-6);
}

Floats rotated(const char* variant, int dim, int rotary, RopePairs pairs) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  constexpr int64_t kTokens = 50, kHeads = 3, kPitch = 500;
  Floats x(kTokens * kPitch);
  for (float& v : x) v = normal(random);
  std::vector<int32_t> pos(kTokens);
  for (int t = 0; t < kTokens; ++t) pos[t] = t * 37 % 100;
  std::vector<double> inv_freq(rotary / 2);
  for (int i = 0; i < rotary / 2; ++i) inv_freq[i] = std::pow(1e4, -2.0 * i / rotary);
  const RopeTable table = RopeTable::create(inv_freq, 100, 1.0, pairs).value();
  View view(x.data(), DType::kF32, {kTokens, kHeads, dim});
  view.stride[0] = kPitch;
  ForcedVariants forced{{"rope", variant}};
  ThreadPool pool(2);
  Context ctx{.pool = &pool, .forced = &forced};
  EXPECT_TRUE(rope(view, pos.data(), table.view(), ctx).ok());
  return x;
}

TEST(Rope, VariantsMatchTheReference) {
  for (const char* variant : {"avx512", "avx2"}) {
    if (!(variant == std::string("avx2") ? on_avx2() : on_avx512())) continue;
    for (const RopePairs pairs : {RopePairs::kHalfSplit, RopePairs::kInterleaved}) {
      for (const int dim : {8, 64, 80, 128}) {
        for (const int rotary : {2, 8, dim / 2, dim}) {
          SCOPED_TRACE(cat(variant, " dim=", dim, " rotary=", rotary, " pairs=", int(pairs)));
          expect_near(rotated(variant, dim, rotary, pairs), rotated("ref", dim, rotary, pairs),
                      1e-6);
        }
      }
    }
  }
}

TEST(Rope, RelocationOfPartialRotaryLeavesTheRest) {
  Floats in{1, 2, 3, 4, 5, 6}, out(6);
  rope_relocate(View(in.data(), DType::kF32, {1, 6}), View(out.data(), DType::kF32, {1, 6}), 3,
                {1.0, 0.01}, RopePairs::kInterleaved);
  const double c = std::cos(3.0), s = std::sin(3.0), c2 = std::cos(0.03), s2 = std::sin(0.03);
  expect_near(
      out,
      {float(c - 2 * s), float(2 * c + s), float(3 * c2 - 4 * s2), float(4 * c2 + 3 * s2), 5, 6},
      1e-6);
}

TEST(Rope, PositionsOutsideTheTableAreRefused) {
  const RopeTable table = RopeTable::create({1.0}, 4, 1.0, RopePairs::kHalfSplit).value();
  Floats x(2);
  Context ctx;
  const View view(x.data(), DType::kF32, {1, 1, 2});
  for (const int32_t pos : {-1, 4}) {
    EXPECT_EQ(rope(view, &pos, table.view(), ctx).code(), Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace rk::kernels
