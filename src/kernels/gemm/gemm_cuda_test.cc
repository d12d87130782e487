#include "kernels/gemm/gemm_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/cuda/card_testing.h"
#include "kernels/gemm/gemm_cuda_kernels.h"
#include "tensor/quant_block.h"

namespace rk::kernels {
namespace {

constexpr double kBf16 = 4e-3;

GemmCuda* engine() {
  // Our own kernel wherever it can, so that each form passes through both paths.
  static const auto made = GemmCuda::create({.expand_elements = int64_t{4} << 20,
                                             .fp8_elements = int64_t{4} << 20,
                                             .few_bf16_rows = 16,
                                             .few_fp8_rows = 16,
                                             .few_quant_rows = 40,
                                             .hopper_packed_from = 0},
                                            test_stream());
  return made.ok() ? made->get() : nullptr;
}
#define NEEDS_GEMM() \
  RK_NEEDS_CARD();   \
  if (engine() == nullptr) GTEST_SKIP() << "no cuBLASLt"

struct HostWeight {
  std::vector<uint8_t> bytes;
  View view;
  std::vector<float> values;  // as the reference decodes them
};
HostWeight host_weight(DType dtype, int64_t n, int64_t k, uint32_t seed) {
  HostWeight w;
  w.values = normal_values(n * k, seed, 0.1F);
  // A mean other than zero, so that minima matter.
  for (size_t i = 0; i < w.values.size(); ++i) w.values[i] += i % 3 == 0 ? 0.05F : 0.0F;
  w.bytes.resize(dtype_bytes(dtype, n * k));
  quantize(dtype, w.values.data(), w.bytes.data(), n * k);
  dequantize(dtype, w.bytes.data(), w.values.data(), n * k);
  w.view = View(w.bytes.data(), dtype, {n, k});
  return w;
}

struct Case {
  int64_t m = 1, n = 64, k = 64;
  bool y_f32 = false, bias = false, accumulate = false;
  int64_t y_pad = 0;
};

// Runs the product on the card and in double on the host; relative error.
double error_of(const CudaWeight& w, const std::vector<float>& values, const Case& c) {
  const auto x = rounded(normal_values(c.m * c.k, 77)), bias = normal_values(c.n, 78);
  const int64_t stride = c.n + c.y_pad;
  auto y = rounded(normal_values(c.m * stride, 79));
  std::vector<float> want, got;
  for (int64_t m = 0; m < c.m; ++m) {
    for (int64_t n = 0; n < c.n; ++n) {
      double sum = c.accumulate ? y[m * stride + n] : 0.0;
      for (int64_t k = 0; k < c.k; ++k) sum += double{x[m * c.k + k]} * values[n * c.k + k];
      want.push_back(static_cast<float>(sum + (c.bias ? bias[n] : 0.0F)));
    }
  }
  if (!c.accumulate) std::fill(y.begin(), y.end(), NAN);
  const CardArray<uint16_t> card_x(to_bf16(x)), y16(to_bf16(y));
  const CardArray<float> card_bias(bias), y32(y);
  GemmCudaArgs args{.x = card_x.view(DType::kBf16, {c.m, c.k}), .w = &w};
  args.y = View(c.y_f32 ? static_cast<void*>(y32.data()) : y16.data(),
                c.y_f32 ? DType::kF32 : DType::kBf16, {c.m, c.n});
  args.y.stride[0] = stride;
  if (c.bias) args.bias = card_bias.view(DType::kF32, {c.n});
  args.accumulate = c.accumulate;
  const Status status = engine()->run(args);
  EXPECT_TRUE(status.ok()) << status.message();
  const auto all = c.y_f32 ? y32.host() : from_bf16(y16.host());
  for (int64_t m = 0; m < c.m; ++m) {
    got.insert(got.end(), all.begin() + m * stride, all.begin() + m * stride + c.n);
  }
  return relative_error(got, want);
}

std::string describe(const Case& c) {
  return cat("m=", c.m, " n=", c.n, " k=", c.k, " y_f32=", c.y_f32, " bias=", c.bias,
             " accumulate=", c.accumulate, " pad=", c.y_pad);
}

// Every path: few rows (one and two columns of tiles, slices of 16), and cuBLASLt.
void check_all(const CudaWeight& w, const std::vector<float>& values, int64_t n, int64_t k,
               double tolerance) {
  for (const int64_t m : {1, 2, 7, 8, 9, 16, 17, 40, 100}) {
    for (const Case& c : {Case{m, n, k}, Case{m, n, k, true, true}, Case{m, n, k, false, true},
                          Case{m, n, k, true, false, true}, Case{m, n, k, true, true, true, 16}}) {
      SCOPED_TRACE(describe(c));
      EXPECT_LT(error_of(w, values, c), tolerance);
    }
  }
}

TEST(GemmCuda, Bf16MatchesTheFormula) {
  NEEDS_GEMM();
  for (const auto& [n, k] :
       {std::pair<int64_t, int64_t>{64, 64}, {576, 576}, {200, 1000}, {33, 40}, {1000, 2048}}) {
    const HostWeight w = host_weight(DType::kBf16, n, k, 1);
    const auto card = engine()->upload({&w.view, 1}, CudaWeightForm::kBf16).value();
    check_all(*card, w.values, n, k, kBf16);
  }
}

// One row takes a kernel of its own on Hopper: pieces that end within a row, more rows of w than
// blocks and fewer, rows longer than its rings.
TEST(GemmCuda, OneRowOfBf16) {
  NEEDS_GEMM();
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 8},
                             {5, 1024},
                             {131, 1032},
                             {2113, 2040},
                             {1111, 25600},
                             {7, 65536}}) {
    const HostWeight w = host_weight(DType::kBf16, n, k, 21);
    const auto card = engine()->upload({&w.view, 1}, CudaWeightForm::kBf16).value();
    for (const Case& c : {Case{1, n, k}, Case{1, n, k, true, true, true, 8}}) {
      SCOPED_TRACE(describe(c));
      EXPECT_LT(error_of(*card, w.values, c), kBf16);
    }
  }
}

