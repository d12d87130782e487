#include "kv/recovery_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>

namespace rk::kv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr RecoveryMode kModes[] = {RecoveryMode::kDense, RecoveryMode::kPrefix,
                                   RecoveryMode::kReuse, RecoveryMode::kBoundary,
                                   RecoveryMode::kTargets};

// A lead of 10 rows, two documents of 40 and 20, a question of 5.
std::vector<PlanSpan> prompt() {
  return {{.num_rows = 10},
          {.num_rows = 40, .segment = true},
          {.num_rows = 20, .segment = true, .relocated = true},
          {.num_rows = 5}};
}

RecoveryPlan planned(const std::vector<PlanSpan>& spans, RecoveryMode mode, int k = 0) {
  auto plan = plan_recovery(spans, mode, k);
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  return std::move(plan).value();
}

bool same(const RecoveryPlan& a, const RecoveryPlan& b) { return a.positions() == b.positions(); }

TEST(RecoveryPlan, ReuseComputesOnlyFreshRows) {
  const RecoveryPlan plan = planned(prompt(), RecoveryMode::kReuse);
  EXPECT_THAT(plan.spans[0].active, ElementsAre(RowRange{0, 10}));
  EXPECT_THAT(plan.spans[1].active, IsEmpty());
  EXPECT_THAT(plan.spans[3].active, ElementsAre(RowRange{0, 5}));
  EXPECT_EQ(plan.spans[2].offset, 50);
  EXPECT_EQ(plan.spans[3].offset, 70);
  EXPECT_EQ(plan.counts, (RecoveryCounts{0, 60, 0, 15, 20}));
  EXPECT_EQ(plan.num_active, 15);
  EXPECT_EQ(plan.positions().back(), 74);
}

TEST(RecoveryPlan, BoundaryComputesTheFirstRowsOfEachSegment) {
  const RecoveryPlan plan = planned(prompt(), RecoveryMode::kBoundary, 32);
  EXPECT_THAT(plan.spans[1].active, ElementsAre(RowRange{0, 32}));
  EXPECT_THAT(plan.spans[2].active, ElementsAre(RowRange{0, 20}));
  EXPECT_EQ(plan.counts, (RecoveryCounts{0, 8, 52, 15, 0}));
}

TEST(RecoveryPlan, DenseAndPrefixUseNoSegmentRows) {
  EXPECT_EQ(planned(prompt(), RecoveryMode::kDense).counts, (RecoveryCounts{0, 0, 0, 75, 0}));
  EXPECT_EQ(planned(prompt(), RecoveryMode::kPrefix).counts, (RecoveryCounts{0, 0, 0, 75, 0}));
  auto spans = prompt();
  spans[0].prefix_rows = 10;
  spans[1].prefix_rows = 16;
  EXPECT_EQ(planned(spans, RecoveryMode::kPrefix).counts, (RecoveryCounts{26, 0, 0, 49, 0}));
  EXPECT_THAT(planned(spans, RecoveryMode::kPrefix).spans[1].active, ElementsAre(RowRange{16, 40}));
  EXPECT_EQ(planned(spans, RecoveryMode::kDense).counts, (RecoveryCounts{0, 0, 0, 75, 0}));
  EXPECT_EQ(planned(spans, RecoveryMode::kReuse).counts, (RecoveryCounts{26, 44, 0, 5, 20}));
  EXPECT_EQ(planned(spans, RecoveryMode::kBoundary, 20).counts, (RecoveryCounts{26, 20, 24, 5, 0}));
}

TEST(RecoveryPlan, ExactRowsAreNeverTargets) {
  auto spans = prompt();
  spans[1].exact = true;
  const RowRange all[] = {{0, 40}};
  spans[1].targets = all;
  for (const RecoveryMode mode : {RecoveryMode::kPrefix, RecoveryMode::kReuse,
                                  RecoveryMode::kBoundary, RecoveryMode::kTargets}) {
    EXPECT_THAT(planned(spans, mode, 8).spans[1].active, IsEmpty());
    EXPECT_GE(planned(spans, mode, 8).counts.document_cached, 40);
  }
  EXPECT_EQ(planned(spans, RecoveryMode::kDense).num_active, 75);
}

