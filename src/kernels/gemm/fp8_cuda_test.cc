// fp8 weights on a card as files have them, through our own kernel and through cuBLASLt.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/card_testing.h"
#include "kernels/gemm/fp8_products.h"
#include "kernels/gemm/gemm_cuda.h"

namespace rk::kernels {
namespace {

// With our own kernel for up to 16 rows of every kind of scale, or only for what fours leave over.
GemmCuda* engine(bool own = true) {
  const auto make = [](int64_t few) {
    return GemmCuda::create({.fp8_elements = int64_t{4} << 20,
                             .few_fp8_rows = few,
                             .few_block_rows = few,
                             .few_uneven_rows = few},
                            test_stream());
  };
  static const auto owned = make(16), plain = make(0);
  const auto& made = own ? owned : plain;
  return made.ok() ? made->get() : nullptr;
}
#define NEEDS_GEMM() \
  RK_NEEDS_CARD();   \
  if (engine() == nullptr) GTEST_SKIP() << "no cuBLASLt"

enum class Kind { kTensor, kRow, kBlock };

// Codes whose scales differ by 16 from place to place, so that a scale taken from another shows.
struct Part {
  std::vector<uint8_t> codes;
  Fp8Matrix matrix;
};
Part part_of(int64_t n, int64_t k, Kind kind, uint32_t seed) {
  Part out;
  for (const float v : normal_values(n * k, seed, 60.0F)) out.codes.push_back(f32_to_e4m3(v));
  const int64_t rows = kind == Kind::kTensor ? n : kind == Kind::kRow ? 1 : kFp8Block;
  const int64_t columns = kind == Kind::kBlock ? kFp8Block : k;
  out.matrix = {.codes = View(out.codes.data(), DType::kE4m3, {n, k}),
                .block_rows = rows,
                .block_columns = columns};
  const int64_t num = (n + rows - 1) / rows * ((k + columns - 1) / columns);
  for (int64_t i = 0; i < num; ++i) {
    out.matrix.scales.push_back(static_cast<float>(1 + (i * 7 + seed) % 16) * 1e-4F);
  }
  return out;
}

struct Case {
  int64_t m = 1;
  bool y_f32 = false, bias = false, accumulate = false;
  bool own = true;  ///< few rows in our own kernel
};

double error_of(const CudaWeight& w, const std::vector<float>& values, const Case& c) {
  const int64_t n = w.n(), k = w.k();
  const auto x = rounded(normal_values(c.m * k, 77)), bias = rounded(normal_values(n, 78));
  auto y = rounded(normal_values(c.m * n, 79));
  std::vector<float> want;
  for (int64_t m = 0; m < c.m; ++m) {
    for (int64_t i = 0; i < n; ++i) {
      double sum = (c.accumulate ? y[m * n + i] : 0.0F) + (c.bias ? bias[i] : 0.0F);
      for (int64_t j = 0; j < k; ++j) sum += double{x[m * k + j]} * values[i * k + j];
      want.push_back(static_cast<float>(sum));
    }
  }
  if (!c.accumulate) std::fill(y.begin(), y.end(), NAN);
  const CardArray<uint16_t> card_x(to_bf16(x)), y16(to_bf16(y));
  const CardArray<float> card_bias(bias), y32(y);
  GemmCudaArgs args{.x = card_x.view(DType::kBf16, {c.m, k}), .w = &w};
  args.y = View(c.y_f32 ? static_cast<void*>(y32.data()) : y16.data(),
                c.y_f32 ? DType::kF32 : DType::kBf16, {c.m, n});
  if (c.bias) args.bias = card_bias.view(DType::kF32, {n});
  args.accumulate = c.accumulate;
  const Status status = engine(c.own)->run(args);
  EXPECT_TRUE(status.ok()) << status.message();
  return relative_error(c.y_f32 ? y32.host() : from_bf16(y16.host()), want);
}

// Every kind of scale; sides that 128 does not divide, K that ends within a block.
void expect_values(std::initializer_list<int64_t> rows, double tolerance, bool own = true) {
  for (const Kind kind : {Kind::kTensor, Kind::kRow, Kind::kBlock}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{256, 512}, {208, 1040}, {640, 384}}) {
      const Part part = part_of(n, k, kind, 3);
      const auto w = engine()->upload_fp8({&part.matrix, 1});
      ASSERT_TRUE(w.ok()) << w.status().message();
      std::vector<float> values(n * k);
      dequantize_fp8(part.matrix, 0, n, values.data());
      for (const int64_t m : rows) {
        for (const Case& c : {Case{m, false, false, false, own}, Case{m, true, true, false, own},
                              Case{m, false, true, false, own}, Case{m, true, false, true, own}}) {
          SCOPED_TRACE(cat("kind ", static_cast<int>(kind), " n=", n, " k=", k, " m=", m,
                           " y_f32=", c.y_f32, " bias=", c.bias, " accumulate=", c.accumulate));
          EXPECT_LT(error_of(**w, values, c), tolerance);
        }
      }
    }
  }
}

TEST(Fp8Cuda, FewRowsStayInBf16) {
  NEEDS_GEMM();
  expect_values({1, 2, 7, 9, 16}, 4e-3);
}