// Norm, product and SwiGLU as one call, by one kernel (one row, bf16) or by three.
double normed_error(const CudaWeight& w, const std::vector<float>& values, int64_t m, bool gated,
                    bool with_bias) {
  const int64_t k = w.k(), n = w.n(), outputs = gated ? n / 2 : n;
  const auto x = normal_values(m * k, 31, 3.0F), norm = normal_values(k, 32),
             bias = normal_values(n, 33);
  const float eps = 0.1F;
  std::vector<float> want;
  for (int64_t i = 0; i < m; ++i) {
    double squares = 0;
    for (int64_t j = 0; j < k; ++j) squares += double{x[i * k + j]} * x[i * k + j];
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(k) + eps);
    const auto product = [&](int64_t row) {
      double sum = with_bias ? bias[row] : 0.0F;
      for (int64_t j = 0; j < k; ++j) {
        sum += bf16_to_f32(f32_to_bf16(static_cast<float>(x[i * k + j] * scale * norm[j]))) *
               double{values[row * k + j]};
      }
      return sum;
    };
    for (int64_t row = 0; row < outputs; ++row) {
      const double v = product(row);
      want.push_back(
          static_cast<float>(gated ? v / (1 + std::exp(-v)) * product(row + outputs) : v));
    }
  }
  const CardArray<float> card_x(x), card_norm(norm), card_bias(bias);
  const CardArray<uint16_t> y(m * outputs), normed(m * k), gate_up(m * n);
  NormedGemmArgs args{.x = card_x.view(DType::kF32, {m, k}),
                      .norm = card_norm.view(DType::kF32, {k}),
                      .eps = eps,
                      .w = &w,
                      .y = y.view(DType::kBf16, {m, outputs}),
                      .gated = gated,
                      .normed = normed.view(DType::kBf16, {m, k}),
                      .gate_up = gate_up.view(DType::kBf16, {m, n})};
  if (with_bias) args.bias = card_bias.view(DType::kF32, {n});
  const Status status = engine()->run_normed(args);
  EXPECT_TRUE(status.ok()) << status.message();
  return relative_error(from_bf16(y.host()), want);
}

