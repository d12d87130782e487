#include "rag/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rk::rag {
namespace {

using Answers = std::vector<std::string>;

TEST(Metrics, AnswersAreNormalisedAsSquadDoes) {
  EXPECT_EQ(normalize_answer("  The Cat, an\tAPPLE!  "), "cat apple");
  EXPECT_EQ(normalize_answer("Theory of a-b"), "theory of ab");  // only whole articles go
  EXPECT_EQ(normalize_answer("ÉCOLE"), "école");
  EXPECT_EQ(normalize_answer("the"), "");
}

TEST(Metrics, ExactMatchTakesTheBestAnswer) {
  EXPECT_EQ(exact_match("The Exeter College.", Answers{"Oxford", "exeter college"}), 1);
  EXPECT_EQ(exact_match("Exeter", Answers{"Oxford", "exeter college"}), 0);
}

TEST(Metrics, F1CountsWordsWithRepeats) {
  // got {exeter, college, oxford}, want {exeter, college}: P 2/3, R 1, F1 0.8.
  EXPECT_DOUBLE_EQ(answer_f1("Exeter College, Oxford", Answers{"Exeter College"}), 0.8);
  // got {x, x}, want {x, y}: one common, P 1/2, R 1/2.
  EXPECT_DOUBLE_EQ(answer_f1("x x", Answers{"x y"}), 0.5);
  EXPECT_DOUBLE_EQ(answer_f1("nothing", Answers{"x y"}), 0);
  EXPECT_DOUBLE_EQ(answer_f1("", Answers{"x"}), 0);
  EXPECT_DOUBLE_EQ(answer_f1("a", Answers{"the"}), 1);  // both empty once normalised
}

TEST(Metrics, NeedlesAreWholeWords) {
  EXPECT_EQ(needle_score("It is 1234567.", Answers{"1234567"}), 1);
  EXPECT_EQ(needle_score("It is 1,234,567!", Answers{"1234567"}), 1);
  EXPECT_EQ(needle_score("It is 12345678", Answers{"1234567"}), 0);
  EXPECT_EQ(needle_score("91234567", Answers{"1234567"}), 0);
  EXPECT_EQ(needle_score("1234567,7654321", Answers{"1234567", "7654321"}), 1);
  EXPECT_EQ(needle_score("BAKOR, celvu", Answers{"BAKOR", "CELVU", "DIRAM", "ETOPI"}), 0.5);
  EXPECT_EQ(needle_score("", Answers{"1"}), 0);
}

TEST(Metrics, QuantilesAsNumpy) {
  const std::vector<double> v = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(quantile(v, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(v, 0.95), 3.85);
  EXPECT_DOUBLE_EQ(quantile(v, 1), 4);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
  EXPECT_DOUBLE_EQ(mean(v), 2.5);
}

TEST(Metrics, ClopperPearsonAgainstKnownBounds) {
  // No hit: 1 - 0.05^(1/n).
  EXPECT_NEAR(rate_upper_bound(0, 59), 1 - std::pow(0.05, 1.0 / 59), 1e-12);
  EXPECT_LE(rate_upper_bound(0, 59), 0.05);
  EXPECT_GT(rate_upper_bound(0, 58), 0.05);
  EXPECT_LE(rate_upper_bound(0, 299), 0.01);
  EXPECT_GT(rate_upper_bound(0, 298), 0.01);
  // All but one of two: P(X <= 1) = 1 - p^2 = 0.05.
  EXPECT_NEAR(rate_upper_bound(1, 2), std::sqrt(0.95), 1e-12);
  // Beta(0.95; 3, 8), from tables of the beta distribution.
  EXPECT_NEAR(rate_upper_bound(2, 10), 0.50690, 1e-5);
  EXPECT_EQ(rate_upper_bound(5, 5), 1);
  EXPECT_EQ(rate_upper_bound(0, 0), 1);
}

TEST(Metrics, BootstrapIsSeededAndCovers) {
  std::vector<double> values;
  for (int i = 0; i < 100; ++i) values.push_back(i);
  const Interval a = bootstrap(values, mean, 7), b = bootstrap(values, mean, 7);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_NE(a.low, bootstrap(values, mean, 8).low);
  // sd 28.87 / sqrt(100) = 2.887; 1.96 of them around 49.5.
  EXPECT_NEAR(a.low, 49.5 - 5.66, 0.6);
  EXPECT_NEAR(a.high, 49.5 + 5.66, 0.6);
  const std::vector<double> same(5, 2.0);
  EXPECT_EQ(bootstrap(same, mean, 1).low, 2.0);
  EXPECT_TRUE(std::isnan(bootstrap({}, mean, 1).high));
}

}  // namespace
}  // namespace rk::rag
