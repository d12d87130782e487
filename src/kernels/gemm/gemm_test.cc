#include "kernels/gemm/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "tensor/quant_block.h"

namespace rk::kernels {
namespace {

constexpr DType kBlockDtypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                  DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
constexpr DType kPlainDtypes[] = {DType::kF32, DType::kF16, DType::kBf16};

struct Part {
  DType dtype;
  int64_t n;
};

/// Weights, activations and a place for results.
struct Case {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<View> parts;
  std::vector<float> x, bias;
  int64_t m, n = 0, k, x_stride;

  /// `exact`: activations that int8 with one scale per 32 holds without loss, so that the only
  /// difference to the reference is the order of sums.
  Case(std::vector<Part> shape, int64_t rows, int64_t features, bool exact, uint32_t seed = 1)
      : m(rows), k(features), x_stride(features + 3) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (const Part& p : shape) {
      std::vector<float> values(static_cast<size_t>(p.n * k));
      for (float& v : values) v = 0.05F * normal(random) + 0.01F;
      bytes.emplace_back(static_cast<size_t>(dtype_bytes(p.dtype, p.n * k)));
      quantize(p.dtype, values.data(), bytes.back().data(), p.n * k);
      parts.emplace_back(bytes.back().data(), p.dtype, std::initializer_list<int64_t>{p.n, k});
      n += p.n;
    }
    x.assign(static_cast<size_t>(m * x_stride), NAN);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        float& v = x[static_cast<size_t>(i * x_stride + j)];
        v = normal(random);
        if (!exact) continue;
        v = j % 32 == 7 ? 127.0F : std::round(std::clamp(v * 40.0F, -127.0F, 127.0F));
        v *= j / 32 % 2 ? 0.5F : 0.03125F;
      }
    }
    bias.resize(static_cast<size_t>(n));
    for (float& v : bias) v = normal(random);
  }

  View x_view() {
    View v(x.data(), DType::kF32, {m, k});
    v.stride[0] = x_stride;
    return v;
  }
};

std::unique_ptr<PackedWeight> pack(const Case& c, const std::string& variant, ThreadPool* pool) {
  const ForcedVariants forced = {{"gemm", variant}};
  Context ctx{.pool = pool, .forced = &forced};
  auto packed = pack_weight(c.parts, ctx);
  EXPECT_TRUE(packed.ok()) << packed.status().message();
  if (!packed.ok()) return nullptr;
  EXPECT_EQ((*packed)->variant(), variant);
  return std::move(packed).value();
}

struct Options {
  bool bias = false, accumulate = false;
  int64_t y_pad = 0;
  ThreadPool* pool = nullptr;
};

std::vector<float> multiply(Case& c, const PackedWeight& w, const Options& o) {
  const int64_t stride = c.n + o.y_pad;
  std::vector<float> y(static_cast<size_t>(c.m * stride), 0.75F);
  View y_view(y.data(), DType::kF32, {c.m, c.n});
  y_view.stride[0] = stride;
  Context ctx{.pool = o.pool};
  GemmArgs args{.x = c.x_view(), .w = &w, .y = y_view, .accumulate = o.accumulate};
  if (o.bias) args.bias = View(c.bias.data(), DType::kF32, {c.n});
  const Status status = gemm(args, ctx);
  EXPECT_TRUE(status.ok()) << status.message();
  return y;
}

double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double diff = 0, norm = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    diff += std::pow(double{got[i]} - double{want[i]}, 2);
    norm += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(diff / norm);
}

std::vector<std::string> fast_variants() {
  std::vector<std::string> names = gemm_variants();
  EXPECT_EQ(names.back(), "ref");
  names.pop_back();
  return names;
}

void compare(std::vector<Part> shape, int64_t m, int64_t k, bool exact, double bound,
             Options o = {}) {
  Case c(shape, m, k, exact);
  const auto ref = pack(c, "ref", nullptr);
  ASSERT_TRUE(ref);
  const std::vector<float> want = multiply(c, *ref, o);
  for (const std::string& variant : fast_variants()) {
    const auto fast = pack(c, variant, o.pool);
    ASSERT_TRUE(fast);
    const double error = relative_error(multiply(c, *fast, o), want);
    EXPECT_LE(error, bound) << variant << " " << dtype_name(shape[0].dtype) << " M=" << m
                            << " N=" << c.n << " K=" << k << " exact=" << exact;
  }
}

