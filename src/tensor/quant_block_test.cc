#include "tensor/quant_block.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace rk {
namespace {

constexpr DType kBlocks[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                             DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// tools/make_quant_golden.py: random blocks and what the `gguf` package makes of them.
TEST(QuantBlock, DecodesLikeTheGgufPackageBitForBit) {
  for (const DType dtype : kBlocks) {
    const DTypeInfo& info = dtype_info(dtype);
    std::ifstream in(std::string(RK_SOURCE_DIR "/tests/golden/quant/") + info.name + ".bin",
                     std::ios::binary);
    const std::string golden((std::istreambuf_iterator<char>(in)), {});
    const size_t per_block = static_cast<size_t>(info.block_bytes + info.block_elems * 4);
    ASSERT_GT(golden.size(), 0U) << info.name;
    ASSERT_EQ(golden.size() % per_block, 0U) << info.name;
    const size_t blocks = golden.size() / per_block;
    std::vector<float> got(blocks * static_cast<size_t>(info.block_elems));
    dequantize(dtype, golden.data(), got.data(), static_cast<int64_t>(got.size()));
    const char* want = golden.data() + blocks * static_cast<size_t>(info.block_bytes);
    for (size_t i = 0; i < got.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, want + i * 4, 4);
      ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), bits)
          << info.name << " element " << i << ": " << got[i];
    }
  }
}

double relative_error(DType dtype, const std::vector<float>& x) {
  std::vector<char> packed(static_cast<size_t>(dtype_bytes(dtype, static_cast<int64_t>(x.size()))));
  std::vector<float> back(x.size());
  quantize(dtype, x.data(), packed.data(), static_cast<int64_t>(x.size()));
  dequantize(dtype, packed.data(), back.data(), static_cast<int64_t>(x.size()));
  double error = 0;
  double norm = 1e-300;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (x[i] - back[i]) * (x[i] - back[i]);
    norm += x[i] * x[i];
  }
  return std::sqrt(error / norm);
}

TEST(QuantBlock, EncodersComeBackClose) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal(0.02F, 0.5F);
  std::vector<float> x(2048);
  for (float& v : x) v = normal(rng);
  const struct {
    DType dtype;
    double limit;
  } cases[] = {{DType::kF32, 0},      {DType::kF16, 5e-4},   {DType::kBf16, 3e-3},
               {DType::kQ4_0, 0.1},   {DType::kQ4_1, 0.09},  {DType::kQ5_0, 0.05},
               {DType::kQ5_1, 0.045}, {DType::kQ8_0, 0.007}, {DType::kQ4_K, 0.09},
               {DType::kQ5_K, 0.045}, {DType::kQ6_K, 0.025}};
  for (const auto& c : cases) EXPECT_LE(relative_error(c.dtype, x), c.limit) << dtype_name(c.dtype);
}

TEST(QuantBlock, EncodersTakeZerosAndNonFinite) {
  for (const DType dtype : kBlocks) {
    EXPECT_EQ(relative_error(dtype, std::vector<float>(256, 0.0F)), 0) << dtype_name(dtype);
    std::vector<float> x(256, 1.0F);
    x[3] = std::numeric_limits<float>::quiet_NaN();
    x[70] = std::numeric_limits<float>::infinity();
    x[130] = -std::numeric_limits<float>::infinity();
    (void)relative_error(dtype, x);  // any value, no undefined behaviour
  }
}

TEST(Dtype, HalfRoundsToNearestEvenOverItsRange) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = f16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f32_to_f16(value), bits);
    if (bits % 0x8000 >= 0x7bff) continue;
    const float next = f16_to_f32(static_cast<uint16_t>(bits + 1));
    ASSERT_EQ(f32_to_f16((value + next) / 2), bits + (bits & 1)) << value;  // tie to even
  }
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7c00);
  EXPECT_EQ(f32_to_bf16(1.00390625F), 0x3f80);  // tie to even
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::nanf("")))));
}

}  // namespace
}  // namespace rk
