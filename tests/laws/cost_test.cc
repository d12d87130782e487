// The cost model beside what the kernels' launch code counts (spec A7).
#include "engine/cost.h"

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;

// Ratio of what was predicted to what was counted.
void expect_near(const kernels::Work& predicted, const kernels::Work& counted, double within) {
  ASSERT_GT(counted.flops, 0);
  ASSERT_GT(counted.bytes, 0);
  EXPECT_NEAR(predicted.flops / counted.flops, 1, within);
  EXPECT_NEAR(predicted.bytes / counted.bytes, 1, within);
}

class Cost : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Engine> engine() {
    Engine::Options options;
    if (GetParam() != std::string("global")) options.plan_json = local_plan(20, 3);
    return load("llama", options);
  }
};
INSTANTIATE_TEST_SUITE_P(Plans, Cost, testing::Values("global", "local"),
                         [](const auto& info) { return std::string(info.param); });

std::vector<PromptSpan> prompt(int scale, uint32_t question) {
  return {fresh(7 * scale, 1), document(18 * scale, 2), document(25 * scale, 4),
          document(16 * scale, 5), fresh(5 * scale, question)};
}

TEST_P(Cost, PredictedIsCounted) {
  for (const int scale : {1, 3, 6}) {
    for (const Mode mode : {Mode::kDense, Mode::kPrefix, Mode::kReuse, Mode::kBoundary,
                            Mode::kSelective, Mode::kRandom, Mode::kCacheblend, Mode::kNone}) {
      for (const double ratio : {0.0, 0.15, 0.3, 0.7, 1.0}) {
        if (!takes_ratio(mode) && ratio > 0) continue;
        SCOPED_TRACE(cat(mode_name(mode), ":", ratio, " scale ", scale));
        auto e = engine();
        Request r = request(mode, prompt(scale, 6), 5);
        r.selective_ratio = ratio;
        r.company = ids(30, 9);
        for (const uint32_t question : {6U, 7U}) {  // a miss, then a hit
          r.spans.back() = fresh(5 * scale, question);
          const RequestStats s = run(*e, r).outcome.stats;
          expect_near(s.predicted_work, s.work, 0.005);
          expect_near(decode_cost(e->cost_shape(), s.prompt_tokens, s.generated - 1), s.decode_work,
                      0.005);
        }
      }
    }
  }
}

// What can be said before a request ran: its documents are stored, rows are chosen by nobody yet.
TEST_P(Cost, ALayoutAloneIsEnough) {
  const int scale = 6;
  for (const Mode mode : {Mode::kDense, Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
    for (const double ratio : {0.0, 0.15, 0.3, 1.0}) {
      if (mode != Mode::kSelective && ratio > 0) continue;
      SCOPED_TRACE(cat(mode_name(mode), ":", ratio));
      auto e = engine();
      Request r = request(mode, prompt(scale, 6), 2);
      r.selective_ratio = ratio;
      r.company = ids(30, 9);
      run(*e, r);
      r.spans.back() = fresh(5 * scale, 7);
      const RequestStats s = run(*e, r).outcome.stats;
      const bool global = GetParam() == std::string("global"), spliced = mode != Mode::kDense;
      CostLayout layout{.mode = mode, .boundary_rows = r.boundary_rows, .ratio = ratio};
      // Under a global plan the lead and the first document are an exact prefix.
      layout.spans = {{7 * scale, false, false, spliced && global ? 7 * scale : 0},
                      {18 * scale, spliced && !global, false, spliced && global ? 18 * scale : 0},
                      {25 * scale, spliced, false, 0},
                      {16 * scale, spliced, false, 0},
                      {5 * scale, false, false, 0}};
      layout.query = {66 * scale, 71 * scale};
      // Which rows are chosen moves the attention of few rows: half of this tiny model's work.
      const bool guessed = mode == Mode::kSelective && ratio > 0 && ratio < 1;
      expect_near(cost_of(e->cost_shape(), layout), s.work, guessed ? 0.1 : 0.02);
    }
  }
}

TEST_P(Cost, TeacherForcedRowsAreCountedToo) {
  auto e = engine();
  for (const Mode mode : {Mode::kDense, Mode::kReuse, Mode::kSelective}) {
    Request r = request(mode, prompt(4, 6));
    r.answer_tokens = 9;
    RequestStats s;
    logits(*e, r, 10, &s);
    expect_near(s.predicted_work, s.work, 0.005);
  }
}

// By hand: one token behind nothing.
TEST(CostByHand, OneToken) {
  auto e = load("llama");
  const RequestStats s = run(*e, request(Mode::kDense, {fresh(1, 3)}, 1)).outcome.stats;
  const double q = kHeads * kHeadDim, kv = kKvHeads * kHeadDim;
  const double linear = kLayers * (kHidden * (q + 2 * kv) + q * kHidden + 3.0 * kHidden * kFfn) +
                        double{kHidden} * kVocab;
  EXPECT_DOUBLE_EQ(s.work.flops, 2 * linear + kLayers * 4 * q);
  EXPECT_DOUBLE_EQ(s.predicted_work.flops, s.work.flops);
  EXPECT_EQ(s.decode_work.flops, 0);
}

}  // namespace
}  // namespace rk::engine
