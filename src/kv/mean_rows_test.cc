#include "kv/mean_rows.h"

#include <gtest/gtest.h>

#include <random>

namespace rk::kv {
namespace {

constexpr int kHeads = 3, kRows = 21, kDim = 8;

std::unique_ptr<PagePool> make_pool(int64_t num_pages, DType dtype) {
  PagePool::Options options{.page_rows = 16, .head_dim = kDim, .dtype = dtype};
  options.capacity_bytes = num_pages * PagePool::page_bytes(options);
  return PagePool::create(options).value();
}

std::shared_ptr<const FrameRows> random_rows(PagePool& pool, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<std::vector<PageId>> pages(kHeads);
  for (auto& list : pages) {
    EXPECT_TRUE(pool.allocate(2, list).ok());
    for (int row = 0; row < kRows; ++row) {
      for (int d = 0; d < kDim; ++d) {
        pool.k(list[size_t(row / 16)]).set(normal(random), row % 16, d);
        pool.v(list[size_t(row / 16)]).set(normal(random), row % 16, d);
      }
    }
  }
  return std::make_shared<FrameRows>(pool, 0, kRows, std::move(pages));
}

TEST(MeanRows, IsTheMeanOfEveryElement) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    auto pool = make_pool(kHeads * 2 * 4, dtype);
    const std::vector<std::shared_ptr<const FrameRows>> from{
        random_rows(*pool, 1), random_rows(*pool, 2), random_rows(*pool, 3)};
    const auto mean = mean_rows(*pool, from);
    ASSERT_TRUE(mean.ok()) << mean.status().message();
    const double within = dtype == DType::kF32 ? 1e-6 : dtype == DType::kF16 ? 1e-3 : 1e-2;
    for (int h = 0; h < kHeads; ++h) {
      for (int row = 0; row < kRows; ++row) {
        for (int d = 0; d < kDim; ++d) {
          double k = 0, v = 0;
          for (const auto& rows : from) {
            k += pool->k(rows->pages(h)[size_t(row / 16)]).at(row % 16, d) / 3;
            v += pool->v(rows->pages(h)[size_t(row / 16)]).at(row % 16, d) / 3;
          }
          const PageId page = mean.value()->pages(h)[size_t(row / 16)];
          ASSERT_NEAR(pool->k(page).at(row % 16, d), k, within);
          ASSERT_NEAR(pool->v(page).at(row % 16, d), v, within);
        }
      }
    }
  }
}

TEST(MeanRows, APoolTooSmallIsExhaustedAndUnchanged) {
  auto pool = make_pool(kHeads * 2 + 5, DType::kF32);
  const std::vector<std::shared_ptr<const FrameRows>> from{random_rows(*pool, 1)};
  EXPECT_EQ(mean_rows(*pool, from).status().code(), Code::kExhausted);
  EXPECT_EQ(pool->num_free(), 5);
}

}  // namespace
}  // namespace rk::kv
