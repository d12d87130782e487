#include "kernels/sample/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

namespace rk::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();
using Floats = std::vector<float>;

int32_t pick(const Floats& logits, const SampleOptions& options, uint64_t draw = 0,
             const SampleHistory& history = {}) {
  const auto token = sample(logits, options, history, draw);
  EXPECT_TRUE(token.ok()) << token.status().message();
  return token.ok() ? *token : -1;
}

// How often each token came out of `draws` draws.
std::map<int32_t, double> shares(const Floats& logits, const SampleOptions& options,
                                 int draws = 20000) {
  std::map<int32_t, double> out;
  for (int i = 0; i < draws; ++i) out[pick(logits, options, i)] += 1.0 / draws;
  return out;
}

std::vector<int32_t> kept(const Floats& logits, const SampleOptions& options) {
  std::vector<int32_t> out;
  for (const auto& [token, share] : shares(logits, options, 4000)) out.push_back(token);
  return out;
}

Floats log_of(std::initializer_list<double> probabilities) {
  Floats out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)));
  return out;
}

TEST(Sample, GreedyTakesTheLowestOfTheBest) {
  Floats logits(1000, -1.0F);
  logits[700] = logits[37] = logits[999] = 3.0F;
  EXPECT_EQ(pick(logits, {}), 37);
  logits[500] = kNan;
  logits[10] = kInf;
  EXPECT_EQ(pick(logits, {}), 37);
  EXPECT_EQ(pick({-kInf, kNan, -1e30F, -kInf}, {}), 2);
  EXPECT_EQ(pick(logits, {.temperature = 5.0F, .top_k = 1}), 37);
}

TEST(Sample, NoFiniteLogitIsAnError) {
  for (const float temperature : {0.0F, 1.0F}) {
    const auto token = sample(Floats{-kInf, kNan, kInf}, {.temperature = temperature}, {}, 0);
    EXPECT_EQ(token.code(), Code::kInternal);
  }
}

TEST(Sample, SharesFollowTheTemperature) {
  const Floats logits = log_of({0.5, 0.3, 0.2});
  const auto plain = shares(logits, {.temperature = 1.0F});
  EXPECT_NEAR(plain.at(0), 0.5, 0.015);
  EXPECT_NEAR(plain.at(1), 0.3, 0.015);
  EXPECT_NEAR(plain.at(2), 0.2, 0.015);
  const auto sharp = shares(logits, {.temperature = 0.5F});
  EXPECT_NEAR(sharp.at(0), 0.25 / 0.38, 0.015);
  const auto flat = shares(logits, {.temperature = 1e30F});
  for (const auto& [token, share] : flat) EXPECT_NEAR(share, 1.0 / 3, 0.015) << token;
  EXPECT_EQ(flat.size(), 3U);
  for (const float cold : {1e-30F, 1e-45F}) {
    EXPECT_EQ(kept(logits, {.temperature = cold}), (std::vector<int32_t>{0}));
  }
  EXPECT_EQ(kept({3e38F, -3e38F, kNan, -kInf}, {.temperature = 1.0F}), (std::vector<int32_t>{0}));
}

TEST(Sample, FiltersKeepWhatTheyShould) {
  const Floats logits = log_of({0.05, 0.4, 0.15, 0.3, 0.1});
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .top_k = 2}), (Ids{1, 3}));
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .top_k = 99}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .top_p = 0.39F}), (Ids{1}));
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .top_p = 0.41F}), (Ids{1, 3}));
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .top_p = 0.84F}), (Ids{1, 2, 3}));
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .top_p = 1e-9F}), (Ids{1}));
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .min_p = 0.3F}), (Ids{1, 2, 3}));
  // top-p looks at what top-k left: 0.4 / 0.7 and 0.3 / 0.7.
  EXPECT_EQ(kept(logits, {.temperature = 1.0F, .top_k = 2, .top_p = 0.55F}), (Ids{1}));
  EXPECT_EQ(kept({1, 1, 1, 1, 0}, {.temperature = 1.0F, .top_k = 2}), (Ids{0, 1}));
}

// Against a full sort, over sizes and ties that exercise every pass of the selection.
TEST(Sample, TopPIsTheSmallestSufficientSet) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  for (const int size : {1, 2, 50, 3000}) {
    for (const float top_p : {0.1F, 0.5F, 0.9F, 0.999F}) {
      Floats logits(size);
      for (float& x : logits) x = std::round(normal(random) * 8.0F) / 8.0F;
      std::vector<int32_t> order(size);
      for (int i = 0; i < size; ++i) order[i] = i;
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
      double total = 0.0, reached = 0.0;
      for (const float x : logits) total += std::exp(double{x});
      std::vector<bool> allowed(size);
      for (const int32_t id : order) {
        if (reached >= double{top_p} * total * (1.0 + 1e-6)) break;
        allowed[id] = true;
        reached += std::exp(double{logits[id]});
      }
      for (int draw = 0; draw < 500; ++draw) {
        const int32_t id = pick(logits, {.temperature = 1.0F, .top_p = top_p}, draw);
        ASSERT_TRUE(allowed[id]) << "size " << size << " top_p " << top_p << " token " << id;
      }
    }
  }
}

