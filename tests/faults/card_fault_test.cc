// A card that fails in the middle of an answer: not one more token, and never another answer. A
// program of its own, for nothing on the card works afterwards.
#include "tiny_model.h"
#include "trap.h"

const rk::Device& rk::test_device() {
  static const Device device = *parse_device("cuda");
  return device;
}

namespace rk::engine::tiny {
namespace {

/// Breaks the card after so many tokens.
struct Breaker : Answer {
  bool on_token(const TokenEvent& event) override {
    if (tokens.size() + 1 == 3) launch_trap();
    return Answer::on_token(event);
  }
};

TEST(CardFault, NothingIsAnsweredAfterIt) {
  if (!open_card(0).ok()) GTEST_SKIP() << "needs a card";
  const auto engine = load("llama");
  ASSERT_NE(engine, nullptr);
  const Request r = request(Mode::kReuse, {fresh(9, 1), document(40, 2), fresh(7, 3)}, 16);
  EXPECT_EQ(run(*engine, r).tokens.size(), 16U);
  EXPECT_TRUE(engine->health().ok());

  Breaker broken;
  engine->run(r, 0, broken);
  EXPECT_EQ(broken.num_done, 1);
  EXPECT_EQ(broken.tokens.size(), 3U);
  EXPECT_EQ(broken.outcome.finish, FinishReason::kError);
  EXPECT_FALSE(broken.outcome.status.ok());
  EXPECT_EQ(engine->health().code(), Code::kUnavailable);

  for (const Mode mode : {Mode::kDense, Mode::kReuse}) {
    Answer refused;
    Request again = r;
    again.mode = mode;
    engine->run(again, 0, refused);
    EXPECT_EQ(refused.num_done, 1);
    EXPECT_TRUE(refused.tokens.empty());
    EXPECT_EQ(refused.outcome.status.code(), Code::kUnavailable);
  }
  EXPECT_FALSE(engine->idle_work());
}

}  // namespace
}  // namespace rk::engine::tiny
