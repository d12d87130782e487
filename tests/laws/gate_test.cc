// The gate on the engine's own path: a card lets a mode through where it was measured, and nowhere
// else.
#include <gmock/gmock.h>

#include "tiny_model.h"

namespace rk::engine::tiny {
namespace {

using testing::HasSubstr;

class GateTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.model = path("llama");
    options_.threads = 1;
    options_.max_step_rows = 16;
    options_.device = test_device();
    auto plain = Engine::create(options_);
    ASSERT_TRUE(plain.ok()) << plain.status().message();
    const auto identity = (*plain)->card_identity();
    ASSERT_TRUE(identity.ok()) << identity.status().message();
    CardEntry e = measured_entry(Mode::kBoundary);
    e.boundary_rows = 5;
    e.min_tokens = 50;
    e.min_documents = 2;
    e.mean_kl = 0.1;
    e.kl_high = 0.12;
    card_ = card_for(*identity, e);
  }
  void TearDown() override {
    std::filesystem::remove(options_.model);
    std::filesystem::remove(options_.model + ".card");
  }
  Result<std::unique_ptr<Engine>> with_card() {
    options_.card = options_.model + ".card";
    std::ofstream(options_.card) << card_.to_json();
    return Engine::create(options_);
  }
  Request two_documents(Level quality) {
    Request r = request(Mode::kAuto, {fresh(8, 1), document(40, 2), document(50, 3), fresh(9, 4)});
    r.quality = quality;
    r.boundary_rows = 32;  // the card's number counts
    return r;
  }
  Engine::Options options_;
  Card card_;
};

TEST_F(GateTest, TheCardDecidesWhatIsServed) {
  auto engine = with_card();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const auto fast = run(**engine, two_documents(Level::kFast)).outcome.stats;
  EXPECT_EQ(fast.mode, Mode::kBoundary);
  EXPECT_EQ(fast.recomputed, 5);  // of the second document: the first is exact
  EXPECT_EQ(fast.gate, "pass");
  EXPECT_EQ(fast.quality_used, Level::kFast);
  EXPECT_THAT(fast.gate_reason, HasSubstr("boundary:5 reaches fast"));

  const auto balanced = run(**engine, two_documents(Level::kBalanced)).outcome.stats;
  EXPECT_EQ(balanced.mode, Mode::kPrefix);
  EXPECT_EQ(balanced.gate, "pass");
  EXPECT_EQ(balanced.quality_used, Level::kStrict);
  EXPECT_THAT(balanced.gate_reason, HasSubstr("no mode on the card reaches balanced"));

  Request long_one = two_documents(Level::kFast);
  long_one.spans.push_back(fresh(330, 5));
  EXPECT_EQ(run(**engine, long_one).outcome.stats.mode, Mode::kPrefix);
}

TEST_F(GateTest, AModeNamedByHandIsServedAndSaysSo) {
  auto engine = with_card();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  Request r = two_documents(Level::kFast);
  r.mode = Mode::kReuse;
  const auto reuse = run(**engine, r).outcome.stats;
  EXPECT_EQ(reuse.mode, Mode::kReuse);
  EXPECT_EQ(reuse.gate, "bypassed");
  EXPECT_EQ(reuse.quality_used, Level::kNone);
  r.mode = Mode::kBoundary;
  r.boundary_rows = 5;
  const auto measured = run(**engine, r).outcome.stats;
  EXPECT_EQ(measured.gate, "pass");
  EXPECT_EQ(measured.quality_used, Level::kFast);
  r.spans = {fresh(60, 1)};  // nothing to splice: it ran exactly
  r.mode = Mode::kReuse;
  EXPECT_EQ(run(**engine, r).outcome.stats.gate, "pass");
}

// The card says how rows are taken: what a request would have counts only where it names the mode.
TEST_F(GateTest, RowsAreTakenAsTheyWereMeasured) {
  card_.entries[0].mode = Mode::kSelective;
  card_.entries[0].ratio = 0.5;
  auto engine = with_card();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  Request r = two_documents(Level::kFast);
  const auto blocks = run(**engine, r).outcome.stats;
  EXPECT_EQ(blocks.mode, Mode::kSelective);
  EXPECT_NE(blocks.recomputed, 25);  // half of the second document to the row
  r.select = SelectUnits::kRows;
  EXPECT_EQ(run(**engine, r).outcome.stats.recomputed_rows, blocks.recomputed_rows);
  r.mode = Mode::kSelective;
  r.selective_ratio = 0.5;
  const auto rows = run(**engine, r).outcome.stats;
  EXPECT_EQ(rows.gate, "bypassed");
  EXPECT_EQ(rows.quality_used, Level::kNone);
  EXPECT_EQ(rows.recomputed, 25);
  r.select = SelectUnits::kBlocks;
  EXPECT_EQ(run(**engine, r).outcome.stats.gate, "pass");
}

TEST_F(GateTest, TheCardSetsHowRowsAreTaken) {
  card_.entries[0].mode = Mode::kSelective;
  card_.entries[0].ratio = 0.5;
  card_.entries[0].select = SelectUnits::kBoth;
  auto engine = with_card();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  Request r = two_documents(Level::kFast);
  const auto both = run(**engine, r).outcome.stats;
  EXPECT_EQ(both.mode, Mode::kSelective);
  EXPECT_EQ(both.gate, "pass");
  EXPECT_EQ(both.recomputed, 25);  // half of the second document to the row
  EXPECT_THAT(both.gate_reason, HasSubstr("selective:0.5:both reaches fast"));
  r.mode = Mode::kSelective;
  r.selective_ratio = 0.5;
  for (const SelectUnits units : {SelectUnits::kBlocks, SelectUnits::kBoth, SelectUnits::kRows}) {
    r.select = units;
    const auto named = run(**engine, r).outcome.stats;
    const bool measured = units == SelectUnits::kBoth;
    EXPECT_EQ(named.gate, measured ? "pass" : "bypassed") << select_name(units);
    EXPECT_EQ(named.quality_used, measured ? Level::kFast : Level::kNone);
    EXPECT_EQ(named.recomputed_rows == both.recomputed_rows, measured);
  }
}

TEST_F(GateTest, RedknotIsLetThroughToo) {
  card_.entries[0].mode = Mode::kRedknot;
  card_.entries[0].ratio = 0.5;
  auto engine = with_card();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const Answer answer = run(**engine, two_documents(Level::kFast));
  EXPECT_TRUE(answer.outcome.status.ok()) << answer.outcome.status.message();
  EXPECT_EQ(answer.outcome.stats.mode, Mode::kRedknot);
}

TEST_F(GateTest, ACardOfSomethingElseIsRefused) {
  card_.weights[0] = card_.weights[0] == '0' ? '1' : '0';
  const auto engine = with_card();
  EXPECT_EQ(engine.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(engine.status().message(), HasSubstr("weights"));
}

}  // namespace
}  // namespace rk::engine::tiny
