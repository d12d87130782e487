// What the engine stores, gives back and refuses, on a tiny random model; that its answers are
// right is in tests/laws.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using testing::HasSubstr;
constexpr int64_t kPageBytes = int64_t{16} * kHeadDim * 2 * 4;  // f32
// 16 rows of every head.
int64_t column_bytes() {
  return kPageBytes * kLayers * kKvHeads / (test_device().is_cuda() ? 2 : 1);
}

std::vector<int32_t> operator+(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The same ids as one fresh span.
std::vector<float> dense(Engine& engine, const std::vector<PromptSpan>& spans) {
  return logits(engine, request(Mode::kDense, spans));
}

// Every span has its own frame, so rows of one are read at an offset even by dense: against one
// span, whose offset is 0, a wrong one shows.
TEST(Engine, HowAPromptIsCutDoesNotMatterToDense) {
  for (const char* arch : {"llama", "qwen2"}) {
    auto e = load(arch);
    const auto a = ids(37, 1), b = ids(50, 2), c = ids(9, 3);
    const auto whole = logits(*e, request(Mode::kDense, {{a + b + c, false}}));
    const std::vector<PromptSpan> cut{{a, false}, {b, true}, {c, false}};
    EXPECT_LT(distance(whole, logits(*e, request(Mode::kDense, cut))), same_within()) << arch;
  }
}

TEST(Engine, APrefixHitIsDense) {
  auto e = load("llama");
  const auto shared = ids(70, 1);
  RequestStats stats;
  logits(*e, request(Mode::kPrefix, {{shared, false}, fresh(30, 2)}), 1, &stats);
  EXPECT_EQ(stats.fresh, 100);
  const std::vector<PromptSpan> other{{shared, false}, fresh(25, 3)};
  const auto hit = logits(*e, request(Mode::kPrefix, other), 1, &stats);
  EXPECT_EQ(stats.prefix_cached, 70);
  EXPECT_EQ(stats.fresh, 25);
  EXPECT_LT(distance(hit, dense(*e, other)), same_within());
}

// Spans cut otherwise, and a match that ends in the middle of one and of a page.
TEST(Engine, APrefixMatchMayEndAnywhere) {
  const auto text = ids(90, 1);
  for (const int common : {1, 15, 16, 17, 47, 64, 89}) {
    auto e = load("llama");
    logits(*e, request(Mode::kPrefix, {{text, false}}));
    auto head = text;
    head.resize(static_cast<size_t>(common));
    auto tail = ids(20, 2);
    tail[0] = (text[static_cast<size_t>(common)] + 1) % kVocab;
    const std::vector<PromptSpan> other{{head + tail, false}};
    RequestStats stats;
    const auto hit = logits(*e, request(Mode::kPrefix, other), 1, &stats);
    EXPECT_EQ(stats.prefix_cached, common);
    EXPECT_LT(distance(hit, dense(*e, other)), same_within()) << common;
    // The first text is still what it was.
    const auto again = logits(*e, request(Mode::kPrefix, {{text, false}}), 1, &stats);
    EXPECT_EQ(stats.prefix_cached, 89);
    EXPECT_LT(distance(again, dense(*e, {{text, false}})), same_within()) << common;
  }
}

TEST(Engine, AConversationContinuesOnItsOwnRows) {
  auto e = load("qwen2");
  auto said = ids(50, 1);
  for (uint32_t turn = 0; turn < 4; ++turn) {
    const Answer answer = run(*e, request(Mode::kPrefix, {{said, false}}, 10));
    ASSERT_EQ(answer.tokens.size(), 10U);
    // All but the last generated token have rows, and so has what went before.
    EXPECT_EQ(answer.outcome.stats.prefix_cached, turn == 0 ? 0 : int64_t(said.size()) - 13);
    EXPECT_EQ(answer.tokens,
              run(*load("qwen2"), request(Mode::kDense, {{said, false}}, 10)).tokens);
    said = said + answer.tokens + ids(12, 100 + turn);
  }
}

TEST(Engine, ANamespaceIsAnotherStore) {
  auto e = load("llama");
  Request r = request(Mode::kReuse, {fresh(20, 1), document(40, 2), document(40, 3), fresh(9, 4)});
  run(*e, r);
  r.cache_namespace = "other";
  const RequestStats stats = run(*e, r).outcome.stats;
  EXPECT_EQ(stats.prefix_cached + stats.document_cached, 0);
}

TEST(Engine, CacheReadAndWriteAreObeyed) {
  auto e = load("llama");
  Request r = request(Mode::kReuse, {fresh(20, 1), document(40, 2), document(40, 3), fresh(9, 4)});
  r.cache_write = false;
  const auto tokens = run(*e, r).tokens;
  EXPECT_EQ(e->pool().num_used(), 0);
  r.cache_write = true;
  EXPECT_EQ(run(*e, r).outcome.stats.fresh, 109);
  r.cache_read = false;
  const Answer blind = run(*e, r);
  EXPECT_EQ(blind.outcome.stats.fresh, 109);
  EXPECT_EQ(blind.tokens, tokens);
}

TEST(Engine, CompanyMakesAnotherVariant) {
  auto e = load("llama");
  Request r = request(Mode::kReuse, {fresh(20, 1), document(40, 2), document(40, 3), fresh(9, 4)});
  const auto alone = logits(*e, r);
  e->clear_cache();
  r.company = ids(30, 9);
  RequestStats stats;
  EXPECT_GT(distance(alone, logits(*e, r, 1, &stats)), same_within());
  EXPECT_EQ(stats.fresh, 109);
  // Company that is what really stands before the document makes its rows exact in value.
  e->clear_cache();
  r.company = ids(40, 2);
  EXPECT_LT(distance(dense(*e, r.spans), logits(*e, r)), same_within());
}

// A document known from elsewhere, at the very end of a prompt: the last row is computed.
TEST(Engine, APromptMayEndInADocument) {
  auto e = load("llama");
  const std::vector<PromptSpan> ends{fresh(20, 1), document(40, 3)};
  const auto want = dense(*e, ends);
  logits(*e, request(Mode::kReuse, {fresh(20, 1), document(40, 2), document(40, 3), fresh(9, 4)}));
  for (const Mode mode : {Mode::kReuse, Mode::kBoundary, Mode::kPrefix, Mode::kSelective}) {
    EXPECT_LT(distance(want, logits(*e, request(mode, ends))), same_within()) << mode_name(mode);
    EXPECT_EQ(run(*e, request(mode, ends, 3)).tokens.size(), 3U);
  }
}

TEST(Engine, EveryPageComesBack) {
  auto e = load("llama");
  const std::vector<PromptSpan> spans{fresh(20, 1), document(40, 2), fresh(6, 3), document(50, 4),
                                      fresh(9, 5)};
  for (const Mode mode :
       {Mode::kDense, Mode::kPrefix, Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
    for (int i = 0; i < 2; ++i) run(*e, request(mode, spans));
    EXPECT_EQ(e->pool().num_used() > 0, mode != Mode::kDense);
    e->clear_cache();
    EXPECT_EQ(e->pool().num_used(), 0) << mode_name(mode);
  }
}

TEST(Engine, ACancelledRequestLeavesNoPageAndNoWrongRow) {
  const std::vector<PromptSpan> spans{fresh(20, 1), document(40, 2), fresh(6, 3), document(50, 4),
                                      fresh(39, 5)};
  for (const Mode mode :
       {Mode::kDense, Mode::kPrefix, Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
    auto e = load("llama");
    const auto want = run(*load("llama"), request(mode, spans)).tokens;
    for (int stop = 0; stop < 8; ++stop) {
      Answer answer;
      answer.stop_prefill = stop;
      e->run(request(mode, spans), 0, answer);
      EXPECT_EQ(answer.num_done, 1);
      EXPECT_EQ(answer.outcome.finish, FinishReason::kCancelled) << stop;
      EXPECT_TRUE(answer.outcome.status.ok());
    }
    Answer early;
    early.stop_after = 2;
    e->run(request(mode, spans), 0, early);
    EXPECT_EQ(early.outcome.finish, FinishReason::kCancelled);
    EXPECT_EQ(early.tokens.size(), 2U);
    EXPECT_EQ(run(*e, request(mode, spans)).tokens, want) << mode_name(mode);
    e->clear_cache();
    EXPECT_EQ(e->pool().num_used(), 0) << mode_name(mode);
  }
}

TEST(Engine, APoolTooSmallNamesBothNumbersAndGoesOn) {
  Engine::Options options;
  options.kv_bytes = 8 * column_bytes();
  auto e = load("llama", options);
  EXPECT_EQ(e->pool().num_pages(), 8 * kLayers * kKvHeads);
  for (const Mode mode :
       {Mode::kDense, Mode::kPrefix, Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
    Answer answer;
    e->run(request(mode, {fresh(60, 1), document(50, 2), document(60, 3), fresh(60, 4)}), 0,
           answer);
    EXPECT_EQ(answer.num_done, 1);
    EXPECT_EQ(answer.outcome.finish, FinishReason::kError);
    EXPECT_EQ(answer.outcome.status.code(), Code::kExhausted);
    EXPECT_THAT(answer.outcome.status.message(), testing::MatchesRegex(".*[0-9]+ .*[0-9]+ .*"));
    EXPECT_EQ(run(*e, request(mode, {fresh(20, 5)}, 4)).tokens.size(), 4U) << mode_name(mode);
  }
  e->clear_cache();
  EXPECT_EQ(e->pool().num_used(), 0);
}

TEST(Engine, GenerationThatFillsThePoolIsAnErrorNotACrash) {
  Engine::Options options;
  options.kv_bytes = 6 * column_bytes();
  auto e = load("llama", options);
  Answer answer;
  e->run(request(Mode::kPrefix, {fresh(20, 1)}, 200), 0, answer);
  EXPECT_EQ(answer.outcome.status.code(), Code::kExhausted);
  EXPECT_GT(answer.tokens.size(), 20U);
  EXPECT_EQ(run(*e, request(Mode::kPrefix, {fresh(10, 2)}, 4)).tokens.size(), 4U);
}

// A pool that holds little more than one request: every request throws others' rows out.
TEST(Engine, EvictionKeepsAnswersRight) {
  Engine::Options options;
  options.kv_bytes = 26 * column_bytes();
  for (const Mode mode : {Mode::kPrefix, Mode::kReuse}) {
    auto small = load("llama", options), large = load("llama");
    for (uint32_t i = 0; i < 24; ++i) {
      const std::vector<PromptSpan> spans{fresh(20, i % 2), document(40, 10 + i % 5),
                                          document(50, 20 + i % 3), fresh(12, 30 + i)};
      const Request r = request(mode, spans, 6);
      large->clear_cache();
      EXPECT_EQ(run(*small, r).tokens, run(*large, r).tokens) << mode_name(mode) << i;
      EXPECT_LE(small->pool().num_used(), small->pool().num_pages());
    }
    small->clear_cache();
    EXPECT_EQ(small->pool().num_used(), 0);
  }
}

TEST(Engine, CheckNamesWhatIsWrong) {
  auto e = load("llama");
  const auto message = [&](const Request& r) {
    const Status status = e->check(r);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    Answer answer;
    e->run(r, 0, answer);  // run() refuses the same
    EXPECT_EQ(answer.outcome.status.message(), status.message());
    return status.message();
  };
  EXPECT_THAT(message(request(Mode::kDense, {})), HasSubstr("no tokens"));
  EXPECT_THAT(message(request(Mode::kDense, {{{1, 300}, false}})),
              testing::AllOf(HasSubstr("token id 300"), HasSubstr("vocabulary has 300")));
  EXPECT_THAT(message(request(Mode::kDense, {{{-1}, false}})), HasSubstr("-1"));
  EXPECT_THAT(message(request(Mode::kDense, {fresh(512, 1)})),
              testing::AllOf(HasSubstr("512 tokens"), HasSubstr("holds 512")));
  Request r = request(Mode::kBoundary, {fresh(5, 1)});
  r.boundary_rows = -3;
  EXPECT_THAT(message(r), HasSubstr("-3"));
  r = request(Mode::kDense, {fresh(5, 1)});
  r.company = {301};
  EXPECT_THAT(message(r), HasSubstr("301"));
  r = request(Mode::kDense, {fresh(5, 1)});
  r.max_tokens = -1;
  EXPECT_THAT(message(r), HasSubstr("-1"));
}

// Stop ids come from the model's files and from requests: no index may be trusted.
TEST(Engine, StopTokensEndTheAnswerAndMayLieOutsideTheVocabulary) {
  auto e = load("llama");
  Request r = request(Mode::kDense, {fresh(30, 1)}, 12);
  const auto tokens = run(*e, r).tokens;
  r.stop_tokens = {tokens[5]};
  const Answer stopped = run(*e, r);
  EXPECT_EQ(stopped.outcome.finish, FinishReason::kStop);
  EXPECT_LE(stopped.tokens.size(), 5U);
  r.min_tokens = 9;
  const Answer longer = run(*e, r);
  EXPECT_GE(longer.tokens.size(), 9U);
  r.stop_tokens = {-1, kVocab, 1 << 30};
  EXPECT_EQ(run(*e, r).tokens, tokens);
}

TEST(Engine, GenerationEndsAtTheContext) {
  auto e = load("llama");
  const Answer answer = run(*e, request(Mode::kPrefix, {fresh(500, 1)}, 100));
  EXPECT_EQ(answer.outcome.finish, FinishReason::kLength);
  EXPECT_GE(answer.tokens.size(), 11U);
  EXPECT_LE(answer.tokens.size(), 12U);
}

TEST(Engine, NoTokensWantedIsAnAnswerToo) {
  auto e = load("llama");
  const Answer answer = run(*e, request(Mode::kPrefix, {fresh(30, 1)}, 0));
  EXPECT_TRUE(answer.tokens.empty());
  EXPECT_EQ(answer.outcome.finish, FinishReason::kLength);
}

TEST(Engine, EvaluateRefusesRowsThatTheModeNeverRuns) {
  auto e = load("llama");
  std::vector<float> out;
  const Request r =
      request(Mode::kReuse, {fresh(20, 1), document(40, 2), document(40, 3), fresh(9, 4)});
  EXPECT_EQ(e->evaluate(r, 10, out, nullptr).code(), Code::kInvalidArgument);
  EXPECT_TRUE(e->evaluate(r, 9, out, nullptr).ok());
}

}  // namespace
}  // namespace rk::engine