TEST(RecoveryPlan, TargetsAreAnyRowsOfASegment) {
  auto spans = prompt();
  const RowRange chosen[] = {{0, 16}, {16, 20}, {32, 40}};
  spans[1].targets = chosen;
  const RecoveryPlan plan = planned(spans, RecoveryMode::kTargets);
  EXPECT_THAT(plan.spans[1].active, ElementsAre(RowRange{0, 20}, RowRange{32, 40}));
  EXPECT_EQ(plan.counts, (RecoveryCounts{0, 32, 28, 15, 20}));
}

// Spec A5: selective(1) = dense, selective(0) = boundary(0) = reuse, boundary of everything =
// dense, no segments = dense. Here: as sets of rows.
TEST(RecoveryPlan, LawsOfTheModes) {
  const auto spans = prompt();
  auto everything = spans, nothing_stored = spans;
  const RowRange first[] = {{0, 40}}, second[] = {{0, 20}};
  everything[1].targets = first;
  everything[2].targets = second;
  for (PlanSpan& s : nothing_stored) s.segment = false;
  const RecoveryPlan dense = planned(spans, RecoveryMode::kDense);
  EXPECT_TRUE(same(planned(everything, RecoveryMode::kTargets), dense));
  EXPECT_TRUE(same(planned(spans, RecoveryMode::kBoundary, 1000), dense));
  EXPECT_TRUE(same(planned(spans, RecoveryMode::kTargets), planned(spans, RecoveryMode::kReuse)));
  EXPECT_TRUE(same(planned(spans, RecoveryMode::kBoundary), planned(spans, RecoveryMode::kReuse)));
  for (const RecoveryMode mode : kModes) {
    EXPECT_TRUE(same(planned(nothing_stored, mode, 4), dense));
  }
}

TEST(RecoveryPlan, ASegmentComputedForThisRequestKeepsFreshRows) {
  auto spans = prompt();
  spans[2].ingested = true;
  EXPECT_EQ(planned(spans, RecoveryMode::kReuse).counts, (RecoveryCounts{0, 40, 0, 35, 0}));
  EXPECT_EQ(planned(spans, RecoveryMode::kBoundary, 8).counts, (RecoveryCounts{0, 32, 16, 27, 0}));
  // A hit and the miss before it compute the same rows.
  EXPECT_TRUE(same(planned(spans, RecoveryMode::kBoundary, 8),
                   planned(prompt(), RecoveryMode::kBoundary, 8)));
}

TEST(RecoveryPlan, TheLastRowIsAlwaysActive) {
  auto spans = prompt();
  spans.pop_back();
  RecoveryPlan plan = planned(spans, RecoveryMode::kReuse);
  EXPECT_THAT(plan.spans[2].active, ElementsAre(RowRange{19, 20}));
  EXPECT_EQ(plan.counts, (RecoveryCounts{0, 59, 1, 10, 19}));
  spans.push_back({.num_rows = 0});  // an empty span behind changes nothing
  EXPECT_EQ(planned(spans, RecoveryMode::kReuse).counts, plan.counts);
  EXPECT_THAT(planned(spans, RecoveryMode::kBoundary, 19).spans[2].active,
              ElementsAre(RowRange{0, 20}));

  std::vector<PlanSpan> cached = {{.num_rows = 8, .prefix_rows = 8},
                                  {.num_rows = 4, .segment = true, .prefix_rows = 4}};
  for (const RecoveryMode mode : {RecoveryMode::kPrefix, RecoveryMode::kReuse}) {
    plan = planned(cached, mode);
    EXPECT_EQ(plan.counts, (RecoveryCounts{11, 0, 0, 1, 0}));
    EXPECT_THAT(plan.positions(), ElementsAre(11));
  }
}

