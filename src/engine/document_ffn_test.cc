#include "engine/document_ffn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace rk::engine {
namespace {

std::vector<int32_t> range(int32_t begin, int32_t end) {
  std::vector<int32_t> out(static_cast<size_t>(end - begin));
  std::iota(out.begin(), out.end(), begin);
  return out;
}

// Ends of the steps of 16 rows that all rows from `first` on run in.
std::vector<int32_t> ends(const DocumentFfn& ffn, int32_t first, int32_t num_rows) {
  const auto active = range(first, num_rows);
  std::vector<int32_t> out;
  for (size_t at = 0; at < active.size();) {
    at = ffn.cut(active, at, std::min(at + 16, active.size()));
    out.push_back(first + static_cast<int32_t>(at));
  }
  return out;
}

TEST(DocumentFfn, StretchesDoNotDependOnTheStepsBefore) {
  const DocumentFfn ffn{.threshold = 0.5, .documents = {{5, 45}, {45, 50}, {60, 70}}};
  EXPECT_THAT(ends(ffn, 0, 80), testing::ElementsAre(5, 21, 37, 53, 60, 76, 80));
  EXPECT_THAT(ends(ffn, 4, 80), testing::ElementsAre(5, 21, 37, 53, 60, 76, 80));
  EXPECT_THAT(ends(DocumentFfn{}, 0, 40), testing::ElementsAre(16, 32, 40));
}

TEST(DocumentFfn, AStepKnowsItsDocumentRows) {
  DocumentFfn ffn{.threshold = 0.5, .dense_layers = 3, .recent_rows = 4, .documents = {{5, 45}}};
  model::SparseFfn step;
  EXPECT_FALSE(ffn.in_step(range(0, 5), step));
  EXPECT_FALSE(ffn.in_step(range(45, 50), step));
  ASSERT_TRUE(ffn.in_step(range(37, 53), step));
  EXPECT_EQ(step.threshold, 0.5);
  EXPECT_EQ(step.dense_layers, 3);
  ASSERT_EQ(step.stretches.size(), 1U);
  EXPECT_EQ(step.stretches[0].begin, 0);
  EXPECT_EQ(step.stretches[0].kept_begin, 4);
  EXPECT_EQ(step.stretches[0].end, 8);
  ASSERT_TRUE(ffn.in_step(range(3, 19), step));
  EXPECT_EQ(step.stretches[0].begin, 2);
  EXPECT_EQ(step.stretches[0].kept_begin, 16);
  EXPECT_EQ(step.stretches[0].end, 16);
}

}  // namespace
}  // namespace rk::engine