TEST(GemmCuda, NormedAndGated) {
  NEEDS_GEMM();
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{64, 64},
                             {1536, 576},
                             {2 * 1003, 4096},
                             {30, 8192},
                             {32, 16384}}) {
    for (const DType dtype : {DType::kBf16, DType::kQ8_0, DType::kQ4_1}) {
      const HostWeight w = host_weight(dtype, n, k, 22);
      const auto card = engine()->upload({&w.view, 1}, engine()->compact_form(dtype)).value();
      for (const int64_t m : {1, 2, 3, 11}) {
        SCOPED_TRACE(cat(dtype_name(dtype), " m=", m, " n=", n, " k=", k));
        EXPECT_LT(normed_error(*card, w.values, m, false, false), kBf16);
        EXPECT_LT(normed_error(*card, w.values, m, false, true), kBf16);
        EXPECT_LT(normed_error(*card, w.values, m, true, false), 2 * kBf16);
      }
    }
  }
  const HostWeight w = host_weight(DType::kBf16, 63, 64, 23);  // no two halves
  const auto card = engine()->upload({&w.view, 1}, CudaWeightForm::kBf16).value();
  const CardArray<float> x(64);
  NormedGemmArgs args{.x = x.view(DType::kF32, {1, 64}), .w = card.get(), .gated = true};
  args.y = x.view(DType::kBf16, {1, 31});
  EXPECT_EQ(engine()->run_normed(args).code(), Code::kInvalidArgument);
}

// Few rows of packed weights take a kernel of their own on Hopper: more tiles than blocks and
// fewer, ends within a tile and a unit, warps that share a tile, that begin amid one and end amid
// another.
TEST(GemmCuda, FewRowsOfPackedWeights) {
  NEEDS_GEMM();
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{33, 1024},
                             {31, 8192},
                             {2113, 1280},
                             {4500, 768},
                             {200, 25600},
                             {9000, 512}}) {
    for (const DType dtype : {DType::kQ4_K, DType::kQ8_0, DType::kQ6_K}) {
      const HostWeight w = host_weight(dtype, n, k, 24);
      const auto card = engine()->upload({&w.view, 1}, engine()->compact_form(dtype)).value();
      for (const int64_t m : {1, 2, 4, 5, 8, 13, 16}) {
        const Case c{m, n, k, m % 2 == 0, m % 3 == 1, m % 4 == 0, 8};
        SCOPED_TRACE(cat(dtype_name(dtype), " ", describe(c)));
        EXPECT_LT(error_of(*card, w.values, c), kBf16);
      }
    }
  }
}

// What is not finite in a row of x stays in that row, and is seen in all of it.
TEST(GemmCuda, PackedWeightsPassOnWhatIsNotFinite) {
  NEEDS_GEMM();
  const int64_t n = 256, k = 512, m = 3;
  for (const DType dtype : {DType::kQ4_1, DType::kQ8_0, DType::kQ6_K}) {
    const HostWeight w = host_weight(dtype, n, k, 25);
    const auto card = engine()->upload({&w.view, 1}, engine()->compact_form(dtype)).value();
    for (const float bad : {NAN, INFINITY}) {
      auto x = normal_values(m * k, 26);
      x[k + 77] = bad;
      const CardArray<uint16_t> card_x(to_bf16(x));
      const CardArray<float> y(m * n);
      ASSERT_TRUE(engine()
                      ->run({.x = card_x.view(DType::kBf16, {m, k}),
                             .w = card.get(),
                             .y = y.view(DType::kF32, {m, n})})
                      .ok());
      const auto got = y.host();
      for (int64_t i = 0; i < m * n; ++i) {
        ASSERT_EQ(std::isfinite(got[i]), i / n != 1) << dtype_name(dtype) << " at " << i;
      }
    }
  }
}

TEST(GemmCuda, BlockFormatsKeepTheirValues) {
  NEEDS_GEMM();
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                            DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    for (const CudaWeightForm form :
         {CudaWeightForm::kInt4G32, CudaWeightForm::kInt8G32, CudaWeightForm::kBf16}) {
      const int64_t n = 197, k = dtype_info(dtype).block_elems == 256 ? 1536 : 576;
      SCOPED_TRACE(cat(dtype_name(dtype), " as form ", static_cast<int>(form)));
      const HostWeight w = host_weight(dtype, n, k, 2);
      const auto card = engine()->upload({&w.view, 1}, form).value();
      check_all(*card, w.values, n, k, kBf16);
    }
  }
}

