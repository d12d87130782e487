#include <gtest/gtest.h>

#include <limits>

#include "kernels/seg_attn/seg_attn_cuda_testing.h"

namespace rk::kernels {
namespace {

using Shape = SegAttnCudaProblem::Shape;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr const char* kVariants[] = {"sm90", "sm80"};

std::vector<int32_t> range(int32_t begin, int32_t end, int32_t step = 1) {
  std::vector<int32_t> out;
  for (int32_t i = begin; i < end; i += step) out.push_back(i);
  return out;
}

double distance(const std::vector<float>& got, const std::vector<float>& want) {
  double diff = 0.0, norm = 1e-30;
  for (size_t i = 0; i < got.size(); ++i) {
    diff += std::pow(double{got[i]} - want[i], 2);
    norm += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(diff / norm);
}

// A query rotated and rounded to bf16 moves scores by a few 1e-3, and lse with them.
void expect_same_lse(const std::vector<float>& got, const std::vector<float>& want) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (want[i] == -kInf) {
      ASSERT_EQ(got[i], -kInf) << i;
    } else {
      ASSERT_NEAR(got[i], want[i], 0.02) << i;
    }
  }
}

class SegAttnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (num_cards() == 0) GTEST_SKIP() << "no card";
    ASSERT_TRUE(open_card(0).ok());
    auto stream = create_stream();
    ASSERT_TRUE(stream.ok()) << stream.status().message();
    stream_ = *stream;
  }

  void expect_plan_agrees(const SegAttnCudaProblem& p, const SegAttnCudaProblem::Solution& want,
                          const SegAttnPlan& plan) {
    for (const char* variant : kVariants) {
      SCOPED_TRACE(variant);
      const auto got = p.solve(variant, plan, stream_, 2);  // the second call finds what it needs
      if (got.status.code() == Code::kUnimplemented && std::string(variant) == "sm90") continue;
      ASSERT_TRUE(got.status.ok()) << got.status.message();
      EXPECT_LE(distance(got.o, want.o), 4e-3);
      for (size_t i = 0; i < want.o.size(); ++i) {  // rows that see nothing are exactly 0
        if (want.o[i] == 0.0F) {
          ASSERT_EQ(got.o[i], 0.0F) << i;
        }
      }
      expect_same_lse(got.lse, want.lse);
    }
  }

  void expect_all_agree(SegAttnCudaProblem& p, const std::vector<ForcedPlan>& plans) {
    p.finish();
    const auto want = p.reference();
    ASSERT_TRUE(want.status.ok());
    for (const ForcedPlan& forced : plans) {
      SCOPED_TRACE(cat("rows=", forced.rows, " splits=", forced.splits));
      expect_plan_agrees(p, want, p.plan(forced));
    }
    for (const int num_sms : {1, 132}) {
      SCOPED_TRACE(cat("planned for ", num_sms));
      const SegAttnPlanOptions options{p.num_heads(), p.num_kv_heads(), num_sms, 4096};
      expect_plan_agrees(p, want, plan_seg_attn(p.plan_sequences(), options));
    }
  }

  Stream stream_ = nullptr;
};

class SegAttnCudaShapes : public SegAttnCuda, public testing::WithParamInterface<Shape> {
 protected:
  static std::vector<HeadSight> sights(int sink, int window) {
    return mixed_sights(GetParam().kv_heads, sink, window);
  }
};

// Lead, two documents at offsets (one cut inside a page), fresh rows; a gap of positions.
std::vector<Run> documents() {
  return {{0, 0, 17, 0}, {0, 0, 100, 17}, {0, 5, 38, 112}, {0, 7, 7, 150}, {0, 0, 133, 170}};
}

TEST_P(SegAttnCudaShapes, PrefillOfThreeSequences) {
  SegAttnCudaProblem p(GetParam(), 1);
  std::vector<int32_t> positions = range(1, 150, 7);
  for (const int32_t pos : range(240, 303)) positions.push_back(pos);
  p.add_sequence(documents(), sights(3, 40), positions);
  p.add_sequence({{0, 0, 1, 0}}, sights(1, 1), {0});
  p.add_sequence({{0, 0, 90, 0}}, sights(0, 20), range(0, 77));
  expect_all_agree(p, {{128, 1}, {128, 3}, {57, 1}});
}

TEST_P(SegAttnCudaShapes, DecodeOfThreeSequences) {
  SegAttnCudaProblem p(GetParam(), 2);
  p.add_sequence({{0, 0, 515, 0}, {0, 16, 600, 499}, {0, 0, 1, 1099}}, sights(4, 300), {1099});
  p.add_sequence(documents(), sights(70, 5), {302});
  p.add_sequence({{0, 0, 3, 0}}, sights(0, 1), {2});
  p.old_rows_ready = true;
  expect_all_agree(p, {{16, 1}, {16, 7}, {16, 33}, {1, 2}, {128, 2}});
}

