// What the gate lets through by the cards that come with redknot: the levels in
// docs/fidelity.md.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/gate.h"

namespace rk::engine {
namespace {

const std::string kCards = RK_SOURCE_DIR "/cards";

Card shipped(const char* model) {
  const std::string folders[] = {kCards};
  const auto identity = [&]() -> Result<CardIdentity> {
    RK_TRY(const Card card, Card::load(cat(kCards, "/", model, ".json")));
    return CardIdentity{card.weights, card.plan, card.kv_dtype, false};
  };
  auto cards = find_cards(folders, identity);
  EXPECT_TRUE(cards.ok()) << cards.status().message();
  return cards.ok() && *cards ? **cards : Card();
}

TEST(ShippedCards, QwenCoder15B) {
  if (!std::filesystem::exists(kCards)) GTEST_SKIP() << kCards << " is not here";
  const Card card = shipped("qwen2.5-coder-1.5b-instruct-q4_k_m");
  const auto chosen = [&](Level level, int64_t tokens, int documents, Fit fit = Fit::kCompany) {
    const GateAnswer a = choose_mode(
        &card, {.level = level, .prompt_tokens = tokens, .num_documents = documents, .fit = fit});
    return setting_name({a.mode, a.ratio, a.boundary_rows, a.select});
  };
  EXPECT_EQ(chosen(Level::kFast, 4000, 8), "selective:0.15");
  EXPECT_EQ(chosen(Level::kFast, 8000, 8), "selective:0.15");
  EXPECT_EQ(chosen(Level::kFast, 16000, 16), "selective:0.5");
  EXPECT_EQ(chosen(Level::kBalanced, 3700, 8), "selective:0.5");
  EXPECT_EQ(chosen(Level::kBalanced, 8000, 8), "selective:0.4:both");
  EXPECT_EQ(chosen(Level::kBalanced, 16000, 16), "prefix");
  EXPECT_EQ(chosen(Level::kStrict, 8000, 8), "prefix");
  EXPECT_EQ(chosen(Level::kBalanced, 8000, 8, Fit::kLead), "prefix");
  EXPECT_NE(chosen(Level::kBalanced, 8000, 8, Fit::kPredecessor), "prefix");
}

}  // namespace
}  // namespace rk::engine
