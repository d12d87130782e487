// Laws of `selective(r)` (spec A5) through the whole engine: its two ends, its counts, and that the
// rows it recomputes are those that the question looks at.
#include <gmock/gmock.h>

#include "made_attention.h"
#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using Rows = std::vector<std::array<int32_t, 2>>;
constexpr double kOther = 1e-2;  // at least: another attention pattern

// Of three_documents(): the first is exact; of the others 83 rows may be targets.
constexpr int kCandidates = 83, kSecond = 21 + 37 + 5, kThird = kSecond + 50;

Request selective(double ratio, std::vector<PromptSpan> spans = three_documents(),
                  int max_tokens = 8) {
  Request r = request(Mode::kSelective, std::move(spans), max_tokens);
  r.selective_ratio = ratio;
  return r;
}

class Selective : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Engine> engine(Engine::Options options = {}) { return load(GetParam(), options); }
};
// The ends need no probe.
using SelectiveEnds = Selective;
using SelectiveProbe = Selective;
const auto kName = [](const auto& info) { return std::string(info.param); };
INSTANTIATE_TEST_SUITE_P(Families, SelectiveEnds, testing::Values("llama", "qwen2"), kName);
INSTANTIATE_TEST_SUITE_P(Families, SelectiveProbe, testing::Values("llama", "qwen2"), kName);

TEST_P(SelectiveEnds, OfAllRowsIsDense) {
  for (const std::string& plan : {std::string(), local_plan(20, 3)}) {
    Engine::Options options;
    options.plan_json = plan;
    auto e = engine(options);
    const auto dense = logits(*e, request(Mode::kDense, three_documents()), 11);
    for (const char* state : {"miss", "hit"}) {
      RequestStats stats;
      EXPECT_LT(distance(dense, logits(*e, selective(1), 11, &stats)), same_within()) << state;
      EXPECT_EQ(stats.mode, Mode::kSelective);
      // Under local heads no stored row is exact: segments are computed with all heads global.
      if (!plan.empty()) {
        EXPECT_EQ(stats.recomputed, 37 + kCandidates);
        continue;
      }
      EXPECT_EQ(stats.recomputed, kCandidates);
      EXPECT_EQ(stats.recomputed_rows, (Rows{{kSecond, kSecond + 50}, {kThird, kThird + 33}}));
    }
    EXPECT_EQ(run(*e, selective(1, three_documents(), 24)).tokens,
              run(*e, request(Mode::kDense, three_documents(), 24)).tokens);
  }
}

TEST_P(SelectiveEnds, OfNoRowsIsReuse) {
  Request boundary = request(Mode::kBoundary, three_documents());
  boundary.boundary_rows = 0;
  RequestStats stats;
  const auto got = logits(*engine(), selective(0), 11, &stats);
  EXPECT_EQ(stats.recomputed, 0);
  EXPECT_EQ(got, logits(*engine(), request(Mode::kReuse, three_documents()), 11));
  EXPECT_EQ(got, logits(*engine(), boundary, 11));
}

// The probe itself must leave nothing behind: a ratio that takes one row, against reuse and dense.
TEST_P(SelectiveProbe, LiesBetweenReuseAndDense) {
  auto e = engine();
  const auto dense = logits(*e, request(Mode::kDense, three_documents()), 11);
  const auto reuse = logits(*e, request(Mode::kReuse, three_documents()), 11);
  const auto half = logits(*e, selective(0.5), 11);
  EXPECT_GT(distance(dense, half), kOther / 10);
  EXPECT_GT(distance(reuse, half), kOther / 10);
  EXPECT_EQ(reuse, logits(*e, request(Mode::kReuse, three_documents()), 11));
}

