#include "engine/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/card_testing.h"

namespace rk::engine {
namespace {

using testing::HasSubstr;

TEST(Gate, TheFastestEntryThatReachesTheLevelIsServed) {
  const Card c = card();
  const auto ask = [&](Level level, int64_t tokens = 4000, int documents = 4,
                       Fit fit = Fit::kLead) {
    return choose_mode(&c, {level, tokens, documents, fit});
  };
  EXPECT_EQ(ask(Level::kFast).mode, Mode::kBoundary);  // reuse is faster and reaches nothing
  EXPECT_EQ(ask(Level::kBalanced).mode, Mode::kSelective);
  EXPECT_EQ(ask(Level::kBalanced).ratio, 0.3);
  EXPECT_EQ(ask(Level::kBalanced).level, Level::kBalanced);
  EXPECT_EQ(ask(Level::kStrict).mode, Mode::kPrefix);
  EXPECT_THAT(ask(Level::kStrict).reason, HasSubstr("no mode on the card reaches strict"));
  EXPECT_EQ(ask(Level::kFast, 4000, 4, Fit::kPredecessor).mode, Mode::kBoundary);  // a better fit
  const std::tuple<int64_t, int, Fit> uncovered[] = {{999, 4, Fit::kLead},
                                                     {8001, 4, Fit::kLead},
                                                     {4000, 1, Fit::kLead},
                                                     {4000, 11, Fit::kLead},
                                                     {4000, 4, Fit::kOtherLead}};
  for (const auto& [tokens, documents, fit] : uncovered) {
    const GateAnswer answer = ask(Level::kFast, tokens, documents, fit);
    EXPECT_EQ(answer.mode, Mode::kPrefix);
    EXPECT_THAT(answer.reason, HasSubstr("covers no prompt"));
  }
  EXPECT_EQ(choose_mode(nullptr, {Level::kFast, 4000, 4, Fit::kLead}).mode, Mode::kPrefix);
}

TEST(Gate, AModeNamedByHandPassesOnlyAtTheMeasuredSetting) {
  const Card c = card();
  const GateQuestion here{Level::kFast, 4000, 4, Fit::kLead};
  EXPECT_EQ(level_of_mode(&c, here, setting_of(Mode::kSelective, 0.3, 0)), Level::kBalanced);
  EXPECT_EQ(level_of_mode(&c, here, setting_of(Mode::kSelective, 0.2, 0)), Level::kNone);
  EXPECT_EQ(level_of_mode(&c, here, setting_of(Mode::kBoundary, 0, 0)), Level::kFast);
  EXPECT_EQ(level_of_mode(&c, here, setting_of(Mode::kBoundary, 0, 8)), Level::kNone);
  EXPECT_EQ(level_of_mode(&c, here, setting_of(Mode::kReuse, 0, 0)), Level::kNone);
  EXPECT_EQ(
      level_of_mode(&c, {Level::kFast, 90000, 4, Fit::kLead}, setting_of(Mode::kBoundary, 0, 0)),
      Level::kNone);
  EXPECT_EQ(level_of_mode(nullptr, here, setting_of(Mode::kBoundary, 0, 0)), Level::kNone);
}

// What finds planted facts may fail on prose: the setting is as faithful as the worst says.
TEST(Gate, ASettingIsAsFaithfulAsTheWorstDataThatCoversThePrompt) {
  Card c = card();
  CardEntry prose = c.entries[1];
  prose.data = "data";
  prose.needle_n = 0;
  prose.needle_loss_high = 1;  // it has no planted facts to lose
  prose.max_tokens = 6000;
  prose.n = 75;
  c.entries.push_back(prose);
  const auto level = [&](int64_t tokens) {
    return level_of_mode(&c, {Level::kFast, tokens, 4, Fit::kLead},
                         setting_of(Mode::kSelective, 0.3, 0));
  };
  EXPECT_EQ(level(4000), Level::kBalanced);
  c.entries.back().kl_high = 0.12;
  c.entries.back().ttft_ratio = 0.4;
  EXPECT_EQ(level(4000), Level::kFast);
  EXPECT_EQ(level(6001), Level::kBalanced);  // it does not speak of longer prompts
  const GateQuestion here{Level::kFast, 4000, 4, Fit::kLead};
  c.entries[2].ttft_ratio = 0.5;  // selective is the faster one now
  const GateAnswer answer = choose_mode(&c, here);
  EXPECT_EQ(answer.mode, Mode::kSelective);
  EXPECT_EQ(answer.level, Level::kFast);
  EXPECT_THAT(answer.reason, HasSubstr("KL at most 0.12, needle loss at most 0.05, n 275"));
  c.entries.back().kl_high = 0.16;
  EXPECT_EQ(level(4000), Level::kNone);
  c.entries.back().kl_high = 0.01;
  c.entries.back().retained_high = 0.94;
  EXPECT_EQ(level(4000), Level::kFast);
  std::swap(c.entries[1], c.entries.back());  // in whatever order
  EXPECT_EQ(level(4000), Level::kFast);
}

TEST(Gate, DataWithoutPlantedFactsAllowsNothingByItself) {
  Card c = card();
  for (CardEntry& e : c.entries) {
    e.needle_n = 0;
    e.needle_loss_high = 1;
  }
  const GateAnswer answer = choose_mode(&c, {Level::kFast, 4000, 4, Fit::kLead});
  EXPECT_EQ(answer.mode, Mode::kPrefix);
  EXPECT_THAT(answer.reason, HasSubstr("no mode on the card reaches fast"));
}

// Blocks and single rows are settings of their own.
TEST(Gate, HowRowsAreTakenIsPartOfASetting) {
  Card c = card();
  c.entries.push_back(c.entries[1]);
  c.entries.back().select = SelectUnits::kBoth;
  c.entries.back().kl_high = 0.009;
  c.entries.back().needle_loss_high = 0.009;
  const GateQuestion strict{Level::kStrict, 4000, 4, Fit::kLead};
  const GateAnswer answer = choose_mode(&c, strict);
  EXPECT_EQ(answer.mode, Mode::kSelective);
  EXPECT_EQ(answer.select, SelectUnits::kBoth);
  EXPECT_THAT(answer.reason, HasSubstr("selective:0.3:both reaches strict"));
  const auto level = [&](SelectUnits units) {
    return level_of_mode(&c, strict, setting_of(Mode::kSelective, 0.3, 0, units));
  };
  EXPECT_EQ(level(SelectUnits::kBlocks), Level::kBalanced);
  EXPECT_EQ(level(SelectUnits::kBoth), Level::kStrict);
  EXPECT_EQ(level(SelectUnits::kRows), Level::kNone);
  GateQuestion balanced{Level::kBalanced, 4000, 4, Fit::kLead};
  balanced.off = {{setting_of(Mode::kSelective, 0.3, 0, SelectUnits::kBoth), Level::kFast, 0.2, 9}};
  EXPECT_EQ(choose_mode(&c, balanced).select, SelectUnits::kBlocks);
}

TEST(Gate, ASettingsNameIsReadAsTheSetting) {
  for (const Setting& s :
       {setting_of(Mode::kSelective, 0.15, 7),
        setting_of(Mode::kBoundary, 0, 5, SelectUnits::kRows),
        setting_of(Mode::kSelective, 0.3, 0, SelectUnits::kBoth),
        setting_of(Mode::kCacheblend, 0.3, 0, SelectUnits::kRows),
        setting_of(Mode::kReuse, 0, 0, SelectUnits::kBoth), setting_of(Mode::kRedknot, 0.6, 0)}) {
    Request r;
    ASSERT_TRUE(read_mode(setting_name(s), r).ok()) << setting_name(s);
    EXPECT_EQ(setting_of(r.mode, mode_share(r), r.boundary_rows, r.select), s) << setting_name(s);
  }
  EXPECT_EQ(setting_name(setting_of(Mode::kSelective, 0.3, 0)), "selective:0.3");
  EXPECT_EQ(setting_name(setting_of(Mode::kSelective, 0.3, 0, SelectUnits::kRows)),
            "selective:0.3:rows");
}

TEST(Gate, TheFitNearestToThePromptsDecides) {
  Card c = card();
  CardEntry behind = c.entries[1];
  behind.fit = Fit::kPredecessor;
  behind.kl_high = 0.009;
  behind.needle_loss_high = 0.009;
  c.entries.insert(c.entries.begin(), behind);
  const auto level = [&](Fit fit) {
    return level_of_mode(&c, {Level::kFast, 4000, 4, fit}, setting_of(Mode::kSelective, 0.3, 0));
  };
  EXPECT_EQ(level(Fit::kPredecessor), Level::kStrict);
  EXPECT_EQ(level(Fit::kCompany), Level::kBalanced);
  std::swap(c.entries[0], c.entries[2]);
  EXPECT_EQ(level(Fit::kPredecessor), Level::kStrict);
}

}  // namespace
}  // namespace rk::engine
