#include "kv/quant_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace rk::kv {
namespace {

constexpr int kLayers = 2, kKvHeads = 2, kHeads = kLayers * kKvHeads, kRows = 37, kDim = 64;
constexpr RowFormat kFormats[] = {RowFormat::kInt8, RowFormat::kK8V4, RowFormat::kFp8};

std::unique_ptr<PagePool> make_pool(int64_t num_pages, DType dtype = DType::kF16) {
  PagePool::Options options{.page_rows = 16, .head_dim = kDim, .dtype = dtype};
  options.capacity_bytes = num_pages * PagePool::page_bytes(options);
  return PagePool::create(options).value();
}

const kernels::RopeTable& table() {
  static const kernels::RopeTable rope = [] {
    std::vector<double> inv_freq;
    for (int i = 0; i < kDim / 2; ++i) inv_freq.push_back(std::pow(1e4, -2.0 * i / kDim));
    return kernels::RopeTable::create(inv_freq, 64, 1.0, kernels::RopePairs::kHalfSplit).value();
  }();
  return rope;
}

/// Noise; K with `constant` [kLayers][kKvHeads * kDim] rotated to each row's index added.
std::shared_ptr<const FrameRows> random_rows(PagePool& pool,
                                             const std::vector<std::vector<float>>& constant = {}) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<std::vector<PageId>> pages(kHeads);
  for (int h = 0; h < kHeads; ++h) {
    auto& list = pages[static_cast<size_t>(h)];
    EXPECT_TRUE(pool.allocate(3, list).ok());
    for (int32_t row = 0; row < kRows; ++row) {
      std::vector<float> k(kDim);
      if (!constant.empty()) {
        const auto* c = constant[static_cast<size_t>(h / kKvHeads)].data() + h % kKvHeads * kDim;
        k.assign(c, c + kDim);
        kernels::Context ctx;
        EXPECT_TRUE(
            rope(View(k.data(), DType::kF32, {1, 1, kDim}), &row, table().view(), ctx).ok());
      }
      for (int d = 0; d < kDim; ++d) {
        pool.k(list[size_t(row / 16)]).set(k[size_t(d)] + normal(random), row % 16, d);
        pool.v(list[size_t(row / 16)]).set(normal(random), row % 16, d);
      }
    }
  }
  return std::make_shared<FrameRows>(pool, 0, kRows, std::move(pages));
}

/// Root mean square of a - b over K, or over V.
double difference(const PagePool& pool, const FrameRows& a, const FrameRows& b, bool of_k) {
  double sum = 0;
  for (int h = 0; h < kHeads; ++h) {
    for (int row = 0; row < kRows; ++row) {
      const auto page = static_cast<size_t>(row / 16);
      for (int d = 0; d < kDim; ++d) {
        const View x = of_k ? pool.k(a.pages(h)[page]) : pool.v(a.pages(h)[page]);
        const View y = of_k ? pool.k(b.pages(h)[page]) : pool.v(b.pages(h)[page]);
        sum += std::pow(x.at(row % 16, d) - y.at(row % 16, d), 2);
      }
    }
  }
  return std::sqrt(sum / (kHeads * kRows * kDim));
}

// Noise of one, so these are relative errors. An int4 step is 1/15 of about four.
TEST(QuantRows, ComeBackWithinEachFormatsError) {
  for (const RowFormat format : kFormats) {
    SCOPED_TRACE(row_format_name(format));
    auto pool = make_pool(6 * kHeads);
    const auto rows = random_rows(*pool);
    kernels::Context ctx;
    RowCoder coder{.ctx = &ctx};
    const auto at_rest = QuantRows::quantise(*pool, *rows, format, coder);
    ASSERT_TRUE(at_rest.ok()) << at_rest.status().message();
    const auto back = (*at_rest)->expand(*pool, coder);
    ASSERT_TRUE(back.ok()) << back.status().message();
    const double k = difference(*pool, *rows, **back, true);
    const double v = difference(*pool, *rows, **back, false);
    EXPECT_LT(k, format == RowFormat::kFp8 ? 0.03 : 0.008);
    EXPECT_LT(v, format == RowFormat::kK8V4 ? 0.1 : format == RowFormat::kFp8 ? 0.03 : 0.008);
    EXPECT_GT(std::min(k, v), 0.001);
    const auto again = (*at_rest)->expand(*pool, coder);
    EXPECT_EQ(again.status().code(), Code::kExhausted);  // three times the rows do not fit
    EXPECT_EQ(pool->num_used(), 6 * kHeads);
  }
}

TEST(QuantRows, TakeTheBytesTheySay) {
  auto pool = make_pool(3 * kHeads);
  const auto rows = random_rows(*pool);
  kernels::Context ctx;
  RowCoder coder{.ctx = &ctx};
  const int64_t full = rows->num_pages() * pool->page_bytes();
  for (const auto& [format, least] :
       {std::pair{RowFormat::kInt8, 1.9}, {RowFormat::kK8V4, 2.4}, {RowFormat::kFp8, 1.9}}) {
    const auto at_rest = QuantRows::quantise(*pool, *rows, format, coder).value();
    EXPECT_EQ(at_rest->num_bytes(), at_rest->num_pages() * quant_page_bytes(format, 16, kDim));
    EXPECT_EQ(at_rest->num_pages(), rows->num_pages());
    EXPECT_GT(static_cast<double>(full) / static_cast<double>(at_rest->num_bytes()), least);
  }
}

// A key bias far above the rest takes up the codes unless it is left out.
TEST(QuantRows, LeavingTheKeyBiasOutHelps) {
  std::mt19937 random(9);
  std::normal_distribution<float> normal(0, 60);
  std::vector<std::vector<float>> constant(kLayers);
  for (auto& layer : constant) {
    for (int i = 0; i < kKvHeads * kDim; ++i) layer.push_back(normal(random));
  }
  for (const RowFormat format : kFormats) {
    SCOPED_TRACE(row_format_name(format));
    auto pool = make_pool(9 * kHeads, DType::kF32);
    const auto rows = random_rows(*pool, constant);
    kernels::Context ctx;
    std::vector<float> all = constant[0];
    all.insert(all.end(), constant[1].begin(), constant[1].end());
    RowCoder none{.ctx = &ctx}, bias{.key_bias = all.data(), .rope = table().view(), .ctx = &ctx};
    const auto error = [&](RowCoder& coder, bool of_k) {
      const auto at_rest = QuantRows::quantise(*pool, *rows, format, coder).value();
      return difference(*pool, *rows, *at_rest->expand(*pool, coder).value(), of_k);
    };
    EXPECT_LT(error(bias, true), format == RowFormat::kFp8 ? 0.03 : 0.008);
    EXPECT_GT(error(none, true), 10 * error(bias, true));
    EXPECT_EQ(error(none, false), error(bias, false));
  }
}

TEST(QuantRows, FormatsHaveNamesAndNeeds) {
  for (const char* name : {"auto", "int8", "k8v4", "fp8"}) {
    EXPECT_STREQ(row_format_name(parse_row_format(name).value()), name);
  }
  EXPECT_EQ(parse_row_format("int4").status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(check_row_format(RowFormat::kK8V4, 128).ok());
  EXPECT_TRUE(check_row_format(RowFormat::kInt8, 80).ok());
  EXPECT_EQ(check_row_format(RowFormat::kK8V4, 80).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_row_format(RowFormat::kInt8, 4096).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::kv