TEST_P(SelectiveProbe, CountsWhatItRecomputes) {
  using enum SelectUnits;
  for (const SelectUnits units : {kBlocks, kBoth, kRows}) {
    for (const double ratio : {0.01, 0.15, 0.3, 0.77}) {
      auto e = engine();
      Request r = selective(ratio);
      r.select = units;
      RequestStats miss, hit;
      logits(*e, r, 11, &miss);
      logits(*e, r, 11, &hit);
      const auto wanted = static_cast<int64_t>(std::ceil(ratio * kCandidates));
      EXPECT_GE(hit.recomputed, wanted) << ratio;
      EXPECT_LT(hit.recomputed, wanted + (units == kRows ? 1 : 16)) << ratio;
      EXPECT_EQ(hit.recomputed_rows, miss.recomputed_rows);
      int64_t counted = 0, in_blocks = 0;
      for (const auto& [begin, end] : hit.recomputed_rows) {
        counted += end - begin;
        const int first = begin < kThird ? kSecond : kThird, size = begin < kThird ? 50 : 33;
        EXPECT_TRUE(units != kBlocks || (begin - first) % 16 == 0) << begin;
        EXPECT_TRUE(units != kBlocks || (end - first) % 16 == 0 || end == first + size) << end;
        for (int at = first; at < first + size; at += 16) {  // whole blocks
          const int last = std::min(at + 16, first + size);
          in_blocks += at >= begin && last <= end ? last - at : 0;
        }
      }
      EXPECT_EQ(hit.recomputed, counted);
      EXPECT_TRUE(units != kBoth || 2 * in_blocks >= wanted) << in_blocks;
      EXPECT_TRUE(units != kBoth || ratio < 0.3 || hit.recomputed == wanted) << hit.recomputed;
      EXPECT_EQ(miss.recomputed, counted);
      EXPECT_EQ(miss.fresh, 157 - counted);  // documents computed now count as fresh
      EXPECT_EQ(hit.fresh, 11);              // all before the second document is exact
      EXPECT_EQ(hit.document_cached, kCandidates - counted);
      EXPECT_GT(hit.probe_ms, 0);
    }
  }
}

// Single rows take a page each: others' documents are thrown out for all of them before it starts.
TEST_P(SelectiveProbe, MakesRoomForThePagesOfSingleRows) {
  const int64_t column =
      int64_t{16} * kHeadDim * 2 * (test_device().is_cuda() ? 2 : 4) * kLayers * kKvHeads;
  Engine::Options options;
  options.kv_bytes = 96 * column;
  auto e = engine(options);
  for (uint32_t i = 0; i < 6; ++i) {
    Request r = selective(0.1, {fresh(21, 1), fresh(5, 2), document(400, 10 + i), fresh(11, 6)});
    r.spans[1].segment = true;  // the long document is never exact
    r.select = SelectUnits::kRows;
    Answer answer;
    e->run(r, 0, answer);
    EXPECT_TRUE(answer.outcome.status.ok()) << i << ": " << answer.outcome.status.message();
    EXPECT_EQ(answer.outcome.stats.recomputed, 40);
  }
}

TEST_P(SelectiveProbe, IsDeterministic) {
  for (const int threads : {1, 3}) {
    Engine::Options options;
    options.threads = threads;
    auto a = engine(options), b = engine();
    const Request r = selective(0.3, three_documents(), 20);
    const auto tokens = run(*a, r).tokens;
    EXPECT_EQ(tokens.size(), 20U);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(run(*a, r).tokens, tokens);
    // Products on a card are chosen by time: another engine may add up in another order.
    if (!test_device().is_cuda()) {
      EXPECT_EQ(run(*b, r).tokens, tokens);
    }
    EXPECT_EQ(logits(*a, r, 11), logits(*a, r, 11));
  }
}