TEST(Gemm, BlockFormatsWithExactActivations) {
  for (const DType dtype : kBlockDtypes) {
    const bool super = dtype_info(dtype).block_elems == 256;
    for (int64_t m = 1; m <= 17; ++m) compare({{dtype, 45}}, m, super ? 512 : 96, true, 2e-6);
    for (const int64_t k :
         super ? std::vector<int64_t>{256, 768, 1536} : std::vector<int64_t>{32, 64, 576, 1088}) {
      compare({{dtype, 1}}, 1, k, true, 5e-6);
      compare({{dtype, 32}}, 7, k, true, 5e-6);
      compare({{dtype, 70}}, 3, k, true, 5e-6);
    }
  }
}

TEST(Gemm, BlockFormatsWithRandomActivations) {
  for (const DType dtype : kBlockDtypes) {
    compare({{dtype, 100}}, 1, 1024, false, 1e-4);
    compare({{dtype, 100}}, 20, 1024, false, 1e-4);
  }
}

TEST(Gemm, PlainFormatsAndOddFeatures) {
  for (const DType dtype : kPlainDtypes) {
    for (const int64_t k : {1, 5, 33, 191, 193, 577}) {
      for (const int64_t m : {1, 2, 6, 7, 13}) compare({{dtype, 37}}, m, k, false, 1e-6);
    }
  }
}

TEST(Gemm, StackedPartsBiasAccumulateStrides) {
  ThreadPool pool(2);
  const std::vector<std::vector<Part>> stacks = {
      {{DType::kQ4_K, 64}, {DType::kQ4_K, 7}, {DType::kQ6_K, 9}},
      {{DType::kQ8_0, 3}, {DType::kQ4_1, 50}, {DType::kF16, 33}, {DType::kQ5_0, 40}},
      {{DType::kF32, 20}, {DType::kQ5_1, 64}, {DType::kF32, 20}},
      {{DType::kQ4_0, 5}, {DType::kQ4_0, 64}, {DType::kQ4_0, 5}},
  };
  for (const auto& stack : stacks) {
    for (const int64_t m : {1, 5, 30}) {
      for (const bool bias : {false, true}) {
        for (const bool accumulate : {false, true}) {
          compare(stack, m, 512, true, 5e-6, {bias, accumulate, 11, &pool});
        }
      }
    }
  }
}

TEST(Gemm, PaddingBetweenResultRowsStays) {
  Case c({{DType::kQ4_1, 40}}, 9, 64, false);
  for (const std::string& variant : gemm_variants()) {
    const auto w = pack(c, variant, nullptr);
    const std::vector<float> y = multiply(c, *w, {.y_pad = 5});
    for (size_t m = 0; m < 9; ++m) {
      for (size_t i = 40; i < 45; ++i) EXPECT_EQ(y[m * 45 + i], 0.75F) << variant;
    }
  }
}

TEST(Gemm, ThreadsDoNotChangeABit) {
  ThreadPool one(1), two(2), three(3);
  for (const DType dtype : {DType::kQ4_1, DType::kQ6_K, DType::kF16}) {
    for (const int64_t m : {1, 40}) {
      Case c({{dtype, 300}}, m, 768, false);
      for (const std::string& variant : gemm_variants()) {
        const auto w = pack(c, variant, &two);
        const std::vector<float> want = multiply(c, *w, {});
        for (ThreadPool* pool : {&one, &two, &three}) {
          EXPECT_EQ(multiply(c, *w, {.pool = pool}), want) << variant << " " << dtype_name(dtype);
        }
      }
    }
  }
}

TEST(Gemm, ARowDoesNotDependOnItsNeighbours) {
  for (const DType dtype : {DType::kQ4_K, DType::kQ8_0, DType::kBf16}) {
    Case many({{dtype, 64}}, 600, 768, false);  // more rows than are taken at once
    for (const std::string& variant : fast_variants()) {
      const auto w = pack(many, variant, nullptr);
      const std::vector<float> all = multiply(many, *w, {});
      for (const int64_t row : {0, 5, 517, 599}) {
        Case one = many;
        one.m = 1;
        one.x.assign(many.x.begin() + row * many.x_stride,
                     many.x.begin() + (row + 1) * many.x_stride);
        const std::vector<float> alone = multiply(one, *w, {});
        EXPECT_EQ(0, std::memcmp(alone.data(), all.data() + row * many.n, alone.size() * 4))
            << variant << " " << dtype_name(dtype) << " row " << row;
      }
    }
  }
}