// Row counts that four divides and others: what cuBLASLt leaves over is few.
TEST(Fp8Cuda, ManyRowsAreRoundedToE4m3) {
  NEEDS_GEMM();
  expect_values({17, 18, 64, 99}, 0.05);
}

// But what fours leave over of blocks.
TEST(Fp8Cuda, FewRowsOfTheLibrary) {
  NEEDS_GEMM();
  expect_values({1, 2, 4, 5, 8, 12, 16}, 0.05, false);
}

// Q, K and V: one grid of blocks where each ends with a block, several where not; scales a part.
TEST(Fp8Cuda, PartsStackUp) {
  NEEDS_GEMM();
  for (const Kind kind : {Kind::kTensor, Kind::kRow, Kind::kBlock}) {
    for (const int64_t second : {128, 80}) {
      const Part parts[] = {part_of(256, 384, kind, 4), part_of(second, 384, kind, 5),
                            part_of(48, 384, kind, 6)};
      const Fp8Matrix matrices[] = {parts[0].matrix, parts[1].matrix, parts[2].matrix};
      const auto w = engine()->upload_fp8(matrices);
      ASSERT_TRUE(w.ok()) << w.status().message();
      const int64_t n = 256 + second + 48;
      std::vector<float> values;
      for (const Fp8Matrix& m : matrices) {
        const size_t old = values.size();
        values.resize(old + static_cast<size_t>(m.n() * m.k()));
        dequantize_fp8(m, 0, m.n(), values.data() + old);
      }
      for (const int64_t m : {1, 12, 40, 41}) {
        SCOPED_TRACE(cat("kind ", static_cast<int>(kind), " second=", second, " m=", m));
        EXPECT_LT(error_of(**w, values, {m, false, true}), m <= 16 ? 4e-3 : 0.05);
      }
      std::vector<int32_t> ids(static_cast<size_t>(n));
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
      const CardArray<int32_t> card_ids(ids);
      const CardArray<float> out(n * 384);
      ASSERT_TRUE(
          engine()->gather_rows(**w, card_ids.data(), n, out.view(DType::kF32, {n, 384})).ok());
      EXPECT_LT(relative_error(out.host(), values), 4e-3);
    }
  }
}

// What cuBLASLt cannot take is kept, in bf16.
TEST(Fp8Cuda, OddSidesBecomeBf16) {
  NEEDS_GEMM();
  for (const Kind kind : {Kind::kTensor, Kind::kRow, Kind::kBlock}) {
    const Part parts[] = {part_of(130, 200, kind, 7), part_of(33, 200, kind, 8)};
    const Fp8Matrix matrices[] = {parts[0].matrix, parts[1].matrix};
    const auto w = engine()->upload_fp8(matrices);
    ASSERT_TRUE(w.ok()) << w.status().message();
    EXPECT_EQ((*w)->form(), CudaWeightForm::kBf16);
    std::vector<float> values(163 * 200);
    dequantize_fp8(matrices[0], 0, 130, values.data());
    dequantize_fp8(matrices[1], 0, 33, values.data() + 130 * 200);
    EXPECT_LT(error_of(**w, values, {20}), 4e-3);
  }
  const Part wide = part_of(16, 32, Kind::kRow, 1), narrow = part_of(16, 16, Kind::kRow, 1);
  const Fp8Matrix different[] = {wide.matrix, narrow.matrix};
  EXPECT_EQ(engine()->upload_fp8(different).code(), Code::kInvalidArgument);
  EXPECT_EQ(engine()->upload_fp8({}).code(), Code::kInvalidArgument);
}

TEST(Fp8Cuda, HopperMultipliesBlocks) {
  NEEDS_GEMM();
  if (open_card(0)->major != 9) GTEST_SKIP() << "cuBLASLt has such products for Hopper only";
  const Part part = part_of(256, 512, Kind::kBlock, 3);
  EXPECT_EQ((*engine()->upload_fp8({&part.matrix, 1}))->form(), CudaWeightForm::kFp8Blocks);
  const auto made = engine()->random(256, 512, CudaWeightForm::kFp8Blocks, 1, 0.02F);
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_TRUE(engine()->prepare(**made, 64, DType::kF32, false, true).ok());
}

// Needs no card.
TEST(Fp8Scales, RowsOfBlocksArePaddedToFours) {
  const Part part = part_of(200, 700, Kind::kBlock, 2);  // 2 x 6 blocks
  const Fp8Scales blocks = fp8_scales(part.matrix, CudaWeightForm::kFp8Blocks);
  EXPECT_EQ(blocks.stride, 8);
  ASSERT_EQ(blocks.values.size(), 16U);
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 8; ++j) {
      EXPECT_EQ(blocks.values[8 * i + j], j < 6 ? part.matrix.scales[6 * i + j] : 0.0F);
    }
  }
  const Part whole = part_of(5, 64, Kind::kTensor, 2);
  EXPECT_EQ(fp8_scales(whole.matrix, CudaWeightForm::kFp8).values,
            std::vector<float>(5, whole.matrix.scales[0]));
}

}  // namespace
}  // namespace rk::kernels
