#include "model/sparse_ffn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace rk::model {
namespace {

using testing::ElementsAre;

// Spec 11.3.
constexpr double kImportance[] = {4, 1, 3, 2, 8, .5, 1.5, 5, 2.2, 2.8};

TEST(SelectFfnRows, TakesTheSharesOfTheSpecification) {
  EXPECT_THAT(select_ffn_rows(kImportance, 0.5, 2), ElementsAre(0, 4, 7, 8, 9));
  EXPECT_THAT(select_ffn_rows(kImportance, 0.2, 2), ElementsAre(4, 8, 9));
  EXPECT_THAT(select_ffn_rows(kImportance, 0.05, 0), ElementsAre(4));
  EXPECT_THAT(select_ffn_rows(kImportance, 0.6, 1), ElementsAre(0, 2, 4, 7, 9));
  EXPECT_THAT(select_ffn_rows(kImportance, 0.85, 0), ElementsAre(0, 2, 3, 4, 7, 8, 9));
  EXPECT_EQ(select_ffn_rows(kImportance, 1, 0).size(), 10U);
}

TEST(SelectFfnRows, ConcentrationDecidesTheShare) {
  const std::vector<double> flat(12000, 1.0);
  const auto share = [&](double threshold) {
    return static_cast<double>(select_ffn_rows(flat, threshold, 128).size()) / 12000;
  };
  EXPECT_NEAR(share(0.05), 0.0606, 1e-3);
  EXPECT_NEAR(share(0.2), 0.2106, 1e-3);
  EXPECT_NEAR(share(0.5), 0.5106, 1e-3);
}

TEST(SelectFfnRows, TiesGoToTheLowerRowAndNothingIsGuessed) {
  EXPECT_THAT(select_ffn_rows(std::vector<double>{2, 2, 2, 2}, 0.5, 0), ElementsAre(0, 1));
  EXPECT_THAT(select_ffn_rows(std::vector<double>{0, 0, 0}, 0.5, 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(select_ffn_rows(std::vector<double>{1, NAN, 2}, 0.1, 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(select_ffn_rows(std::vector<double>{1, INFINITY}, 0.1, 0), ElementsAre(0, 1));
  EXPECT_THAT(select_ffn_rows(std::vector<double>{1, 3}, 0.1, 5), ElementsAre(0, 1));
  EXPECT_TRUE(select_ffn_rows({}, 0.5, 128).empty());
}

TEST(FfnRows, OnlyStretchesLoseRows) {
  SparseFfn sparse{.threshold = 0.5, .dense_layers = 0, .stretches = {{1, 4, 4}, {6, 10, 8}}};
  // Ranked alone: rows 1..3 by 1, 3, 2 and rows 6..9 by 1.5, 5, 2.2, 2.8.
  EXPECT_THAT(ffn_rows(sparse, kImportance), ElementsAre(0, 2, 4, 5, 7, 8, 9));
}

}  // namespace
}  // namespace rk::model