TEST_P(SelectiveEnds, NothingToAskOrNothingToChooseIsDense) {
  auto e = engine();
  const std::vector<PromptSpan> none{fresh(40, 1), fresh(43, 2)};
  const std::vector<PromptSpan> exact{fresh(21, 1), document(37, 2), fresh(11, 6)};
  const std::vector<PromptSpan> no_question{fresh(21, 1), document(37, 2), document(50, 4)};
  for (const auto& spans : {none, exact, no_question}) {
    const auto dense = logits(*e, request(Mode::kDense, spans));
    for (const double ratio : {0.0, 0.3, 1.0}) {
      e->clear_cache();
      RequestStats stats;
      EXPECT_LT(distance(dense, logits(*e, selective(ratio, spans), 1, &stats)), same_within());
      EXPECT_EQ(stats.recomputed, 0);
      EXPECT_EQ(stats.probe_ms, 0);
    }
  }
  // All that follows the last document is a given answer: nobody asks.
  Request r = selective(0.3);
  r.answer_tokens = 11;
  RequestStats stats;
  const auto dense = logits(*e, request(Mode::kDense, r.spans));
  EXPECT_LT(distance(dense, logits(*e, r, 1, &stats)), same_within());
  EXPECT_EQ(stats.mode, Mode::kPrefix);
}

TEST_P(SelectiveEnds, BadNumbersAreNamed) {
  auto e = engine();
  for (const double ratio : {-0.1, 1.5, double{NAN}, double{INFINITY}}) {
    const Status status = e->check(selective(ratio));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << ratio;
    EXPECT_THAT(status.message(), testing::HasSubstr("0 to 1"));
  }
  Request r = selective(0.5);
  r.answer_tokens = 1000;
  EXPECT_THAT(e->check(r).message(), testing::HasSubstr("1000"));
}

// The ends have nothing to choose: how rows are taken changes nothing.
TEST_P(SelectiveEnds, AreTheSameHoweverRowsAreTaken) {
  for (const double ratio : {0.0, 1.0}) {
    auto e = engine();
    const auto want = logits(*e, selective(ratio), 11);
    for (const SelectUnits units : {SelectUnits::kBoth, SelectUnits::kRows}) {
      Request r = selective(ratio);
      r.select = units;
      RequestStats stats;
      e->clear_cache();
      EXPECT_EQ(logits(*e, r, 11, &stats), want) << select_name(units);
      EXPECT_EQ(stats.recomputed, ratio == 0 ? 0 : kCandidates);
      EXPECT_EQ(stats.probe_ms, 0);
    }
  }
}

TEST(SelectiveMode, IsReadWithItsRatio) {
  Request r;
  EXPECT_TRUE(read_mode("selective:0.25", r).ok());
  EXPECT_EQ(r.mode, Mode::kSelective);
  EXPECT_EQ(r.selective_ratio, 0.25);
  EXPECT_TRUE(read_mode("selective", r).ok());
  EXPECT_EQ(r.selective_ratio, 0.25);
  EXPECT_TRUE(read_mode("selective:0.3:both", r).ok());
  EXPECT_EQ(r.select, SelectUnits::kBoth);
  EXPECT_EQ(r.selective_ratio, 0.3);
  EXPECT_TRUE(read_mode("selective:0.2", r).ok());
  EXPECT_EQ(r.select, SelectUnits::kBoth);  // what is not said stays
  EXPECT_TRUE(read_mode("selective:0.2:rows", r).ok());
  EXPECT_EQ(r.select, SelectUnits::kRows);
  EXPECT_TRUE(read_mode("selective:0.2:blocks", r).ok());
  EXPECT_EQ(r.select, SelectUnits::kBlocks);
  EXPECT_THAT(read_mode("selective:0.2:halves", r).message(),
              testing::HasSubstr("'halves' is none of blocks, both, rows"));
  EXPECT_TRUE(read_mode("boundary:7", r).ok());
  EXPECT_EQ(r.boundary_rows, 7);
  for (const char* bad :
       {"selective:", "selective:nan", "selective:1.01", "selective:-0.1", "selective:0.5x",
        "selective:inf", "selective:0.5:", "selective::both", "selective:both",
        "selective:0.5:both:rows", "boundary:7:rows", "redknot:0.5:rows", "boundary:-1",
        "boundary:x", "dense:1", "nothing", "", ":"}) {
    const Status status = read_mode(bad, r);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << bad;
  }
}

