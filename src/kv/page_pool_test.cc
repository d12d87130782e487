#include "kv/page_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <utility>

namespace rk::kv {
namespace {

constexpr int64_t kPageBytes = 2 * 16 * 8 * 2;

std::unique_ptr<PagePool> make_pool(int64_t num_pages, DType dtype = DType::kF16) {
  const PagePool::Options one{.page_rows = 16, .head_dim = 8, .dtype = dtype};
  auto pool = PagePool::create({.capacity_bytes = num_pages * PagePool::page_bytes(one),
                                .page_rows = 16,
                                .head_dim = 8,
                                .dtype = dtype});
  EXPECT_TRUE(pool.ok()) << pool.status().message();
  return std::move(pool).value();
}

TEST(PagePool, AllocateIsAllOrNone) {
  auto pool = make_pool(4);
  EXPECT_EQ(pool->num_pages(), 4);
  EXPECT_EQ(pool->page_bytes(), kPageBytes);
  std::vector<PageId> ids{-7};
  ASSERT_TRUE(pool->allocate(2, ids).ok());
  EXPECT_THAT(ids, testing::ElementsAre(-7, 0, 1));
  const Status s = pool->allocate(3, ids);
  EXPECT_EQ(s.code(), Code::kExhausted);
  EXPECT_EQ(s.message(), "page pool: 3 pages wanted, 2 free");
  EXPECT_EQ(ids.size(), 3U);
  EXPECT_EQ(pool->num_free(), 2);
  EXPECT_EQ(pool->allocate(-1, ids).code(), Code::kInvalidArgument);
  pool->release(0);
  pool->release(1);
  EXPECT_EQ(pool->num_free(), 4);
}

TEST(PagePool, TheLastPageFreedIsTheNextOneHandedOut) {
  auto pool = make_pool(4);
  std::vector<PageId> ids;
  ASSERT_TRUE(pool->allocate(3, ids).ok());
  pool->release(0);
  pool->release(2);
  ids.clear();
  ASSERT_TRUE(pool->allocate(3, ids).ok());
  EXPECT_THAT(ids, testing::ElementsAre(2, 0, 3));
  for (const PageId id : {0, 1, 2, 3}) pool->release(id);
}

TEST(PagePool, APageIsFreeWhenItsLastShareIsReleased) {
  auto pool = make_pool(1);
  std::vector<PageId> ids;
  ASSERT_TRUE(pool->allocate(1, ids).ok());
  pool->retain(0);
  EXPECT_EQ(pool->refcount(0), 2);
  pool->release(0);
  EXPECT_EQ(pool->num_free(), 0);
  pool->release(0);
  EXPECT_EQ(pool->refcount(0), 0);
  EXPECT_EQ(pool->num_free(), 1);
}

TEST(PagePool, PagesDoNotOverlapAndAreRowsOfTheWholeView) {
  for (const DType dtype : {DType::kF16, DType::kBf16, DType::kF32}) {
    auto pool = make_pool(3, dtype);
    std::vector<PageId> ids;
    ASSERT_TRUE(pool->allocate(3, ids).ok());
    for (const PageId id : ids) {
      for (int row = 0; row < 16; ++row) {
        pool->k(id).set(id * 16 + row, row, 7);
        pool->v(id).set(-id * 16 - row - 1, row, 7);
      }
    }
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(pool->k_pages().at(i, 15, 7), i * 16 + 15);
      EXPECT_EQ(pool->v_pages().at(i, 0, 7), -i * 16 - 1);
      EXPECT_EQ(pool->k_pages().at(i, 0, 0), 0.0);  // fresh memory reads zero
    }
    pool->copy_page(0, 2);
    EXPECT_EQ(pool->k(2).at(3, 7), 3);
    EXPECT_EQ(pool->v(2).at(15, 7), -16);
    EXPECT_EQ(pool->k(1).at(0, 7), 16);
    EXPECT_TRUE(pool->take_copies().empty());  // done, not noted: this is host memory
    for (const PageId id : ids) pool->release(id);
  }
}

TEST(PagePool, BadOptionsAreRefused) {
  const auto code = [](PagePool::Options o) { return PagePool::create(o).code(); };
  EXPECT_EQ(code({.capacity_bytes = 100}), Code::kInvalidArgument);
  EXPECT_EQ(code({.capacity_bytes = -1}), Code::kInvalidArgument);
  EXPECT_EQ(code({.capacity_bytes = 1 << 20, .page_rows = 0}), Code::kInvalidArgument);
  EXPECT_EQ(code({.capacity_bytes = 1 << 20, .head_dim = -4}), Code::kInvalidArgument);
  EXPECT_EQ(code({.capacity_bytes = 1 << 20, .dtype = DType::kQ4_0}), Code::kInvalidArgument);
  EXPECT_EQ(code({.capacity_bytes = INT64_MAX, .page_rows = 1, .head_dim = 1}),
            Code::kInvalidArgument);
}

TEST(PageList, GivesItsSharesBack) {
  auto pool = make_pool(4);
  {
    PageList list(*pool);
    ASSERT_TRUE(list.grow(3).ok());
    EXPECT_EQ(list.grow(2).code(), Code::kExhausted);
    EXPECT_EQ(list.size(), 3U);
    PageList other(*pool);
    other.push_shared(list[1]);
    other.push_owned(kNoPage);
    EXPECT_TRUE(list.is_shared(1));
    EXPECT_FALSE(list.is_shared(0));
    list.drop(1);
    EXPECT_EQ(list[1], kNoPage);
    EXPECT_EQ(list.num_held(), 2);
    EXPECT_EQ(pool->num_free(), 1);  // the other list still holds the page
    list = std::move(other);
    EXPECT_EQ(pool->num_free(), 3);
    EXPECT_EQ(list.size(), 2U);
  }
  EXPECT_EQ(pool->num_free(), 4);
}

TEST(PageList, PopsAndReplaces) {
  auto pool = make_pool(4);
  PageList list(*pool);
  ASSERT_TRUE(list.grow(3).ok());
  list.pop_front(1);
  EXPECT_THAT(std::vector<PageId>(list.ids().begin(), list.ids().end()),
              testing::ElementsAre(1, 2));
  std::vector<PageId> fresh;
  ASSERT_TRUE(pool->allocate(1, fresh).ok());
  EXPECT_EQ(fresh[0], 0);
  list.replace(0, fresh[0]);
  EXPECT_EQ(list[0], 0);
  EXPECT_EQ(pool->refcount(1), 0);
  EXPECT_EQ(list.num_held(), 2);
  list.truncate(1);
  EXPECT_EQ(pool->num_used(), 1);
  list.clear();
  EXPECT_EQ(list.num_held(), 0);
  EXPECT_EQ(pool->num_used(), 0);
}

// Random shares given and taken: the pool's counts equal those of a plain count per page.
TEST(PageList, CountsHoldUnderChurn) {
  auto pool = make_pool(32);
  std::mt19937 rng(7);
  std::vector<PageList> lists;
  for (int step = 0; step < 3000; ++step) {
    const auto pick = [&] { return rng() % lists.size(); };
    switch (lists.empty() ? 0 : rng() % 5) {
      case 0: {
        PageList list(*pool);
        if (list.grow(rng() % 6).ok()) lists.push_back(std::move(list));
        break;
      }
      case 1: {
        PageList copy(*pool);
        for (const PageId id : lists[pick()].ids()) copy.push_shared(id);
        lists.push_back(std::move(copy));
        break;
      }
      case 2:
        std::swap(lists[pick()], lists.back());
        lists.pop_back();
        break;
      case 3:
        if (PageList& list = lists[pick()]; !list.empty()) list.drop(rng() % list.size());
        break;
      default:
        lists[pick()].truncate(rng() % 3);
    }
    std::vector<int> shares(32);
    for (const PageList& list : lists) {
      int64_t held = 0;
      for (const PageId id : list.ids()) {
        if (id == kNoPage) continue;
        ++shares[static_cast<size_t>(id)];
        ++held;
      }
      ASSERT_EQ(list.num_held(), held);
    }
    int used = 0;
    for (PageId id = 0; id < 32; ++id) {
      ASSERT_EQ(pool->refcount(id), shares[static_cast<size_t>(id)]) << "step " << step;
      used += shares[static_cast<size_t>(id)] > 0;
    }
    ASSERT_EQ(pool->num_used(), used);
  }
}

}  // namespace
}  // namespace rk::kv
