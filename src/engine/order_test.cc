#include "engine/order.h"

#include <gmock/gmock.h>

#include <set>

namespace rk::engine {
namespace {

using testing::ElementsAre;

const std::vector<int32_t> kRows{10, 20, 30, 40};

/// `exact`: whole chains that are stored; `pairs`: {before, document}.
PlaceFitFn stored(std::set<std::vector<int>> exact, std::set<std::pair<int, int>> pairs = {}) {
  return [=](std::span<const int> before, int next) {
    std::vector<int> chain(before.begin(), before.end());
    chain.push_back(next);
    if (exact.contains(chain)) return PlaceFit::kExact;
    if (!before.empty() && pairs.contains({before.back(), next})) return PlaceFit::kPredecessor;
    return PlaceFit::kNone;
  };
}

TEST(BestOrder, NothingStoredKeepsTheOrder) {
  EXPECT_THAT(best_order(kRows, stored({})), ElementsAre(0, 1, 2, 3));
  EXPECT_TRUE(best_order({}, stored({})).empty());
  EXPECT_THAT(best_order(std::vector<int32_t>{5}, stored({{0}})), ElementsAre(0));
}

TEST(BestOrder, AStoredPromptIsFound) {
  // All of them could stand first: only the whole chain tells.
  EXPECT_THAT(best_order(kRows, stored({{0}, {1}, {2}, {3}, {2, 0}, {2, 0, 3}, {2, 0, 3, 1}})),
              ElementsAre(2, 0, 3, 1));
}

TEST(BestOrder, PairsAreKeptTogether) {
  EXPECT_THAT(best_order(kRows, stored({}, {{3, 1}, {1, 0}})), ElementsAre(3, 1, 0, 2));
  // Equal ones: the given order.
  EXPECT_THAT(best_order(std::vector<int32_t>{7, 7}, stored({}, {{0, 1}, {1, 0}})),
              ElementsAre(0, 1));
}

TEST(BestOrder, RowsCountNotDocumentsThenExactOnes) {
  EXPECT_THAT(best_order(std::vector<int32_t>{1, 1, 50}, stored({}, {{0, 1}, {1, 2}, {2, 0}})),
              ElementsAre(0, 1, 2));
  EXPECT_THAT(best_order(std::vector<int32_t>{5, 5}, stored({{1, 0}}, {{0, 1}})),
              ElementsAre(1, 0));
}

TEST(BestOrder, ManyDocumentsAreBounded) {
  int asked = 0;
  const auto count = [&](std::span<const int>, int) { return ++asked, PlaceFit::kNone; };
  const std::vector<int32_t> few(kMaxOrderedDocuments, 3), many(kMaxOrderedDocuments + 1, 3);
  EXPECT_EQ(best_order(few, count).size(), few.size());
  EXPECT_LT(asked, 40000);
  asked = 0;
  EXPECT_EQ(best_order(many, count).size(), many.size());
  EXPECT_EQ(asked, 0);
}

}  // namespace
}  // namespace rk::engine
