#include "kernels/seg_attn/seg_attn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/seg_attn/seg_attn_testing.h"

namespace rk::kernels {
namespace {

using attn_testing::Problem;
using attn_testing::Shape;

constexpr float kInf = std::numeric_limits<float>::infinity();

double distance(const std::vector<float>& got, const std::vector<float>& want) {
  double diff = 0.0, norm = 1e-30;
  for (size_t i = 0; i < got.size(); ++i) {
    diff += std::pow(double{got[i]} - want[i], 2);
    norm += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(diff / norm);
}

void expect_same_lse(const std::vector<float>& got, const std::vector<float>& want) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (want[i] == -kInf) {
      ASSERT_EQ(got[i], -kInf) << i;
    } else {
      ASSERT_NEAR(got[i], want[i], 2e-5 * (1.0 + std::abs(want[i]))) << i;
    }
  }
}

// Every variant that runs here against the reference.
void expect_all_agree(Problem& problem) {
  const std::vector<float> want = problem.solve("ref");
  const std::vector<float> want_lse = problem.lse();
  for (const auto& variant : seg_attn_variants()) {
    if (!variant.runs_here() || !variant.supports(problem.args)) continue;
    SCOPED_TRACE(variant.name);
    EXPECT_LE(distance(problem.solve(variant.name), want), 1e-5);
    expect_same_lse(problem.lse(), want_lse);
  }
}

std::vector<int32_t> range(int32_t begin, int32_t end, int32_t step = 1) {
  std::vector<int32_t> out;
  for (int32_t i = begin; i < end; i += step) out.push_back(i);
  return out;
}

class SegAttnShapes : public testing::TestWithParam<Shape> {};

// Lead, two documents at offsets (one starts inside a page), fresh rows; a gap of positions.
void add_document_head(Problem& p, int32_t sink, int32_t window) {
  p.add_head(sink, window);
  p.add_run(0, 17, 0);
  p.add_run(0, 100, 17);
  p.add_run(5, 38, 112);
  p.add_run(0, 33, 170);
}

TEST_P(SegAttnShapes, PrefillOfThreeSequences) {
  const Shape& shape = GetParam();
  Problem p(shape, 60 * shape.kv_heads);
  for (int g = 0; g < shape.kv_heads; ++g) {
    add_document_head(p, g * 3, g % 2 == 0 ? -1 : 20 + g);  // classes differ between heads
  }
  for (int g = 0; g < shape.kv_heads; ++g) {  // one row, one query; and heads with no rows at all
    p.add_head();
    if (g == 0) p.add_run(0, 1, 0);
  }
  for (int g = 0; g < shape.kv_heads; ++g) {
    p.add_head(4, g == 0 ? 16 : 0);
    p.add_run(0, 77, 0);
  }
  std::vector<int32_t> positions = range(117, 150, 3);
  for (const int32_t pos : range(170, 203)) positions.push_back(pos);
  p.add_sequence(positions);
  p.add_sequence({0});
  p.add_sequence(range(0, 77));
  p.finish();
  expect_all_agree(p);
}

// Blocks of 16 queries apart from each other, over frames that begin before, behind and between
// them; the first one's offset is below that of all others, or above that of the last.
TEST_P(SegAttnShapes, BlocksOfQueriesOverManyFrames) {
  const Shape& shape = GetParam();
  for (const int32_t first : {-48, 16}) {
    SCOPED_TRACE(first);
    Problem p(shape, 90 * shape.kv_heads);
    for (int g = 0; g < shape.kv_heads; ++g) {
      p.add_head(g * 3, g % 2 == 0 ? -1 : 150);
      p.add_run(std::max(0, -first), 32 - first, first);
      for (int32_t at = 32; at < 1000; at += 121) p.add_run(0, 121, at);
      p.add_run(1000, 1060, 0);
    }
    std::vector<int32_t> positions;
    for (const int32_t begin : {0, 32, 300, 316, 900, 1044}) {
      for (const int32_t at : range(begin, begin + 16)) positions.push_back(at);
    }
    p.add_sequence(positions);
    p.finish();
    expect_all_agree(p);
  }
}

TEST_P(SegAttnShapes, DecodeAcrossPieces) {
  const Shape& shape = GetParam();
  Problem p(shape, 110 * shape.kv_heads);
  for (int g = 0; g < shape.kv_heads; ++g) {
    p.add_head(g, g % 2 == 0 ? -1 : 700);
    p.add_run(0, 515, 0);
    p.add_run(16, 600, 499);  // 515 .. 1098
    p.add_run(0, 1, 1099);
  }
  p.add_sequence({1099});
  p.finish();
  expect_all_agree(p);
}

TEST_P(SegAttnShapes, PageEdges) {
  const Shape& shape = GetParam();
  for (const int rows : {1, 15, 16, 17, 32, 33}) {
    SCOPED_TRACE(rows);
    Problem p(shape, 4 * shape.kv_heads);
    for (int g = 0; g < shape.kv_heads; ++g) {
      p.add_head();
      p.add_run(0, rows, 0);
    }
    p.add_sequence({rows - 1, rows});  // the last row's own query and one beyond the runs
    p.finish();
    expect_all_agree(p);
  }
}

TEST_P(SegAttnShapes, DecodeWithWindowsOfAFewTokensAtOnce) {
  const Shape& shape = GetParam();
  Problem p(shape, 8 * shape.kv_heads);
  for (int g = 0; g < shape.kv_heads; ++g) {
    p.add_head(2, g == 0 ? 7 : 33);
    p.add_run(0, 90, 0);
  }
  p.add_sequence({40, 89});
  p.finish();
  expect_all_agree(p);
}

constexpr DType kF16 = DType::kF16, kBf16 = DType::kBf16;
INSTANTIATE_TEST_SUITE_P(
    All, SegAttnShapes,
    testing::Values(Shape{}, Shape{.heads = 9, .kv_heads = 3, .dtype = kF16},
                    Shape{.heads = 2, .kv_heads = 2, .dim = 32, .dtype = kBf16},
                    Shape{.heads = 7, .kv_heads = 1, .dim = 128, .dtype = kF16},
                    Shape{.heads = 14, .kv_heads = 2, .dim = 80, .rotary = 32},
                    Shape{.heads = 3, .kv_heads = 1, .dim = 72, .dtype = kF16},
                    Shape{.heads = 3, .kv_heads = 1, .dim = 72, .dtype = kBf16, .rotary = 24},
                    Shape{.heads = 6, .kv_heads = 2, .page = 5, .pairs = RopePairs::kInterleaved},
                    Shape{.heads = 6, .kv_heads = 2, .magnitude = 1.37},
                    Shape{.heads = 4, .kv_heads = 2, .dim = 128, .dtype = kBf16, .rotary = 0}));

// Spec 11.4. Queries of zeros weigh what they see equally; values are unit vectors, so the output
// shows the weights.
std::vector<float> weights(const char* variant, int32_t pos, int32_t sink, int32_t window) {
  Problem p({.heads = 1, .kv_heads = 1, .dim = 16}, 1);
  p.add_head(sink, window);
  const auto run = p.add_run(0, 12, 0);
  for (int32_t j = 0; j < 12; ++j) {
    for (int64_t d = 0; d < 16; ++d) p.set_row(run, j, d, 0.5, j == d ? 1.0 : 0.0);
  }
  p.add_sequence({pos});
  p.finish();
  p.fill_q(0.0F);
  return p.solve(variant);
}

TEST(SegAttn, SinkAndWindowSeeWhatTheSpecificationLists) {
  struct Case {
    int32_t pos, sink, window;
    std::vector<int> seen;
  };
  const Case cases[] = {{9, 2, 3, {0, 1, 7, 8, 9}},
                        {3, 2, 3, {0, 1, 2, 3}},
                        {9, 0, 3, {7, 8, 9}},
                        {9, 2, 0, {0, 1}},
                        {9, 4, 8, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
                        {3, 2, 4, {0, 1, 2, 3}},
                        {4, 2, 4, {0, 1, 2, 3, 4}},
                        {5, 2, 4, {0, 1, 2, 3, 4, 5}}};
  for (const auto& variant : seg_attn_variants()) {
    if (!variant.runs_here()) continue;
    for (const Case& c : cases) {
      SCOPED_TRACE(cat(variant.name, " pos=", c.pos, " sink=", c.sink, " window=", c.window));
      std::vector<float> want(16);
      for (const int j : c.seen) want[j] = 1.0F / static_cast<float>(c.seen.size());
      EXPECT_LE(distance(weights(variant.name, c.pos, c.sink, c.window), want), 1e-6);
    }
  }
}

TEST(SegAttn, NothingVisibleGivesZerosAndMinusInfinity) {
  for (const auto& variant : seg_attn_variants()) {
    if (!variant.runs_here()) continue;
    for (const int tokens : {1, 20}) {
      Problem p({}, 8);
      p.add_head(0, 0);
      p.add_run(0, 30, 0);
      p.add_head();
      p.add_run(0, 10, 200);
      p.add_sequence(range(50, 50 + tokens));
      p.finish();
      for (const float x : p.solve(variant.name)) ASSERT_EQ(x, 0.0F) << variant.name;
      for (const float x : p.lse()) ASSERT_EQ(x, -kInf) << variant.name;
    }
  }
}

// Keys rotated at their index and read at an offset, against keys rotated at their position.
TEST(SegAttn, ReadingAtAnOffsetEqualsRelocatedKeys) {
  constexpr int32_t kOffset = 37, kRows = 40, kDim = 64;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> raw(kRows * kDim), at_index(kRows * kDim), at_position(kRows * kDim);
  for (float& x : raw) x = normal(random);
  std::vector<float> results[2];
  for (const int moved : {0, 1}) {
    Problem p({.heads = 3, .kv_heads = 1, .dim = kDim}, 20);
    p.add_head();
    const int32_t shift = moved ? 0 : kOffset;
    const auto run = p.add_run(kOffset - shift, kOffset - shift + kRows, shift);
    for (int32_t j = 0; j < kRows; ++j) {
      std::vector<float> key(kDim);
      rope_relocate(View(&raw[j * kDim], DType::kF32, {1, kDim}),
                    View(key.data(), DType::kF32, {1, kDim}), j + (moved ? kOffset : 0), p.inv_freq,
                    RopePairs::kHalfSplit);
      for (int64_t d = 0; d < kDim; ++d) {
        p.set_row(run, run.row_begin + j, d, key[d], raw[(j * 7 + d) % raw.size()]);
      }
    }
    p.add_sequence(range(kOffset, kOffset + kRows));
    p.finish();
    results[moved] = p.solve("");
    EXPECT_LE(distance(results[moved], p.solve("ref")), 1e-5);
  }
  EXPECT_LE(distance(results[0], results[1]), 1e-5);
}

TEST(SegAttn, ASpanSplitInTwoRunsIsTheSameSpan) {
  for (const auto& variant : seg_attn_variants()) {
    if (!variant.runs_here()) continue;
    std::vector<float> results[2];
    for (const int split : {0, 1}) {
      Problem p({.heads = 3, .kv_heads = 1}, 20);
      p.add_head(3, 50);
      const auto run = p.add_run(0, 120, 9);
      if (split == 1) {
        auto& first = p.last_runs()[0];
        first.row_end = 53;
        p.last_runs().push_back({53 / 16, 53, 120, 9});
      }
      ASSERT_EQ(run.row_end, 120);
      p.add_sequence(range(60, 129));
      p.finish();
      results[split] = p.solve(variant.name);
    }
    EXPECT_EQ(results[0], results[1]) << variant.name;
  }
}

TEST(SegAttn, TheNumberOfThreadsChangesNothing) {
  Problem p({.heads = 9, .kv_heads = 3, .dtype = kF16}, 700);
  for (int i = 0; i < 6; ++i) {
    p.add_head(4, i % 2 == 0 ? -1 : 300);
    p.add_run(0, 1700, 0);
  }
  p.add_sequence({1699});
  p.add_sequence(range(1650, 1700));
  p.finish();
  const std::vector<float> alone = p.solve("");
  for (const int threads : {2, 3}) {
    ThreadPool pool(threads);
    EXPECT_EQ(p.solve("", &pool), alone) << threads;
  }
}

TEST(SegAttn, BadArgumentsAreNamed) {
  Context ctx;
  const auto code = [&](auto&& spoil) {
    Problem p({}, 8);
    p.add_head();
    p.add_run(0, 20, 0);
    p.add_head();
    p.add_run(0, 20, 0);
    spoil(p);
    p.add_sequence({5, 19});
    p.finish();
    return seg_attn(p.args, ctx).code();
  };
  EXPECT_EQ(code([](Problem&) {}), Code::kOk);
  EXPECT_EQ(code([](Problem& p) { p.last_runs()[0].row_end = 33; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Problem& p) { p.last_runs()[0].first_page = -1; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Problem& p) { p.last_runs()[0].offset = -9000; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Problem& p) { p.add_head(), p.add_head(); }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Problem& p) { p.args.rope.rotary_dim = 66; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Problem& p) { p.args.k_pages.dim[2] = 32; }), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::kernels
