// Shadow checks through the whole engine (spec A8).
#include "engine/shadow.h"

#include <gmock/gmock.h>

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using testing::HasSubstr;

std::vector<PromptSpan> spans(uint32_t question) {
  return {fresh(8, 1), document(40, 2), document(50, 3), fresh(9, question)};
}

// Documents that nobody asked about before: no pair recurs, so checks are all the idle work.
std::vector<PromptSpan> new_spans(uint32_t question) {
  return {fresh(8, 1), document(40, 100 + question), document(50, 200 + question),
          fresh(9, question)};
}

std::unique_ptr<Engine> shadowed(double share = 1) {
  Engine::Options options;
  options.shadow = {share, 3};
  return load("llama", options);
}

TEST(ShadowChecks, TheDivergenceIsThatAlongTheAnswer) {
  for (const Mode mode : {Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
    auto e = shadowed();
    Request r = request(mode, spans(6), 9);
    r.boundary_rows = 7;
    const Answer answer = run(*e, r);
    EXPECT_EQ(e->shadow_stats().num_checked, 0);
    EXPECT_GT(finish_idle_work(*e), 2);
    const auto stats = e->shadow_stats();
    ASSERT_EQ(stats.rows.size(), 1U) << mode_name(mode);
    EXPECT_EQ(stats.num_answers, 1);
    EXPECT_EQ(stats.num_sampled, 1);
    EXPECT_EQ(stats.num_checked, 1);
    EXPECT_EQ(stats.num_dropped, 0);
    EXPECT_EQ(stats.rows[0].setting.mode, mode);
    EXPECT_EQ(stats.rows[0].min_tokens, 64);
    EXPECT_FALSE(stats.rows[0].claimed);

    // The same along the same tokens, asked for by hand.
    r.answer_tokens = static_cast<int>(answer.tokens.size()) - 1;
    r.spans.back().tokens.insert(r.spans.back().tokens.end(), answer.tokens.begin(),
                                 answer.tokens.end() - 1);
    const auto num = static_cast<int64_t>(answer.tokens.size());
    const auto lossy = logits(*e, r, num);
    r.mode = Mode::kDense;
    const auto dense = logits(*e, r, num);
    double kl = 0;
    for (int64_t i = 0; i < num; ++i) {
      kl += logits_divergence(std::span(dense).subspan(static_cast<size_t>(i * kVocab), kVocab),
                              std::span(lossy).subspan(static_cast<size_t>(i * kVocab), kVocab));
    }
    EXPECT_GT(kl, 1e-3);
    EXPECT_NEAR(stats.rows[0].mean_kl, kl / static_cast<double>(num), 1e-3 * kl);
  }
}

TEST(ShadowChecks, ExactAnswersAreNeverChecked) {
  auto e = shadowed();
  for (const Mode mode : {Mode::kDense, Mode::kPrefix, Mode::kAuto})
    run(*e, request(mode, spans(6)));
  run(*e, request(Mode::kReuse, {fresh(30, 1)}));                               // nothing to splice
  run(*e, request(Mode::kReuse, {fresh(8, 1), document(40, 2), fresh(9, 7)}));  // exact
  finish_idle_work(*e);
  EXPECT_EQ(e->shadow_stats().num_answers, 0);
  auto off = shadowed(0);
  run(*off, request(Mode::kReuse, spans(6)));
  EXPECT_FALSE(off->idle_work());
  EXPECT_EQ(off->shadow_stats().num_sampled, 0);
}

TEST(ShadowChecks, AnEmptyDocumentBehindThePromptChangesNothing) {
  double kl[2];
  for (const bool with : {false, true}) {
    auto e = shadowed();
    Request r = request(Mode::kReuse, spans(6), 9);
    if (with) r.spans.push_back({{}, true});
    run(*e, r);
    finish_idle_work(*e);
    ASSERT_EQ(e->shadow_stats().num_checked, 1);
    kl[with] = e->shadow_stats().rows[0].mean_kl;
  }
  EXPECT_GT(kl[0], 0);
  EXPECT_EQ(kl[0], kl[1]);
}

// The same prompt and answer, known exactly by now, are followed all the same.
TEST(ShadowChecks, AnAnswerThatIsStoredIsFollowed) {
  auto e = shadowed();
  Request r = request(Mode::kReuse, spans(6), 9);
  const Answer answer = run(*e, r);
  r.mode = Mode::kPrefix;
  r.spans.back().tokens.insert(r.spans.back().tokens.end(), answer.tokens.begin(),
                               answer.tokens.end());
  run(*e, r);
  finish_idle_work(*e);
  EXPECT_EQ(e->shadow_stats().num_checked, 1);
  EXPECT_EQ(e->shadow_stats().num_dropped, 0);
}

TEST(ShadowChecks, RequestsComeFirstAndAnswerTheSame) {
  auto with = shadowed(), without = shadowed(0);
  for (uint32_t question = 10; question < 20; ++question) {
    const Request r = request(Mode::kReuse, new_spans(question), 6);
    EXPECT_EQ(run(*with, r).tokens, run(*without, r).tokens) << question;
    for (uint32_t k = 0; k < question % 4; ++k) with->idle_work();  // one step at a time
  }
  finish_idle_work(*with);
  EXPECT_EQ(with->shadow_stats().num_checked, 10);
}

TEST(ShadowChecks, WhatIsGoneIsDropped) {
  auto e = shadowed();
  Request r = request(Mode::kReuse, spans(6));
  r.cache_write = false;  // its documents are kept by nobody
  run(*e, r);
  finish_idle_work(*e);
  EXPECT_EQ(e->shadow_stats().num_dropped, 1);
  EXPECT_EQ(e->shadow_stats().num_checked, 0);
  for (uint32_t question = 0; question < 40; ++question) {
    run(*e, request(Mode::kReuse, spans(question), 2));
  }
  finish_idle_work(*e);
  const auto stats = e->shadow_stats();
  EXPECT_EQ(stats.num_checked + stats.num_dropped, stats.num_sampled);
  EXPECT_GE(stats.num_checked, 16);
  run(*e, request(Mode::kReuse, spans(6)));
  e->idle_work();
  e->clear_cache();
  EXPECT_EQ(e->pool().num_used(), 0);
  EXPECT_FALSE(e->idle_work());
}

TEST(ShadowChecks, ASmallPoolServesRequestsFirst) {
  const int64_t column =
      int64_t{16} * kHeadDim * 2 * 4 * kLayers * kKvHeads / (test_device().is_cuda() ? 2 : 1);
  for (const int columns : {18, 21, 27}) {
    std::vector<int> served;
    for (const double share : {0.0, 1.0}) {
      Engine::Options options;
      options.shadow = {share, 3};
      options.kv_bytes = columns * column;
      auto e = load("llama", options);
      served.push_back(0);
      for (uint32_t question = 10; question < 30; ++question) {
        Answer answer;
        e->run(request(Mode::kReuse, new_spans(question), 6), 0, answer);
        served.back() += answer.outcome.status.ok();
        for (uint32_t k = 0; k < question % 9; ++k) e->idle_work();
      }
      finish_idle_work(*e);
      e->clear_cache();
      EXPECT_EQ(e->pool().num_used(), 0);
    }
    EXPECT_EQ(served[0], served[1]) << columns;
    EXPECT_TRUE(columns < 27 || served[1] == 20) << served[1];
  }
}

// A card that claims what the mode does not keep is believed until the checks say otherwise.
TEST(ShadowChecks, AModeThatLeavesItsLevelIsChosenNoMore) {
  Engine::Options options;
  options.model = path("llama");
  options.threads = 1;
  options.max_step_rows = 16;
  options.device = test_device();
  auto plain = Engine::create(options);
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  const auto identity = (*plain)->card_identity();
  ASSERT_TRUE(identity.ok()) << identity.status().message();
  CardEntry e = measured_entry(Mode::kBoundary);  // of a KL of 0
  e.boundary_rows = 5;
  const Card card = card_for(*identity, e);
  options.card = options.model + ".shadow_card";
  std::ofstream(options.card) << card.to_json();
  options.shadow = {1, 3};
  auto engine = Engine::create(options);
  std::filesystem::remove(options.card);
  std::filesystem::remove(options.model);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  Request r = request(Mode::kAuto, spans(6), 6);
  for (uint32_t question = 0; question < 8; ++question) {
    r.spans = new_spans(20 + question);
    const auto stats = run(**engine, r).outcome.stats;
    ASSERT_EQ(stats.mode, Mode::kBoundary) << stats.gate_reason;
    EXPECT_EQ(stats.quality_used, Level::kStrict);
    finish_idle_work(**engine);
  }
  const auto rows = (*engine)->shadow_stats().rows;
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_TRUE(rows[0].claimed);
  EXPECT_EQ(rows[0].num_checks, 8);
  ASSERT_GT(rows[0].kl_low, 0.01) << rows[0].mean_kl;
  EXPECT_NE(rows[0].off_from, Level::kNone);
  r.spans = new_spans(40);
  const auto stats = run(**engine, r).outcome.stats;
  EXPECT_EQ(stats.mode, Mode::kPrefix);
  EXPECT_THAT(stats.gate_reason, HasSubstr("boundary:5 is switched off"));
  EXPECT_THAT(stats.gate_reason, HasSubstr(cat("allows ", kl_bound(rows[0].off_from))));
  // Named by hand it is served and says so.
  r.mode = Mode::kBoundary;
  r.boundary_rows = 5;
  const auto named = run(**engine, r).outcome.stats;
  EXPECT_EQ(named.mode, Mode::kBoundary);
  EXPECT_EQ(named.gate, "bypassed");
  EXPECT_EQ(named.quality_used, Level::kNone);
  EXPECT_THAT(named.gate_reason, HasSubstr("switched off"));
  // Another length is another matter.
  r.mode = Mode::kAuto;
  r.spans.insert(r.spans.begin() + 1, fresh(60, 9));
  EXPECT_EQ(run(**engine, r).outcome.stats.mode, Mode::kBoundary);
}

}  // namespace
}  // namespace rk::engine