class SelectiveMass : public testing::Test {
 protected:
  void SetUp() override { engine_ = load_on(test_device(), "qwen2", {}, make_attention); }
  // Plain text where nothing is set.
  static std::vector<PromptSpan> plain() {
    auto spans = three_documents();
    for (PromptSpan& span : spans) {
      for (int32_t& id : span.tokens) id %= kVocab - 4;
    }
    return spans;
  }
  Rows recomputed(const std::vector<PromptSpan>& spans, double ratio, int answer_tokens = 0,
                  SelectUnits units = SelectUnits::kBlocks) {
    Request r = selective(ratio, spans);
    r.answer_tokens = answer_tokens;
    r.select = units;
    RequestStats stats;
    engine_->clear_cache();
    logits(*engine_, r, 1, &stats);
    return stats.recomputed_rows;
  }
  std::unique_ptr<Engine> engine_;
};

TEST_F(SelectiveMass, TargetsAreWhereTheQuestionLooks) {
  auto spans = plain();
  std::fill(spans[5].tokens.begin() + 2, spans[5].tokens.begin() + 8, asker(kAsked));
  spans[3].tokens[20] = mark(kAsked);  // of the second document, block 1
  EXPECT_EQ(recomputed(spans, 0.01), (Rows{{kSecond + 16, kSecond + 32}}));
  EXPECT_EQ(recomputed(spans, 0.01, 0, SelectUnits::kRows), (Rows{{kSecond + 20, kSecond + 21}}));
  spans[3].tokens[20] = 1;
  spans[4].tokens[32] = mark(kAsked);  // the third's last block, one row long
  EXPECT_EQ(recomputed(spans, 0.01), (Rows{{kThird + 32, kThird + 33}}));
  spans[3].tokens[49] = mark(kAsked);  // in a short block of two, before it
  EXPECT_EQ(recomputed(spans, 0.03),
            (Rows{{kSecond + 48, kSecond + 50}, {kThird + 32, kThird + 33}}));
}

TEST_F(SelectiveMass, OnlyTheQuestionDecides) {
  auto spans = plain();
  std::fill(spans[5].tokens.begin() + 2, spans[5].tokens.begin() + 5, asker(kAsked));
  spans[3].tokens[20] = mark(kAsked);
  spans[3].tokens[3] = mark(kElsewhere);
  const Rows asked{{kSecond + 16, kSecond + 32}}, elsewhere{{kSecond, kSecond + 16}};
  EXPECT_EQ(recomputed(spans, 0.01), asked);
  // Fresh text between the documents looks elsewhere, and much harder.
  spans.insert(spans.begin() + 4, {std::vector<int32_t>(30, asker(kElsewhere)), false});
  EXPECT_EQ(recomputed(spans, 0.01), asked);
  // So does an answer that is only followed; as part of the question it would count.
  spans.back().tokens.insert(spans.back().tokens.end(), 30, asker(kElsewhere));
  EXPECT_EQ(recomputed(spans, 0.01, 30), asked);
  EXPECT_EQ(recomputed(spans, 0.01), elsewhere);
}

// Exact rows hold all the mass: they stay, and others are chosen.
TEST_F(SelectiveMass, ExactRowsAreNoTargets) {
  auto spans = plain();
  std::fill(spans[5].tokens.begin() + 2, spans[5].tokens.begin() + 8, asker(kAsked));
  std::fill(spans[1].tokens.begin(), spans[1].tokens.end(), mark(kAsked));
  for (const auto& [begin, end] : recomputed(spans, 0.3)) {
    EXPECT_GE(begin, kSecond);
    EXPECT_LE(end, kThird + 33);
  }
}

}  // namespace
}  // namespace rk::engine
