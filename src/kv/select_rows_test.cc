#include "kv/select_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rk::kv {
namespace {

using Targets = std::vector<std::vector<RowRange>>;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Targets choose(const std::vector<SelectSpan>& spans, const std::vector<double>& scores,
               double ratio, double block_share = 1) {
  auto out = select_rows(spans, scores, ratio, block_share);
  EXPECT_TRUE(out.ok()) << out.status().message();
  return out.ok() ? *out : Targets();
}

int64_t num_rows(const Targets& targets) {
  int64_t rows = 0;
  for (const auto& ranges : targets) {
    for (const RowRange& r : ranges) rows += r.num_rows();
  }
  return rows;
}

// Lead, a document of 40 rows, fresh text, an exact document, one of 20, the question.
std::vector<SelectSpan> prompt() {
  return {{7, false}, {40, true}, {5, false}, {30, false}, {20, true}, {9, false}};
}
std::vector<double> flat(double score = 1) { return std::vector<double>(111, score); }

TEST(SelectRows, TheHighestBlockIsTakenWhole) {
  auto scores = flat();
  scores[7 + 37] = 100;  // row 37 of the first document: its short last block, rows 32..40
  EXPECT_EQ(choose(prompt(), scores, 0.01), (Targets{{}, {{32, 40}}, {}, {}, {}, {}}));
  scores[82 + 3] = 300;  // row 3 of the second: 300/16 beats 100/8
  EXPECT_EQ(choose(prompt(), scores, 0.01), (Targets{{}, {}, {}, {}, {{0, 16}}, {}}));
  EXPECT_EQ(choose(prompt(), scores, 0.30), (Targets{{}, {{32, 40}}, {}, {}, {{0, 16}}, {}}));
}

// 100/16 is less than 60/8: means decide, not sums.
TEST(SelectRows, AShortBlockCountsByItsMean) {
  std::vector<double> scores(111, 0);
  scores[7 + 2] = 100;
  scores[7 + 32] = 60;
  EXPECT_EQ(choose(prompt(), scores, 0.01), (Targets{{}, {{32, 40}}, {}, {}, {}, {}}));
}

TEST(SelectRows, TiesGoToTheLowerPosition) {
  // N = 60; 18 rows wanted: blocks 0 and 1 of the first document, joined.
  EXPECT_EQ(choose(prompt(), flat(), 0.3), (Targets{{}, {{0, 32}}, {}, {}, {}, {}}));
  EXPECT_EQ(choose(prompt(), flat(), 0.7), (Targets{{}, {{0, 40}}, {}, {}, {{0, 16}}, {}}));
}

TEST(SelectRows, AtLeastTheRatioAndNoBlockMore) {
  for (const double ratio : {0.01, 0.15, 0.25, 0.5, 0.75, 0.99}) {
    const Targets targets = choose(prompt(), flat(), ratio);
    EXPECT_GE(num_rows(targets), std::ceil(ratio * 60)) << ratio;
    EXPECT_LT(num_rows(targets), std::ceil(ratio * 60) + 16) << ratio;
    EXPECT_EQ(num_rows(choose(prompt(), flat(), ratio, 0)), std::ceil(ratio * 60)) << ratio;
  }
}

// 0.15 * 60 is a hair above 9 or below in binary; nine rows are what was asked for.
TEST(SelectRows, RoundingAsksForNoFurtherRow) {
  EXPECT_EQ(num_rows(choose(prompt(), flat(), 0.15, 0)), 9);
  const std::vector<SelectSpan> hundred{{100, true}};
  for (int percent = 1; percent < 100; ++percent) {
    EXPECT_EQ(num_rows(choose(hundred, flat(), percent / 100.0, 0)), percent);
  }
  EXPECT_EQ(num_rows(choose(hundred, flat(), 1e-9, 0)), 1);
  EXPECT_EQ(num_rows(choose(hundred, flat(), 0.5001, 0)), 51);
}

TEST(SelectRows, NoneAndAllNeedNoScores) {
  EXPECT_EQ(choose(prompt(), {}, 0), (Targets{{}, {}, {}, {}, {}, {}}));
  EXPECT_EQ(choose(prompt(), {}, 1), (Targets{{}, {{0, 40}}, {}, {}, {{0, 20}}, {}}));
}

TEST(SelectRows, OnlyCandidatesAreChosen) {
  auto scores = flat();
  for (int i = 0; i < 111; ++i) {
    if (i < 7 || (i >= 47 && i < 82) || i >= 102) scores[static_cast<size_t>(i)] = 1e9;
  }
  const Targets targets = choose(prompt(), scores, 0.9);
  for (const size_t i : {0, 2, 3, 5}) EXPECT_TRUE(targets[i].empty()) << i;
  EXPECT_GE(num_rows(targets), 54);
  EXPECT_EQ(num_rows(choose({{50, false}}, flat(), 0.5)), 0);
  EXPECT_EQ(num_rows(choose({}, {}, 0.5)), 0);
}

TEST(SelectRows, RowsOneByOne) {
  auto scores = flat();
  scores[7 + 39] = 5;
  scores[7 + 3] = 4;
  scores[7 + 4] = 3;
  scores[82] = 2;
  EXPECT_EQ(choose(prompt(), scores, 4.0 / 60, 0),
            (Targets{{}, {{3, 5}, {39, 40}}, {}, {}, {{0, 1}}, {}}));
}

// The best block by its mean, then the best rows elsewhere, one of them behind the block.
TEST(SelectRows, HalfInBlocksHalfOneByOne) {
  auto scores = flat();
  for (int i = 16; i < 32; ++i) scores[static_cast<size_t>(7 + i)] = 4;
  scores[7 + 3] = 9;
  scores[7 + 32] = 5;
  scores[82 + 19] = 7;
  EXPECT_EQ(choose(prompt(), scores, 19.0 / 60, 0.5),
            (Targets{{}, {{3, 4}, {16, 33}}, {}, {}, {{19, 20}}, {}}));
  EXPECT_EQ(choose(prompt(), scores, 3.0 / 60, 0),
            (Targets{{}, {{3, 4}, {32, 33}}, {}, {}, {{19, 20}}, {}}));
  for (const double ratio : {0.01, 0.15, 0.25, 0.5, 0.75, 0.99}) {
    const int64_t rows = num_rows(choose(prompt(), flat(), ratio, 0.5));
    EXPECT_GE(rows, std::ceil(ratio * 60)) << ratio;
    EXPECT_LT(rows, std::ceil(ratio * 60) + (ratio < 0.5 ? 16 : 1)) << ratio;
  }
}

TEST(SelectRows, ScoresThatAreNoNumbersComeLast) {
  auto scores = flat();
  for (int i = 0; i < 32; ++i) scores[static_cast<size_t>(7 + i)] = kNan;
  EXPECT_EQ(choose(prompt(), scores, 0.4), (Targets{{}, {{32, 40}}, {}, {}, {{0, 16}}, {}}));
  EXPECT_EQ(num_rows(choose(prompt(), flat(kNan), 0.99)), 60);
}

TEST(SelectRows, BadArgumentsAreNamed) {
  for (const double ratio : {-0.1, 1.1, kNan, double{INFINITY}}) {
    const auto out = select_rows(prompt(), flat(), ratio);
    ASSERT_FALSE(out.ok()) << ratio;
    EXPECT_THAT(out.status().message(), testing::HasSubstr("0 to 1"));
  }
  EXPECT_FALSE(select_rows(prompt(), flat(), 0.5, -0.1).ok());
  EXPECT_FALSE(select_rows(prompt(), flat(), 0.5, 1.1).ok());
  EXPECT_FALSE(select_rows(prompt(), flat(), 0.5, kNan).ok());
  EXPECT_FALSE(select_rows(prompt(), std::vector<double>(110), 0.5).ok());
  const std::vector<SelectSpan> negative{{-1, true}};
  EXPECT_FALSE(select_rows(negative, flat(), 0.5).ok());
}

}  // namespace
}  // namespace rk::kv