TEST(GemmCuda, FewRowsSumInF32) {
  NEEDS_GEMM();
  // With f32 results little is lost: bf16 weights exactly, codes but for the sums' rounding and x's
  // to 16 bits beside the largest of 32.
  const int64_t n = 96, k = 4096;
  for (const DType dtype : {DType::kBf16, DType::kQ8_0, DType::kQ4_1}) {
    const HostWeight w = host_weight(dtype, n, k, 3);
    const auto card = engine()->upload({&w.view, 1}, engine()->compact_form(dtype)).value();
    EXPECT_LT(error_of(*card, w.values, {.m = 3, .n = n, .k = k, .y_f32 = true}), 4e-5)
        << dtype_name(dtype);
  }
}

TEST(GemmCuda, PartsOfDifferentFormatsStackUp) {
  NEEDS_GEMM();
  const HostWeight q = host_weight(DType::kQ4_K, 96, 512, 4),
                   k = host_weight(DType::kQ4_0, 40, 512, 5),
                   v = host_weight(DType::kQ6_K, 48, 512, 6),
                   e = host_weight(DType::kF16, 8, 512, 7);
  const View parts[] = {q.view, k.view, v.view, e.view};
  std::vector<float> values;
  for (const HostWeight* w : {&q, &k, &v, &e}) {
    values.insert(values.end(), w->values.begin(), w->values.end());
  }
  for (const auto form :
       {CudaWeightForm::kInt4G32, CudaWeightForm::kInt8G32, CudaWeightForm::kBf16}) {
    const auto card = engine()->upload(parts, form).value();
    check_all(*card, values, 192, 512, kBf16);
    const std::vector<int32_t> ids{0, 191, 100, 140, 5000, -3, 96};
    const CardArray<int32_t> card_ids(ids);
    const CardArray<float> out(ids.size() * 512);
    ASSERT_TRUE(
        engine()->gather_rows(*card, card_ids.data(), 7, out.view(DType::kF32, {7, 512})).ok());
    std::vector<float> want;
    for (const int32_t id : ids) {
      const int row = id < 0 || id >= 192 ? 0 : id;
      want.insert(want.end(), values.begin() + row * 512, values.begin() + (row + 1) * 512);
    }
    EXPECT_LT(relative_error(out.host(), want), kBf16);
  }
}

TEST(GemmCuda, UploadInBf16IsTheReferencesValueRounded) {
  NEEDS_GEMM();
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                            DType::kQ5_1, DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const HostWeight w = host_weight(dtype, 64, 512, 8);
    const auto card = engine()->upload({&w.view, 1}, CudaWeightForm::kBf16).value();
    std::vector<int32_t> ids(64);
    for (int i = 0; i < 64; ++i) ids[i] = i;
    const CardArray<int32_t> card_ids(ids);
    const CardArray<float> out(64 * 512);
    ASSERT_TRUE(
        engine()->gather_rows(*card, card_ids.data(), 64, out.view(DType::kF32, {64, 512})).ok());
    EXPECT_EQ(out.host(), rounded(w.values)) << dtype_name(dtype);
  }
}

TEST(GemmCuda, Fp8IsAsGoodAsItsThreeBits) {
  NEEDS_GEMM();
  const int64_t n = 208, k = 512;
  const HostWeight w = host_weight(DType::kBf16, n, k, 9);
  const auto card = engine()->upload({&w.view, 1}, CudaWeightForm::kFp8);
  ASSERT_TRUE(card.ok()) << card.status().message();
  for (const int64_t m : {1, 9, 16, 17, 64, 100}) {
    for (const Case& c :
         {Case{m, n, k}, Case{m, n, k, true, true}, Case{m, n, k, true, false, true}}) {
      SCOPED_TRACE(describe(c));
      const double error = error_of(**card, w.values, c);
      EXPECT_LT(error, 0.06);
      EXPECT_GT(error, 1e-4);  // else it is not fp8
    }
  }
}

