#include "kernels/attn_mass/attn_mass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/attn_mass/attn_mass_testing.h"
#include "kernels/seg_attn/seg_attn_testing.h"

namespace rk::kernels {
namespace {

using attn_testing::Problem;
using attn_testing::Shape;

constexpr DType kF16 = DType::kF16, kBf16 = DType::kBf16;

// The mass of a finished problem of one sequence, over `positions` positions.
std::vector<double> mass(Problem& p, const char* variant, int positions, ThreadPool* pool = nullptr,
                         double before = 0.0) {
  p.solve("ref");  // lse
  AttnMassArgs args{.q = p.args.q,
                    .k_pages = p.args.k_pages,
                    .q_pos = p.args.q_pos,
                    .heads = p.args.heads,
                    .rope = p.args.rope,
                    .scale = p.args.scale,
                    .lse = p.args.lse,
                    .mass = {}};
  std::vector<double> out(static_cast<size_t>(positions), before);
  args.mass = out;
  ForcedVariants forced{{"attn_mass", variant}};
  Context ctx{.pool = pool, .forced = &forced};
  const Status status = attn_mass(args, ctx);
  EXPECT_TRUE(status.ok()) << status.message();
  return out;
}

// Every variant that runs here against the reference; answers the reference's.
std::vector<double> expect_all_agree(Problem& p, int positions) {
  const std::vector<double> want = mass(p, "ref", positions);
  for (const auto& variant : attn_mass_variants()) {
    if (!variant.runs_here()) continue;
    EXPECT_LE(distance(mass(p, variant.name, positions), want), 1e-5) << variant.name;
  }
  return want;
}

std::vector<int32_t> range(int32_t begin, int32_t end, int32_t step = 1) {
  std::vector<int32_t> out;
  for (int32_t i = begin; i < end; i += step) out.push_back(i);
  return out;
}

class AttnMassShapes : public testing::TestWithParam<Shape> {};

// Lead, two documents at offsets (one starts inside a page), fresh rows; a gap of positions.
TEST_P(AttnMassShapes, DocumentsSinksAndWindows) {
  const Shape& shape = GetParam();
  for (const int tokens : {1, 2, 33}) {
    Problem p(shape, 20 * shape.kv_heads);
    for (int g = 0; g < shape.kv_heads; ++g) {
      p.add_head(g * 3, g % 2 == 0 ? -1 : 60 + g);  // classes differ between heads
      p.add_run(0, 17, 0);
      p.add_run(0, 100, 17);
      p.add_run(5, 38, 112);
      p.add_run(0, 33, 170);
    }
    p.add_sequence(range(203 - tokens, 203));
    p.finish();
    const auto want = expect_all_agree(p, 210);
    EXPECT_NEAR(sum(want), tokens * shape.heads, 1e-4 * tokens * shape.heads);
    for (int i = 150; i < 170; ++i) EXPECT_EQ(want[static_cast<size_t>(i)], 0.0);
  }
}

// More rows than a piece holds, more queries than a tile, queries among the rows.
TEST_P(AttnMassShapes, ManyRowsAndQueries) {
  const Shape& shape = GetParam();
  Problem p(shape, 80 * shape.kv_heads);
  for (int g = 0; g < shape.kv_heads; ++g) {
    p.add_head(g, g % 2 == 0 ? -1 : 700);
    p.add_run(0, 515, 0);
    p.add_run(16, 600, 499);  // 515 .. 1098
  }
  p.add_sequence(range(3, 1099, 17));
  p.finish();
  expect_all_agree(p, 1099);
}

TEST_P(AttnMassShapes, PageEdges) {
  const Shape& shape = GetParam();
  for (const int rows : {1, 15, 16, 17, 32, 33}) {
    Problem p(shape, 4 * shape.kv_heads);
    for (int g = 0; g < shape.kv_heads; ++g) {
      p.add_head();
      p.add_run(0, rows, 0);
    }
    p.add_sequence({rows - 1, rows});
    p.finish();
    expect_all_agree(p, rows + 1);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, AttnMassShapes,
    testing::Values(Shape{}, Shape{.heads = 9, .kv_heads = 3, .dtype = kF16},
                    Shape{.heads = 2, .kv_heads = 2, .dim = 32, .dtype = kBf16},
                    Shape{.heads = 7, .kv_heads = 1, .dim = 128, .dtype = kF16},
                    Shape{.heads = 3, .kv_heads = 1, .dim = 72, .dtype = kBf16, .rotary = 24},
                    Shape{.heads = 6, .kv_heads = 2, .page = 5, .pairs = RopePairs::kInterleaved},
                    Shape{.heads = 4, .kv_heads = 2, .dim = 128, .dtype = kBf16, .rotary = 0}));

// Queries of zeros weigh what they see equally (spec 11.4).
TEST(AttnMass, EqualScoresShareEqually) {
  for (const auto& variant : attn_mass_variants()) {
    if (!variant.runs_here()) continue;
    Problem p({.heads = 2, .kv_heads = 1, .dim = 16}, 1);
    p.add_head(2, 4);
    p.add_run(0, 6, 0);
    p.add_sequence({4, 5});
    p.finish();
    p.fill_q(0.0F);
    // 4 sees all five rows, 5 all six; two heads each; added to what was there.
    const double both = 2.0 / 5 + 2.0 / 6;
    const std::vector<double> want{1 + both, 1 + both,    1 + both, 1 + both,
                                   1 + both, 1 + 2.0 / 6, 1.0};
    EXPECT_LE(distance(mass(p, variant.name, 7, nullptr, 1.0), want), 1e-6) << variant.name;
  }
}

TEST(AttnMass, AQueryThatSeesNothingAddsNothing) {
  for (const auto& variant : attn_mass_variants()) {
    if (!variant.runs_here()) continue;
    Problem p({}, 8);
    p.add_head(0, 0);
    p.add_run(0, 30, 0);
    p.add_head();
    p.add_run(0, 10, 60);  // seen from 60 on
    p.add_sequence({50, 60});
    p.finish();
    std::vector<double> want(70, 0.0);
    want[60] = 3;  // the three query heads of the second KV head, on the one row they see
    EXPECT_LE(distance(mass(p, variant.name, 70), want), 1e-5) << variant.name;
  }
}

TEST(AttnMass, TheNumberOfThreadsChangesNothing) {
  Problem p({.heads = 9, .kv_heads = 3, .dtype = kF16}, 400);
  for (int i = 0; i < 3; ++i) {
    p.add_head(4, i % 2 == 0 ? -1 : 300);
    p.add_run(0, 1700, 0);
  }
  p.add_sequence(range(1600, 1700));
  p.finish();
  const auto alone = mass(p, "", 1700);
  for (const int threads : {2, 3}) {
    ThreadPool pool(threads);
    EXPECT_EQ(mass(p, "", 1700, &pool), alone) << threads;
  }
}

TEST(AttnMass, BadArgumentsAreNamed) {
  const auto code = [](auto&& spoil) {
    Problem p({}, 8);
    p.add_head();
    p.add_run(0, 20, 0);
    p.add_head();
    p.add_run(0, 20, 0);
    p.add_sequence({5, 19});
    p.finish();
    std::vector<double> out(20);
    AttnMassArgs args{.q = p.args.q,
                      .k_pages = p.args.k_pages,
                      .q_pos = p.args.q_pos,
                      .heads = p.args.heads,
                      .rope = p.args.rope,
                      .scale = p.args.scale,
                      .lse = p.args.lse,
                      .mass = out};
    const std::vector<int32_t> descending{19, 5};
    const kernels::Run bad_runs[] = {{0, 0, 33, 0}, {0, 0, 8, -3}};
    HeadRows heads[] = {args.heads[0], args.heads[1]};
    spoil(args, descending, heads, bad_runs);
    Context ctx;
    p.solve("ref");
    return attn_mass(args, ctx).code();
  };
  using Positions = std::vector<int32_t>;
  const auto bad = Code::kInvalidArgument;
  EXPECT_EQ(code([](auto&, auto&, auto*, auto*) {}), Code::kOk);
  EXPECT_EQ(code([](auto& a, auto&, auto*, auto*) { a.mass = a.mass.first(19); }), bad);
  EXPECT_EQ(code([](auto& a, const Positions& p, auto*, auto*) { a.q_pos = p; }), bad);
  EXPECT_EQ(code([](auto& a, auto&, auto*, auto*) { a.q_pos = a.q_pos.first(1); }), bad);
  EXPECT_EQ(code([](auto& a, auto&, auto*, auto*) { a.heads = {}; }), bad);
  EXPECT_EQ(code([](auto& a, auto&, auto*, auto*) { a.lse = {}; }), bad);
  EXPECT_EQ(code([](auto& a, auto&, auto*, auto*) { a.rope.rotary_dim = 66; }), bad);
  EXPECT_EQ(code([](auto& a, auto&, auto*, auto*) { a.k_pages.dim[2] = 32; }), bad);
  for (const int i : {0, 1}) {
    EXPECT_EQ(code([i](auto& a, auto&, HeadRows* heads, const kernels::Run* runs) {
                heads[0].runs = {runs + i, 1};
                a.heads = {heads, 2};
              }),
              bad);
  }
}

}  // namespace
}  // namespace rk::kernels
