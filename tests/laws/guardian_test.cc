// Lil's Guardian through the whole engine.
#include "engine/guardian.h"

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;

// Says one token for ever: the only one that may be drawn.
Request stuck(int max_tokens) {
  Request r = request(Mode::kPrefix, {fresh(9, 1)}, max_tokens);
  r.sampling.logit_bias = {{7, 100.0F}};
  return r;
}

TEST(GuardianStops, AnAnswerThatRepeatsItselfEndsThere) {
  auto e = load("llama");
  Request r = stuck(400);
  const Answer free = run(*e, r);
  EXPECT_EQ(free.tokens.size(), 400U);
  EXPECT_EQ(free.outcome.finish, FinishReason::kLength);
  r.guardian = true;
  const Answer stopped = run(*e, r);
  EXPECT_EQ(stopped.tokens.size(), static_cast<size_t>(Guardian::kInterval));
  EXPECT_EQ(stopped.outcome.finish, FinishReason::kGuardian);
  // Where both end it, the limit does.
  r.max_tokens = Guardian::kInterval;
  EXPECT_EQ(run(*e, r).outcome.finish, FinishReason::kLength);
}

TEST(GuardianStops, AnAnswerWithNewsGoesOn) {
  auto e = load("llama");
  Request r = request(Mode::kPrefix, {fresh(9, 1)}, 400);
  r.sampling.temperature = 1.5F;
  r.sampling.seed = 3;
  r.cache_read = false;  // the same steps twice: a card's rounding depends on them
  const Answer free = run(*e, r);
  r.guardian = true;
  const Answer watched = run(*e, r);
  EXPECT_EQ(watched.tokens, free.tokens);
  EXPECT_EQ(watched.outcome.finish, FinishReason::kLength);
}

}  // namespace
}  // namespace rk::engine