TEST(GemmCuda, SharedTilesSumTheSameEveryTime) {
  NEEDS_GEMM();
  const int64_t n = 64, k = 8192;  // few tiles, long K: every tile is summed by several blocks
  for (const auto form : {CudaWeightForm::kInt4G32, CudaWeightForm::kFp8}) {
    const auto w = engine()->random(n, k, form, 1, 0.05F).value();
    const CardArray<uint16_t> x(to_bf16(normal_values(5 * k, 10)));
    const CardArray<float> y(5 * n);
    std::vector<float> first;
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(engine()
                      ->run({.x = x.view(DType::kBf16, {5, k}),
                             .w = w.get(),
                             .y = y.view(DType::kF32, {5, n})})
                      .ok());
      if (i == 0) first = y.host();
      ASSERT_EQ(y.host(), first);
    }
    EXPECT_TRUE(std::all_of(first.begin(), first.end(), [](float v) { return std::isfinite(v); }));
  }
}

TEST(GemmCuda, RandomWeightsHaveTheirDeviation) {
  NEEDS_GEMM();
  for (const auto form : {CudaWeightForm::kBf16, CudaWeightForm::kFp8, CudaWeightForm::kInt8G32,
                          CudaWeightForm::kInt4G32}) {
    const auto w = engine()->random(64, 1024, form, 3, 0.02F).value();
    std::vector<int32_t> ids(64);
    for (int i = 0; i < 64; ++i) ids[i] = i;
    const CardArray<int32_t> card_ids(ids);
    const CardArray<float> out(64 * 1024);
    ASSERT_TRUE(
        engine()->gather_rows(*w, card_ids.data(), 64, out.view(DType::kF32, {64, 1024})).ok());
    double sum = 0.0, squares = 0.0;
    for (const float v : out.host()) sum += v, squares += double{v} * v;
    EXPECT_NEAR(std::sqrt(squares / 65536), 0.02, 0.001);
    EXPECT_NEAR(sum / 65536, 0.0, 0.001);
  }
}

TEST(GemmCuda, PrepareMeasuresAndBadShapesAreRefused) {
  NEEDS_GEMM();
  const auto w = engine()->random(256, 512, CudaWeightForm::kBf16, 4, 0.02F).value();
  ASSERT_TRUE(engine()->prepare(*w, 128, DType::kF32, true, true).ok());
  const CardArray<uint16_t> x(3 * 512), y(3 * 256);
  GemmCudaArgs args{
      .x = x.view(DType::kBf16, {3, 511}), .w = w.get(), .y = y.view(DType::kBf16, {3, 256})};
  EXPECT_EQ(engine()->run(args).code(), Code::kInvalidArgument);
  args.x = x.view(DType::kBf16, {3, 512});
  args.accumulate = true;
  EXPECT_EQ(engine()->run(args).code(), Code::kInvalidArgument);
  const HostWeight odd = host_weight(DType::kQ8_0, 4, 64, 1);
  const View parts[] = {odd.view, View(odd.bytes.data(), DType::kQ8_0, {4, 32})};
  EXPECT_EQ(engine()->upload(parts, CudaWeightForm::kBf16).code(), Code::kInvalidArgument);
  EXPECT_EQ(engine()->upload({}, CudaWeightForm::kBf16).code(), Code::kInvalidArgument);
}

// Needs no card: every unit belongs to one block, and blocks differ by one unit at most.
TEST(FewRowsPlan, WorkIsEven) {
  for (const auto form : {CudaWeightForm::kBf16, CudaWeightForm::kInt4G32}) {
    for (const int64_t m : {1, 3, 8, 16}) {
      for (const int64_t n : {1, 576, 5120, 151936}) {
        for (const int64_t k : {32, 576, 25600}) {
          const FewRowsPlan p = few_rows_plan(form, n, k, m, 132);
          const int64_t units = p.chunks * p.tiles;
          ASSERT_GE(p.grid, 1);
          ASSERT_LE(p.grid, 2 * 132);
          ASSERT_LE(p.grid, units);
          ASSERT_GE(p.chunks * unit_k(form), k);
          ASSERT_GE(p.tiles * kUnitRows * p.row_warps, n);
        }
      }
    }
  }
}

}  // namespace
}  // namespace rk::kernels
