#include "base/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace rk {
namespace {

TEST(Divergence, KlMatchesTheFormula) {
  const auto logs = [](std::vector<double> p) {
    std::vector<float> out;
    for (const double x : p) out.push_back(static_cast<float>(std::log(x)));
    return out;
  };
  const auto p = logs({0.5, 0.25, 0.25}), q = logs({0.25, 0.25, 0.5});
  EXPECT_NEAR(kl_divergence(p, q), 0.25 * std::log(2.0), 1e-7);  // .5 ln 2 - .25 ln 2
  EXPECT_EQ(kl_divergence(p, p), 0);
  const std::vector<float> broken(p.size(), std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(std::isnan(kl_divergence(broken, p)));
  EXPECT_TRUE(std::isnan(kl_divergence(p, broken)));
  const auto sure = logs({1, 0, 0});
  EXPECT_NEAR(kl_divergence(sure, p), std::log(2.0), 1e-7);
  EXPECT_EQ(kl_divergence(p, sure), std::numeric_limits<double>::infinity());
  EXPECT_EQ(most_likely(q), 2);
  EXPECT_EQ(most_likely(std::vector<float>{1, 3, 3}), 1);
}

}  // namespace
}  // namespace rk
