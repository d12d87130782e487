#include "kv/visible.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace rk::kv {
namespace {

using testing::ElementsAre;

HeadPlan one_head(HeadPolicy policy) { return HeadPlan::from_policies(1, 1, {policy}).value(); }
HeadPlan local(int32_t sink, int32_t window) { return one_head({HeadClass::kLocal, window, sink}); }

std::vector<int> seen(const Visible& v, int q_pos) {
  std::vector<int> out;
  for (int j = -1; j <= q_pos + 2; ++j) {
    if (sees(v, q_pos, j)) out.push_back(j);
  }
  return out;
}

TEST(Visible, LocalHeadsSeeSinkAndWindow) {
  EXPECT_THAT(seen(visible(local(2, 3), 0, 0), 9), ElementsAre(0, 1, 7, 8, 9));
  EXPECT_THAT(seen(visible(local(2, 3), 0, 0), 3), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(seen(visible(local(0, 3), 0, 0), 9), ElementsAre(7, 8, 9));
  EXPECT_THAT(seen(visible(local(2, 0), 0, 0), 9), ElementsAre(0, 1));
  EXPECT_EQ(seen(visible(local(4, 8), 0, 0), 9).size(), 10U);
}

TEST(Visible, OtherClassesSeeEverything) {
  for (const HeadClass cls : {HeadClass::kGlobal, HeadClass::kDense, HeadClass::kRetrieval}) {
    const Visible v = visible(one_head({cls, 3, 2}), 0, 0);
    EXPECT_TRUE(v.everything()) << head_class_name(cls);
    EXPECT_EQ(seen(v, 9).size(), 10U);
  }
}

TEST(Visible, TheModelsSlidingWindowIntersectsThePlans) {
  const HeadPlan global = HeadPlan::all_global(1, 1);
  EXPECT_EQ(visible(global, 0, 0, 4), (Visible{.sink = 0, .window = 4}));
  EXPECT_EQ(visible(global, 0, 0, 0), Visible{});
  EXPECT_EQ(visible(local(2, 8), 0, 0, 4), (Visible{.sink = 0, .window = 4}));
  EXPECT_EQ(visible(local(0, 3), 0, 0, 4), (Visible{.sink = 0, .window = 3}));
  for (const int32_t sink : {0, 1, 5}) {
    for (const int32_t window : {1, 3, 6, 7, 20}) {
      for (const int32_t model : {1, 4, 7}) {
        const Visible plan = visible(local(sink, window), 0, 0);
        const Visible both = visible(local(sink, window), 0, 0, model);
        for (int p = 0; p < 24; ++p) {
          for (int j = 0; j <= p; ++j) {
            ASSERT_EQ(sees(both, p, j), sees(plan, p, j) && j > p - model)
                << "sink " << sink << " window " << window << " model " << model;
          }
        }
      }
    }
  }
}

Visible random_visible(std::mt19937& rng) {
  const auto pick = [&](int bound) { return static_cast<int32_t>(rng() % bound); };
  const int32_t model = rng() % 3 == 0 ? 1 + pick(40) : -1;
  if (rng() % 4 == 0) return visible(HeadPlan::all_global(1, 1), 0, 0, model);
  return visible(local(pick(20), 1 + pick(30)), 0, 0, model);
}

// kept_ranges by its definition: a row is kept iff some query from next on sees it, or it stands
// after them (a row not yet seen by its own query).
TEST(KeptRanges, HoldExactlyWhatAFutureQueryCanSee) {
  std::mt19937 rng(11);
  for (int trial = 0; trial < 3000; ++trial) {
    const Visible v = random_visible(rng);
    const int offset = static_cast<int>(rng() % 60), rows = static_cast<int>(rng() % 50);
    const int next = static_cast<int>(rng() % 140);
    const RowRanges kept = kept_ranges(v, offset, rows, next);
    int64_t count = 0;
    for (int i = 0; i < rows; ++i) {
      bool wanted = false;
      for (int p = next; p < 260 && !wanted; ++p) wanted = sees(v, p, offset + i);
      ASSERT_EQ(kept.contains(i), wanted)
          << "row " << i << " offset " << offset << " next " << next << " sink " << v.sink
          << " window " << v.window << " limit " << v.limit;
      count += wanted;
    }
    ASSERT_EQ(kept.num_rows(), count);
    ASSERT_LE(kept.size(), 2U);
    ASSERT_TRUE(kept.size() < 2 || kept[0].end < kept[1].begin);
    std::set<int> pages;
    for (int i = 0; i < rows; ++i) {
      if (kept.contains(i)) pages.insert(i / 8);
    }
    ASSERT_EQ(kept_pages(v, offset, rows, next, 8), static_cast<int64_t>(pages.size()));
  }
}

TEST(KeptRanges, KeepNothingTwice) {
  EXPECT_THAT(kept_ranges({.sink = 4, .window = 8}, 0, 20, 20),
              ElementsAre(RowRange{0, 4}, RowRange{13, 20}));
  EXPECT_THAT(kept_ranges({.sink = 4, .window = 8}, 0, 20, 11), ElementsAre(RowRange{0, 20}));
  EXPECT_TRUE(kept_ranges({.sink = 4, .window = 8}, 10, 20, 100).empty());
  EXPECT_THAT(kept_ranges({}, 10, 20, 100), ElementsAre(RowRange{0, 20}));
  EXPECT_THAT(kept_ranges({.sink = 1 << 30, .window = 1 << 30}, 0, 20, 1 << 30),
              ElementsAre(RowRange{0, 20}));
}

TEST(Footprint, MatchesTheWorkedExample) {  // 80 layers x (1 global + 7 local), W 256, s 4
  std::vector<HeadPolicy> heads;
  for (int i = 0; i < 80 * 8; ++i) {
    heads.push_back(i % 8 == 0 ? HeadPolicy{} : HeadPolicy{HeadClass::kLocal, 256, 4});
  }
  const HeadPlan plan = HeadPlan::from_policies(80, 8, heads).value();
  const Footprint f = footprint(plan, 16000, 128, DType::kBf16, 16);
  EXPECT_EQ(f.dense_rows, 80 * 128000);
  EXPECT_EQ(f.head_aware_rows, 80 * 17820);
  EXPECT_EQ(f.dense_bytes, int64_t{80} * 128000 * 512);
  // 16000 rows end at a page's edge: 16 pages of window and one of sinks.
  EXPECT_EQ(f.head_aware_bytes, int64_t{80} * (1000 + 7 * 17) * 16 * 512);
}

TEST(Footprint, AllGlobalIsDenseAndShortPromptsSaveNothing) {
  for (const int64_t tokens : {0, 1, 16, 17, 1000}) {
    const Footprint f = footprint(HeadPlan::all_global(3, 2), tokens, 64, DType::kF16, 16);
    EXPECT_EQ(f.dense_bytes, f.head_aware_bytes);
    EXPECT_EQ(f.dense_bytes, 6 * ((tokens + 15) / 16) * 2 * 16 * 64 * 2);
    EXPECT_EQ(f.dense_rows, 6 * tokens);
  }
  const Footprint f = footprint(local(4, 100), 50, 64, DType::kF16, 16);
  EXPECT_EQ(f.dense_bytes, f.head_aware_bytes);
  const std::vector<int32_t> windows{32};
  EXPECT_EQ(
      footprint(HeadPlan::all_global(1, 1), 1000, 64, DType::kF16, 16, windows).head_aware_rows,
      32);
}

}  // namespace
}  // namespace rk::kv