TEST_P(SegAttnCudaShapes, RandomProblems) {
  const Shape& shape = GetParam();
  for (uint32_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(cat("seed=", seed));
    std::mt19937 random(seed * 977 + shape.dim);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
    SegAttnCudaProblem p(shape, seed);
    for (int b = below(3); b >= 0; --b) {
      std::vector<rk::kernels::Run> runs;
      int position = below(40);
      for (int i = below(6); i >= 0; --i) {
        const int begin = below(60), length = below(4) == 0 ? below(3) : below(180);
        runs.push_back({0, begin, begin + length, position - begin});
        position += length + (below(2) == 0 ? 0 : below(70));
      }
      std::vector<HeadSight> sight;
      for (int g = 0; g < shape.kv_heads; ++g) {
        sight.push_back(below(3) == 0 ? HeadSight{} : HeadSight{below(50), below(120)});
      }
      std::vector<int32_t> q_pos;  // one row, a dense end, or rows with gaps
      const int kind = below(3);
      for (int32_t pos = kind == 2 ? below(20) : std::max(0, position - (kind ? 1 : 1 + below(90)));
           pos < position || q_pos.empty(); pos += kind == 2 ? 1 + below(20) : 1) {
        q_pos.push_back(pos);
      }
      p.add_sequence(runs, sight, q_pos);
    }
    expect_all_agree(p, {{1 + below(128), 1}, {1 + below(128), 2 + below(12)}, {128, 2}, {16, 5}});
  }
}

constexpr DType kF16 = DType::kF16, kBf16 = DType::kBf16;
constexpr RopePairs kInterleaved = RopePairs::kInterleaved;
INSTANTIATE_TEST_SUITE_P(
    All, SegAttnCudaShapes,
    testing::Values(
        Shape{}, Shape{.heads = 3, .kv_heads = 3, .dim = 64},
        Shape{.heads = 14, .kv_heads = 2, .dim = 64, .num_layers = 3, .layer = 2},
        Shape{.heads = 6, .kv_heads = 2, .dim = 64, .dtype = kF16, .rotary = 32},
        Shape{.heads = 7, .kv_heads = 1, .dim = 128, .dtype = kF16},
        Shape{.heads = 16, .kv_heads = 2, .dim = 128, .rotary = 64, .pairs = kInterleaved},
        Shape{.heads = 4, .kv_heads = 2, .dim = 128, .rotary = 0, .num_layers = 2},
        Shape{.heads = 5, .kv_heads = 1, .dim = 256},
        Shape{.heads = 12, .kv_heads = 2, .dim = 256, .dtype = kF16, .rotary = 64},
        Shape{.heads = 4, .kv_heads = 2, .dim = 64, .rotary = 24},
        Shape{.heads = 4, .kv_heads = 2, .dim = 64, .rotary = 20, .pairs = kInterleaved}));

TEST_F(SegAttnCuda, NothingVisibleGivesZerosAndMinusInfinity) {
  for (const int tokens : {1, 40}) {
    SegAttnCudaProblem p({.heads = 4, .kv_heads = 2}, 3);
    p.add_sequence({{0, 0, 10, 200}}, {{0, -1}, {16, 4}}, range(50, 50 + tokens));
    p.add_sequence({{0, 0, 90, 0}}, {{0, 0}, {0, 0}}, range(50, 50 + tokens));
    p.add_sequence({}, {{0, -1}, {0, -1}}, {5});
    expect_all_agree(p, {{128, 1}, {128, 3}, {16, 1}, {16, 4}});
  }
}

TEST_F(SegAttnCuda, ItemsOfFewAndOfManyRowsInOneLaunch) {
  SegAttnCudaProblem p({.heads = 8, .kv_heads = 2}, 4);
  p.add_sequence({{0, 0, 300, 0}}, {{0, -1}, {16, 64}}, range(200, 300));
  for (int i = 0; i < 40; ++i) {
    p.add_sequence({{0, 0, 150 + 37 * i, 0}}, {{0, -1}, {16, 64}}, {149 + 37 * i});
  }
  expect_all_agree(p, {{128, 1}, {128, 9}});
}

// Decode starts before the kernel before it has ended: it may read old rows then, and nothing else.
TEST_F(SegAttnCuda, DecodeWaitsForItsQueries) {
  for (const bool old_rows_ready : {false, true}) {
    SegAttnCudaProblem p({.heads = 32, .kv_heads = 8}, 5);
    p.add_sequence({{0, 0, 3000, 0}, {0, 0, 1, 3000}}, std::vector<HeadSight>(8), {3000});
    p.add_sequence({{0, 0, 700, 0}}, std::vector<HeadSight>(8, HeadSight{4, 100}), {699});
    p.old_rows_ready = old_rows_ready;
    p.late_queries = true;
    expect_all_agree(p, {{16, 1}, {16, 13}});
  }
}

TEST_F(SegAttnCuda, BadArgumentsAreNamed) {
  SegAttnCudaArgs a;
  a.max_items = 1;
  EXPECT_EQ(seg_attn_cuda(a, "", stream_).code(), Code::kInvalidArgument);
  SegAttnCudaProblem p({.heads = 4, .kv_heads = 2}, 3);
  p.add_sequence({{0, 0, 10, 0}}, {{0, -1}, {16, 4}}, {9});
  p.finish();
  EXPECT_EQ(p.solve("sm70", p.plan({}), stream_).status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(p.solve("", p.plan({}), stream_).status.ok());
}

}  // namespace
}  // namespace rk::kernels
