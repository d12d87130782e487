#include "rag/measured_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/gate.h"
#include "rag/tasks.h"

namespace rk::rag {
namespace {

SampleResult sample(int i, double kl, bool lost) {
  SampleResult r{.id = cat("mk-", i), .task = "mk", .config = "c"};
  r.length_tokens = 4096;
  r.prompt_tokens = 3900 + i % 10;
  r.num_documents = 8;
  r.needle = true;
  const auto mode = [&](const char* name, double score, double its_kl, double ttft) {
    return ModeResult{.mode = name,
                      .answer_tokens = 4,
                      .score = score,
                      .kl = its_kl,
                      .kl_tokens = 4,
                      .same_top1 = 4,
                      .same_answer = true,
                      .ttft_ms = ttft};
  };
  r.modes = {mode("dense", 1, 0, 100), mode("prefix", 1, 0, 95),
             mode("selective:0.3", lost ? 0 : 1, kl, 40)};
  return r;
}

TEST(MeasuredCard, StatesWhatWasMeasuredAndTheGateReadsIt) {
  std::vector<SampleResult> samples;
  for (int i = 0; i < 400; ++i) samples.push_back(sample(i, i % 2 == 0 ? 0.02 : 0.04, i < 4));
  std::vector<const SampleResult*> results;
  for (const auto& s : samples) results.push_back(&s);
  Summary summary = summarize(results, 5);
  summary.configuration.fields = {{"model", "tiny"}, {"commit", "abc"}};
  summary.provenance = {{"command", "redknot bench rag"}};
  const engine::Card card = measured_card(summary, results, {"w", "p", "f16"}, engine::Fit::kLead);
  EXPECT_EQ(card.model, "tiny");
  EXPECT_EQ(card.provenance, "commit abc; redknot bench rag");
  ASSERT_EQ(card.entries.size(), 1U);  // dense and prefix need none
  const engine::CardEntry& e = card.entries[0];
  EXPECT_EQ(e.mode, engine::Mode::kSelective);
  EXPECT_EQ(e.ratio, 0.3);
  EXPECT_EQ(e.n, 400);
  EXPECT_EQ(e.min_tokens, 1950);
  EXPECT_EQ(e.max_tokens, 3909);
  EXPECT_EQ(e.min_documents, 2);
  EXPECT_EQ(e.max_documents, 8);
  EXPECT_NEAR(e.mean_kl, 0.03, 1e-9);
  EXPECT_GT(e.kl_high, 0.03);
  EXPECT_LT(e.kl_high, 0.035);
  EXPECT_EQ(e.needle_n, 400);
  EXPECT_EQ(e.needle_lost, 4);
  EXPECT_GT(e.needle_loss_high, 0.01);
  EXPECT_LT(e.needle_loss_high, 0.03);
  EXPECT_NEAR(e.dense_score, 1, 1e-9);
  EXPECT_NEAR(e.mode_score, 0.99, 1e-9);
  EXPECT_NEAR(e.ttft_ratio, 0.4, 1e-9);
  EXPECT_EQ(engine::level_of(e), engine::Level::kBalanced);

  const auto read = engine::Card::parse(card.to_json(), "card");
  ASSERT_TRUE(read.ok()) << read.status().message();
  const auto answer =
      engine::choose_mode(&*read, {engine::Level::kBalanced, 3905, 8, engine::Fit::kLead});
  EXPECT_EQ(answer.mode, engine::Mode::kSelective);
  EXPECT_EQ(answer.ratio, 0.3);
}

// Each of a run's ways to take rows is an entry, and none widens another's range.
TEST(MeasuredCard, HowRowsAreTakenIsAnEntryOfItsOwn) {
  std::vector<SampleResult> samples;
  for (int i = 0; i < 400; ++i) {
    samples.push_back(sample(i, 0.04, false));
    SampleResult& r = samples.back();
    r.modes.push_back(r.modes[2]);
    r.modes.back().mode = "selective:0.3:both";
    r.modes.back().kl = 0.02;
    r.modes.back().ttft_ms = 35;
    if (i % 2 == 0) continue;
    r.length_tokens = 8192;
    r.prompt_tokens = 8000;
    r.modes.erase(r.modes.begin() + 2);
  }
  std::vector<const SampleResult*> results;
  for (const auto& s : samples) results.push_back(&s);
  const engine::Card card =
      measured_card(summarize(results, 5), results, {"w", "p", "f16"}, engine::Fit::kLead);
  ASSERT_EQ(card.entries.size(), 3U);
  for (const engine::CardEntry& e : card.entries) {
    const bool both = e.select == engine::SelectUnits::kBoth;
    EXPECT_NEAR(e.mean_kl, both ? 0.02 : 0.04, 1e-9);
    EXPECT_TRUE(both || e.max_tokens < 5000);
  }
  const auto read = engine::Card::parse(card.to_json(), "card");
  ASSERT_TRUE(read.ok()) << read.status().message();
  engine::GateQuestion here{engine::Level::kBalanced, 8000, 8, engine::Fit::kLead};
  EXPECT_EQ(engine::choose_mode(&*read, here).select, engine::SelectUnits::kBoth);
  here.prompt_tokens = 3905;
  EXPECT_EQ(engine::choose_mode(&*read, here).select, engine::SelectUnits::kBoth);
  here.off = {{engine::setting_of(engine::Mode::kSelective, 0.3, 0, engine::SelectUnits::kBoth),
               engine::Level::kFast, 0.2, 9}};
  EXPECT_EQ(engine::choose_mode(&*read, here).select, engine::SelectUnits::kBlocks);
}

TEST(MeasuredCard, ALongerMeasurementCoversWhatLiesBetweenItAndTheNextShorterOne) {
  std::vector<SampleResult> samples;
  for (int i = 0; i < 40; ++i) {
    samples.push_back(sample(i, 0.01, false));
    if (i % 2 == 0) continue;
    samples.back().length_tokens = 8192;
    samples.back().prompt_tokens = 8000;
  }
  std::vector<const SampleResult*> results;
  for (const auto& s : samples) results.push_back(&s);
  const engine::Card card =
      measured_card(summarize(results, 5), results, {"w", "p", "f16"}, engine::Fit::kLead);
  ASSERT_EQ(card.entries.size(), 2U);
  const bool first_is_short = card.entries[0].max_tokens < 5000;
  EXPECT_EQ(card.entries[first_is_short ? 0 : 1].max_tokens, 3908);
  EXPECT_EQ(card.entries[first_is_short ? 1 : 0].min_tokens, 3909);
}

// Samples of the user's: an entry of their own, up to where the planted facts were measured.
TEST(MeasuredCard, DataStandsBesideThePlantedFacts) {
  std::vector<SampleResult> samples;
  for (int i = 0; i < 200; ++i) {
    samples.push_back(sample(i, 0.02, false));
    if (i % 2 == 0) continue;
    SampleResult& r = samples.back();
    r.task = kDataTask;
    r.needle = false;
    r.prompt_tokens = 3000;
    r.num_documents = 5;
    r.modes[2].kl = 0.1;
  }
  std::vector<const SampleResult*> results;
  for (const auto& s : samples) results.push_back(&s);
  const engine::Card card =
      measured_card(summarize(results, 5), results, {"w", "p", "f16"}, engine::Fit::kLead);
  ASSERT_EQ(card.entries.size(), 2U);
  const bool facts_first = card.entries[0].needle_n > 0;
  const engine::CardEntry &facts = card.entries[facts_first ? 0 : 1],
                          &data = card.entries[facts_first ? 1 : 0];
  EXPECT_EQ(facts.min_tokens, 1950);
  EXPECT_EQ(facts.max_tokens, 3908);
  EXPECT_THAT(facts.data, testing::StartsWith("mk"));
  EXPECT_EQ(data.n, 100);
  EXPECT_EQ(data.min_tokens, 1500);
  EXPECT_EQ(data.max_tokens, 3908);
  EXPECT_EQ(data.max_documents, 8);
  EXPECT_THAT(data.data, testing::StartsWith("data"));
  EXPECT_EQ(data.needle_n, 0);
  EXPECT_NEAR(data.mean_kl, 0.1, 1e-9);
  EXPECT_NEAR(facts.mean_kl, 0.02, 1e-9);
  const engine::GateQuestion here{engine::Level::kFast, 3500, 8, engine::Fit::kLead};
  EXPECT_EQ(
      engine::level_of_mode(&card, here, engine::setting_of(engine::Mode::kSelective, 0.3, 0)),
      engine::Level::kFast);  // 0 lost in 100: at most 3 %, but KL 0.1
}

TEST(MeasuredCard, FewSamplesAreCalledExploratoryAndReachNothing) {
  std::vector<SampleResult> samples;
  for (int i = 0; i < 10; ++i) samples.push_back(sample(i, 0.001, false));
  std::vector<const SampleResult*> results;
  for (const auto& s : samples) results.push_back(&s);
  const engine::Card card =
      measured_card(summarize(results, 5), results, {"w", "p", "f16"}, engine::Fit::kLead);
  ASSERT_EQ(card.entries.size(), 1U);
  EXPECT_THAT(card.entries[0].data, testing::HasSubstr("exploratory"));
  EXPECT_EQ(engine::level_of(card.entries[0]),
            engine::Level::kNone);  // the bound of 0 in 10 is wide
}

}  // namespace
}  // namespace rk::rag
