#include "tensor/fp8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rk {
namespace {

using testing::HasSubstr;

TEST(E4m3, ValuesAreTheFormats) {
  for (int bits = 0; bits < 256; ++bits) {
    const auto code = static_cast<uint8_t>(bits);
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    const float value = e4m3_to_f32(code);
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      continue;
    }
    EXPECT_EQ(value, static_cast<float>(bits & 0x80 ? -magnitude : magnitude)) << bits;
    EXPECT_EQ(f32_to_e4m3(value), code) << bits;
  }
  EXPECT_EQ(e4m3_to_f32(f32_to_e4m3(1e9F)), 448);
  EXPECT_EQ(e4m3_to_f32(f32_to_e4m3(-1e9F)), -448);
  EXPECT_EQ(e4m3_to_f32(f32_to_e4m3(17)), 16);  // half way: to the even one
}

struct Codes {
  std::vector<uint8_t> bytes;
  View view;
  Codes(int64_t n, int64_t k) : bytes(static_cast<size_t>(n * k)) {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 % 0x7f);
    view = View(bytes.data(), DType::kE4m3, {n, k});
  }
};

TEST(Fp8Matrix, EachKindOfScaleReachesItsElements) {
  const Codes codes(130, 300);
  struct Case {
    int64_t rows, columns;
    std::vector<int64_t> shape;
  };
  for (const auto& [rows, columns, shape] :
       {Case{130, 300, {1}}, Case{1, 300, {130, 1}}, Case{1, 300, {130}}, Case{128, 128, {2, 3}}}) {
    std::vector<float> scales(
        static_cast<size_t>(shape.size() == 2 ? shape[0] * shape[1] : shape[0]));
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = 0.25F + static_cast<float>(i);
    const View view = shape.size() == 2 ? View(scales.data(), DType::kF32, {shape[0], shape[1]})
                                        : View(scales.data(), DType::kF32, {shape[0]});
    const auto w = make_fp8_matrix(codes.view, view, false, "w");
    ASSERT_TRUE(w.ok()) << w.status().message();
    std::vector<float> out(2 * 300);
    dequantize_fp8(*w, 127, 129, out.data());
    for (int64_t n = 127; n < 129; ++n) {
      for (int64_t k = 0; k < 300; ++k) {
        const auto scale =
            static_cast<size_t>(n / rows * ((300 + columns - 1) / columns) + k / columns);
        ASSERT_EQ(out[static_cast<size_t>((n - 127) * 300 + k)],
                  e4m3_to_f32(codes.bytes[static_cast<size_t>(n * 300 + k)]) * scales[scale])
            << n << " " << k;
      }
    }
  }
}

TEST(Fp8Matrix, ScalesThatDoNotFitAreNamed) {
  const Codes codes(130, 300);
  std::vector<float> scales(130 * 300, 1.0F);
  const auto refused = [&](std::initializer_list<int64_t> shape, bool blocks, const char* text) {
    const auto w =
        make_fp8_matrix(codes.view, View(scales.data(), DType::kF32, shape), blocks, "file: w");
    ASSERT_FALSE(w.ok());
    EXPECT_EQ(w.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(w.status().message(), HasSubstr(text));
    EXPECT_THAT(w.status().message(), HasSubstr("file: w"));
  };
  refused({3, 2}, true, "f32 [3, 2] of codes e4m3 [130, 300]; [2, 3]");
  refused({130, 300}, false, "[1], [130, 1] or [2, 3]");
  refused({1}, true, "[2, 3]");  // said to be of blocks
  refused({300}, false, "[1], [130, 1]");
  for (const float bad : {-1.0F, NAN, std::numeric_limits<float>::infinity()}) {
    scales[4] = bad;
    refused({2, 3}, true, "scale 4 is");
  }
  const View plain(scales.data(), DType::kF32, {2, 3});
  EXPECT_FALSE(make_fp8_matrix(plain, plain, false, "w").ok());
}

}  // namespace
}  // namespace rk