TEST(Gemm, UnpackedRowsAreTheFileValues) {
  std::vector<Part> stack;
  for (const DType dtype : kBlockDtypes) stack.push_back({dtype, 33});
  for (const DType dtype : kPlainDtypes) stack.push_back({dtype, 33});
  Case c(stack, 1, 512, false);
  for (const std::string& variant : gemm_variants()) {
    const auto w = pack(c, variant, nullptr);
    std::vector<float> got(512), want(512);
    for (int64_t row = 0; row < c.n; ++row) {
      const View& part = c.parts[static_cast<size_t>(row / 33)];
      dequantize(part.dtype, part.rows(row % 33, row % 33 + 1).data, want.data(), 512);
      unpack_row(*w, row, got.data());
      ASSERT_LE(relative_error(got, want), 1e-6) << variant << " " << part.describe() << " " << row;
    }
  }
}

TEST(Gemm, PackedIsAboutTheFilesSize) {
  for (const DType dtype : kBlockDtypes) {
    Case c({{dtype, 64}}, 1, 1024, false);
    for (const std::string& variant : fast_variants()) {
      const auto w = pack(c, variant, nullptr);
      EXPECT_LE(static_cast<double>(w->num_bytes()), 1.05 * static_cast<double>(c.bytes[0].size()))
          << variant << " " << dtype_name(dtype);
    }
  }
}

TEST(Gemm, PartsAreReportedAsRead) {
  Case c({{DType::kQ4_0, 8}, {DType::kQ8_0, 8}}, 1, 32, false);
  Context ctx;
  std::vector<const void*> seen;
  ASSERT_TRUE(pack_weight(c.parts, ctx, [&](const View& v) { seen.push_back(v.data); }).ok());
  EXPECT_EQ(seen, (std::vector<const void*>{c.parts[0].data, c.parts[1].data}));
}

TEST(Gemm, ErrorsNameBothNumbers) {
  Context ctx;
  std::vector<float> v(64 * 64);
  const View good(v.data(), DType::kF32, {4, 64}), other(v.data(), DType::kF32, {4, 32});
  const View ragged(v.data(), DType::kQ4_K, {4, 128}), ints(v.data(), DType::kI8, {4, 64});
  EXPECT_EQ(pack_weight({}, ctx).code(), Code::kInvalidArgument);
  const View two[] = {good, other};
  const auto mixed = pack_weight(two, ctx);
  EXPECT_EQ(mixed.code(), Code::kInvalidArgument);
  EXPECT_NE(mixed.status().message().find("K is 32, the first part's is 64"), std::string::npos)
      << mixed.status().message();
  EXPECT_EQ(pack_weight({&ragged, 1}, ctx).code(), Code::kInvalidArgument);
  EXPECT_EQ(pack_weight({&ints, 1}, ctx).code(), Code::kInvalidArgument);

  const ForcedVariants forced = {{"gemm", "fastest"}};
  Context wrong{.forced = &forced};
  EXPECT_EQ(pack_weight({&good, 1}, wrong).code(), Code::kInvalidArgument);

  const auto w = std::move(pack_weight({&good, 1}, ctx)).value();
  GemmArgs args{.x = View(v.data(), DType::kF32, {2, 32}),
                .w = w.get(),
                .y = View(v.data(), DType::kF32, {2, 4})};
  EXPECT_EQ(gemm(args, ctx).code(), Code::kInvalidArgument);
  args.x = View(v.data(), DType::kF32, {3, 64});
  EXPECT_EQ(gemm(args, ctx).code(), Code::kInvalidArgument);
  args.y = View(v.data() + 1024, DType::kF32, {3, 4});
  args.bias = View(v.data(), DType::kF32, {5});
  EXPECT_EQ(gemm(args, ctx).code(), Code::kInvalidArgument);
  args.bias = View();
  EXPECT_TRUE(gemm(args, ctx).ok());
}

}  // namespace
}  // namespace rk::kernels