TEST(Sample, PenaltiesAndBias) {
  const Floats logits{2.0F, 1.9F, -1.0F};
  const std::vector<int32_t> zero{0}, zeros{0, 0, 0}, ones{1, 1};
  EXPECT_EQ(pick(logits, {.repetition_penalty = 1.2F}, 0, {.prompt = zero}), 1);
  EXPECT_EQ(pick(logits, {.presence_penalty = 0.2F}, 0, {.prompt = zero}), 0);
  EXPECT_EQ(pick(logits, {.presence_penalty = 0.2F}, 0, {.generated = zeros}), 1);
  EXPECT_EQ(pick(logits, {.frequency_penalty = 0.04F}, 0, {.generated = zero}), 0);
  EXPECT_EQ(pick(logits, {.frequency_penalty = 0.04F}, 0, {.generated = zeros}), 1);
  EXPECT_EQ(pick(logits, {.frequency_penalty = 0.04F}, 0, {.prompt = zeros, .generated = ones}), 0);
  EXPECT_EQ(pick(logits, {.logit_bias = {{2, 4.0F}}}), 2);
  // A negative logit is multiplied, so it falls too; ids of no token are passed over.
  const std::vector<int32_t> two{2, 77, -5};
  EXPECT_EQ(pick({-1.1F, -1.2F, -1.0F}, {.repetition_penalty = 1.15F}, 0, {.prompt = two}), 0);
}

TEST(Sample, DrawsDependOnSeedAndDrawOnly) {
  const Floats logits(500, 0.0F);
  const SampleOptions a{.temperature = 1.0F, .seed = 1}, b{.temperature = 1.0F, .seed = 2};
  int same_draw = 0, same_seed = 0;
  for (uint64_t draw = 0; draw < 200; ++draw) {
    EXPECT_EQ(pick(logits, a, draw), pick(logits, a, draw));
    same_draw += pick(logits, a, draw) == pick(logits, b, draw) ? 1 : 0;
    same_seed += pick(logits, a, draw) == pick(logits, a, draw + 1) ? 1 : 0;
  }
  EXPECT_LT(same_draw, 10);
  EXPECT_LT(same_seed, 10);
}

TEST(Sample, OptionsOutOfRangeAreNamed) {
  const auto message = [](const SampleOptions& o) {
    const Status status = check_sample_options(o, 100);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(check_sample_options({}, 100).ok());
  EXPECT_TRUE(check_sample_options({.temperature = 1e30F, .top_p = 0.1F}, 100).ok());
  EXPECT_NE(message({.temperature = -1.0F}).find("temperature is -1"), std::string::npos);
  EXPECT_NE(message({.temperature = kNan}).find("temperature"), std::string::npos);
  EXPECT_NE(message({.top_k = -1}).find("top_k"), std::string::npos);
  EXPECT_NE(message({.top_p = 0.0F}).find("top_p"), std::string::npos);
  EXPECT_NE(message({.top_p = kNan}).find("top_p"), std::string::npos);
  EXPECT_NE(message({.min_p = 1.0F}).find("min_p"), std::string::npos);
  EXPECT_NE(message({.repetition_penalty = 0.0F}).find("repetition_penalty"), std::string::npos);
  EXPECT_NE(message({.presence_penalty = 3.0F}).find("presence_penalty"), std::string::npos);
  EXPECT_NE(message({.frequency_penalty = kInf}).find("frequency_penalty"), std::string::npos);
  EXPECT_NE(message({.logit_bias = {{100, 1.0F}}}).find("100"), std::string::npos);
  EXPECT_NE(message({.logit_bias = {{1, 101.0F}}}).find("101"), std::string::npos);
}

TEST(Logprobs, AreTheLogSoftmax) {
  const Floats logits{1.0F, 3.0F, kNan, 3.0F, -kInf, 0.0F};
  const double norm = std::log(std::exp(1.0) + 2 * std::exp(3.0) + 1.0);
  const Logprobs out = logprobs(logits, 0, 3);
  EXPECT_EQ(out.chosen.token, 0);
  EXPECT_NEAR(out.chosen.logprob, 1.0 - norm, 1e-6);
  ASSERT_EQ(out.top.size(), 3U);
  EXPECT_EQ(out.top[0].token, 1);
  EXPECT_EQ(out.top[1].token, 3);
  EXPECT_EQ(out.top[2].token, 0);
  EXPECT_NEAR(out.top[0].logprob, 3.0 - norm, 1e-6);
  EXPECT_EQ(logprobs(logits, 4, 0).chosen.logprob, -kInf);
  EXPECT_EQ(logprobs(logits, 1, 99).top.size(), 4U);
}

}  // namespace
}  // namespace rk::kernels
