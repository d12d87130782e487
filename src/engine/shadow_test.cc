#include "engine/shadow.h"

#include <gmock/gmock.h>

#include <cmath>

namespace rk::engine {
namespace {

using testing::HasSubstr;

const Setting kReuse = setting_of(Mode::kReuse, 0.3, 7);

TEST(Shadow, ADivergenceIsThatOfTheDistributions) {
  const std::vector<float> p{std::log(0.5F), std::log(0.25F), std::log(0.25F)};
  std::vector<float> q{5, 5, 5};
  EXPECT_NEAR(logits_divergence(p, q), std::log(3.0) - 1.5 * std::log(2.0), 1e-6);
  EXPECT_EQ(logits_divergence(q, q), 0);
  q = {1, 1, -INFINITY};
  EXPECT_EQ(logits_divergence(p, q), INFINITY);
  EXPECT_TRUE(std::isfinite(logits_divergence(q, p)));
  const std::vector<float> broken(p.size(), NAN);
  EXPECT_TRUE(std::isnan(logits_divergence(broken, p)));
}

TEST(Shadow, AShareIsSampledTheSameEveryTime) {
  const auto sampled = [](double share, uint64_t seed) {
    ShadowTracker tracker({share, seed});
    std::vector<bool> out;
    for (int i = 0; i < 2000; ++i) out.push_back(tracker.sample());
    EXPECT_EQ(tracker.stats().num_answers, 2000);
    EXPECT_EQ(tracker.stats().num_sampled, std::count(out.begin(), out.end(), true));
    return out;
  };
  const auto some = sampled(0.2, 1);
  EXPECT_NEAR(static_cast<double>(std::count(some.begin(), some.end(), true)), 400, 60);
  EXPECT_EQ(some, sampled(0.2, 1));
  EXPECT_NE(some, sampled(0.2, 2));
  EXPECT_EQ(std::count_if(some.begin(), some.end(), [](bool b) { return b; }) > 0, true);
  for (const bool b : sampled(0, 1)) EXPECT_FALSE(b);
  for (const bool b : sampled(1, 1)) EXPECT_TRUE(b);
  for (const double bad : {-0.1, 1.1, static_cast<double>(NAN)}) {
    EXPECT_EQ(check_shadow_share(bad).code(), Code::kInvalidArgument) << bad;
  }
}

TEST(Shadow, TheMeanAndItsBoundsAreThose) {
  ShadowTracker tracker({1, 0});
  for (const double kl : {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}) {
    tracker.add(kReuse, 1500, Level::kNone, kl);
  }
  const auto stats = tracker.stats();
  ASSERT_EQ(stats.rows.size(), 1U);
  const ShadowTracker::Row& row = stats.rows[0];
  EXPECT_EQ(setting_name(row.setting), "reuse");
  EXPECT_EQ(row.min_tokens, 1024);
  EXPECT_EQ(row.num_checks, 8);
  EXPECT_DOUBLE_EQ(row.mean_kl, 4.5);
  const double margin = 1.895 * std::sqrt(6.0 / 8);  // Student's t of 7, variance 6
  EXPECT_NEAR(row.kl_low, 4.5 - margin, 1e-3);
  EXPECT_NEAR(row.kl_high, 4.5 + margin, 1e-3);
}

TEST(Shadow, ASureDriftSwitchesOffEarly) {
  ShadowTracker tracker({1, 0});
  for (int i = 0; i < 7; ++i) tracker.add(kReuse, 1000, Level::kBalanced, 0.2 + 0.01 * (i % 2));
  EXPECT_TRUE(tracker.off_at(1000).empty());
  tracker.add(kReuse, 600, Level::kBalanced, 0.21);
  const auto off = tracker.off_at(513);
  ASSERT_EQ(off.size(), 1U);
  EXPECT_EQ(off[0].setting, kReuse);
  EXPECT_EQ(off[0].from, Level::kFast);
  EXPECT_GT(off[0].kl, 0.15);
  EXPECT_EQ(off[0].n, 8);
  EXPECT_TRUE(tracker.off_at(1024).empty());  // another length
  for (int i = 0; i < 300; ++i) tracker.add(kReuse, 1000, Level::kBalanced, 0);
  EXPECT_EQ(tracker.off_at(1000).size(), 1U);  // until the program ends
}

TEST(Shadow, ALevelMustHoldInTheEnd) {
  ShadowTracker tracker({1, 0});
  // A mean below what balanced allows, its upper bound above.
  const auto add = [&](int i) {
    tracker.add(kReuse, 1000, Level::kBalanced, i % 8 == 7 ? 0.36 : 0);
  };
  for (int i = 0; i < 63; ++i) add(i);
  EXPECT_TRUE(tracker.off_at(1000).empty());
  add(63);
  const auto off = tracker.off_at(1000);
  ASSERT_EQ(off.size(), 1U);
  EXPECT_EQ(off[0].from, Level::kBalanced);  // as fast it still serves
  EXPECT_GT(off[0].kl, 0.05);
  EXPECT_LT(off[0].kl, 0.15);
}

TEST(Shadow, OnlyWhatWasClaimedIsRefuted) {
  ShadowTracker tracker({1, 0});
  for (int i = 0; i < 100; ++i) tracker.add(kReuse, 1000, Level::kFast, 0.08);
  EXPECT_TRUE(tracker.off_at(1000).empty());
  for (int i = 0; i < 100; ++i) tracker.add(kReuse, 1000, Level::kNone, 3);  // named by hand
  EXPECT_TRUE(tracker.off_at(1000).empty());
  EXPECT_EQ(tracker.stats().rows.size(), 2U);
  EXPECT_EQ(tracker.stats().num_checked, 200);
}

TEST(Shadow, TheGatePassesOverWhatIsOff) {
  CardEntry e;
  e.mode = Mode::kSelective;
  e.ratio = 0.15;
  e.max_tokens = 4000;
  e.max_documents = 9;
  e.kl_high = 0.04;
  e.retained_high = 1;
  e.needle_loss_high = 0.01;
  e.ttft_ratio = 0.2;
  CardEntry slow = e;
  slow.ratio = 0.5;
  slow.ttft_ratio = 0.6;
  Card card;
  card.entries = {e, slow};
  GateQuestion q{Level::kFast, 1000, 3, Fit::kLead};
  EXPECT_EQ(choose_mode(&card, q).ratio, 0.15);
  q.off = {{setting_of(Mode::kSelective, 0.15, 0), Level::kBalanced, 0.07, 64}};
  const GateAnswer other = choose_mode(&card, q);
  EXPECT_EQ(other.ratio, 0.5);
  EXPECT_THAT(other.reason, HasSubstr("selective:0.15 is switched off"));
  EXPECT_THAT(other.reason, HasSubstr("0.07"));
  EXPECT_THAT(other.reason, HasSubstr("balanced allows 0.05"));
  EXPECT_EQ(level_of_mode(&card, q, setting_of(Mode::kSelective, 0.15, 0)), Level::kNone);
  EXPECT_EQ(level_of_mode(&card, q, setting_of(Mode::kSelective, 0.5, 0)), Level::kBalanced);
  q.off.push_back({setting_of(Mode::kSelective, 0.5, 0), Level::kFast, 0.2, 9});
  EXPECT_EQ(choose_mode(&card, q).mode, Mode::kPrefix);
  // What was refuted for a stricter level only still serves this one.
  q.off = {{setting_of(Mode::kSelective, 0.15, 0), Level::kStrict, 0.02, 64}};
  EXPECT_EQ(choose_mode(&card, q).ratio, 0.15);
}

}  // namespace
}  // namespace rk::engine