TEST(RecoveryPlan, BadInputIsRefused) {
  const auto code = [](const std::vector<PlanSpan>& spans, RecoveryMode mode, int k) {
    return plan_recovery(spans, mode, k).code();
  };
  EXPECT_EQ(code({}, RecoveryMode::kDense, 0), Code::kInvalidArgument);
  EXPECT_EQ(code({{.num_rows = 0}}, RecoveryMode::kDense, 0), Code::kInvalidArgument);
  EXPECT_EQ(code({{.num_rows = -1}, {.num_rows = 5}}, RecoveryMode::kDense, 0),
            Code::kInvalidArgument);
  EXPECT_EQ(code(prompt(), RecoveryMode::kBoundary, -1), Code::kInvalidArgument);
  EXPECT_EQ(code({{.num_rows = 4, .prefix_rows = 5}}, RecoveryMode::kPrefix, 0),
            Code::kInvalidArgument);
  EXPECT_EQ(code({{.num_rows = 4, .prefix_rows = 3}, {.num_rows = 4, .prefix_rows = 1}},
                 RecoveryMode::kPrefix, 0),
            Code::kInvalidArgument);
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(code({{.num_rows = kMost}, {.num_rows = 1}}, RecoveryMode::kReuse, 0),
            Code::kInvalidArgument);
  for (const std::vector<RowRange>& targets :
       {std::vector<RowRange>{{5, 5}}, {{-1, 3}}, {{0, 41}}, {{8, 16}, {0, 8}}, {{0, 8}, {7, 9}}}) {
    auto spans = prompt();
    spans[1].targets = targets;
    EXPECT_EQ(code(spans, RecoveryMode::kTargets, 0), Code::kInvalidArgument);
  }
}

// Whatever the prompt: counts are disjoint and complete, ranges well formed, the last row active.
TEST(RecoveryPlan, RandomPromptsKeepTheInvariants) {
  std::mt19937 rng(3);
  for (int trial = 0; trial < 5000; ++trial) {
    std::vector<PlanSpan> spans(1 + rng() % 6);
    std::vector<std::vector<RowRange>> targets(spans.size());
    bool whole = true;
    int64_t num_rows = 0;
    for (size_t i = 0; i < spans.size(); ++i) {
      PlanSpan& s = spans[i];
      s.num_rows = static_cast<int32_t>(rng() % 40);
      s.segment = rng() % 2;
      s.exact = s.segment && rng() % 3 == 0;
      s.ingested = s.segment && rng() % 3 == 0;
      s.relocated = rng() % 2;
      if (whole && rng() % 2) {
        s.prefix_rows = rng() % 2 ? s.num_rows : static_cast<int32_t>(rng() % (s.num_rows + 1));
      }
      whole = whole && s.prefix_rows == s.num_rows;
      for (int32_t row = 0; row < s.num_rows;) {
        const int32_t end =
            std::min<int32_t>(s.num_rows, row + 1 + static_cast<int32_t>(rng() % 9));
        if (rng() % 2) targets[i].push_back({row, end});
        row = end;
      }
      s.targets = targets[i];
      num_rows += s.num_rows;
    }
    if (num_rows == 0) continue;
    for (const RecoveryMode mode : kModes) {
      const RecoveryPlan plan = planned(spans, mode, static_cast<int>(rng() % 20));
      const RecoveryCounts& c = plan.counts;
      ASSERT_EQ(c.prefix_cached + c.document_cached + c.recomputed + c.fresh, num_rows);
      for (const int64_t n : {c.prefix_cached, c.document_cached, c.recomputed, c.fresh}) {
        ASSERT_GE(n, 0);
      }
      ASSERT_LE(c.relocated, c.document_cached);
      const std::vector<int32_t> positions = plan.positions();
      ASSERT_EQ(static_cast<int64_t>(positions.size()), plan.num_active);
      ASSERT_TRUE(std::ranges::adjacent_find(positions, std::greater_equal{}) == positions.end());
      ASSERT_EQ(positions.back(), num_rows - 1);
      for (size_t i = 0; i < spans.size(); ++i) {
        const std::vector<RowRange>& active = plan.spans[i].active;
        for (size_t r = 0; r < active.size(); ++r) {
          ASSERT_LT(active[r].begin, active[r].end);
          ASSERT_LE(active[r].end, spans[i].num_rows);
          ASSERT_TRUE(r == 0 || active[r - 1].end < active[r].begin);
        }
      }
    }
  }
}

}  // namespace
}  // namespace rk::kv
