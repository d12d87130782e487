#include "kernels/sample/sample_cuda.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/cuda/card_testing.h"

namespace rk::kernels {
namespace {

struct Problem {
  std::vector<float> logits;
  SampleOptions options;
  std::vector<int32_t> prompt, generated;
  uint64_t draw = 0;
};

std::vector<int32_t> on_the_card(const std::vector<Problem>& problems) {
  const auto vocab = static_cast<int64_t>(problems[0].logits.size());
  const auto num = static_cast<int64_t>(problems.size());
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<SampleAdjust> adjust;
  for (const Problem& p : problems) {
    logits.insert(logits.end(), p.logits.begin(), p.logits.end());
    rows.push_back(make_sample_row(p.options, {p.prompt, p.generated}, p.draw, vocab, adjust));
  }
  const CardArray<float> card_logits(logits);
  const CardArray<SampleRow> card_rows(rows);
  const CardArray<SampleAdjust> card_adjust(adjust);
  const CardArray<int32_t> tokens(problems.size());
  const Status status = sample_cuda(card_logits.view(DType::kF32, {num, vocab}), card_rows.data(),
                                    card_adjust.data(), tokens.data(), test_stream());
  EXPECT_TRUE(status.ok()) << status.message();
  return tokens.host();
}

void check(const std::vector<Problem>& problems, const char* what) {
  SCOPED_TRACE(what);
  const auto got = on_the_card(problems);
  for (size_t i = 0; i < problems.size(); ++i) {
    const Problem& p = problems[i];
    const auto want = sample(p.logits, p.options, {p.prompt, p.generated}, p.draw);
    ASSERT_EQ(got[i], want.ok() ? *want : -1)
        << "row " << i << " vocab " << p.logits.size() << " temperature " << p.options.temperature
        << " top_k " << p.options.top_k << " top_p " << p.options.top_p << " min_p "
        << p.options.min_p;
  }
}

std::vector<Problem> problems_of(size_t vocab, int num, float deviation, uint32_t seed,
                                 const std::function<void(Problem&, std::mt19937&)>& change) {
  std::mt19937 random(seed);
  std::vector<Problem> out(num);
  for (int i = 0; i < num; ++i) {
    out[i].logits = normal_values(vocab, seed + i, deviation);
    out[i].options.seed = random();
    out[i].draw = i;
    change(out[i], random);
  }
  return out;
}

TEST(SampleCuda, GreedyTakesTheLowestOfTheLargest) {
  RK_NEEDS_CARD();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const size_t vocab : {1, 7, 1000, 49152, 151936}) {
    check(problems_of(vocab, 6, 3.0F, 1,
                      [](Problem& p, std::mt19937&) {
                        for (float& v : p.logits) v = std::round(v);  // many ties
                      }),
          "ties");
    check(problems_of(vocab, 6, 3.0F, 2,
                      [](Problem& p, std::mt19937& random) {
                        const float odd[] = {kInf, -kInf, NAN, -0.0F, 0.0F};
                        for (float& v : p.logits)
                          v = random() % 3 == 0 ? odd[random() % 5] : -v * v;
                      }),
          "not finite");
  }
  check(problems_of(100, 1, 1.0F, 3,
                    [](Problem& p, std::mt19937&) {
                      for (float& v : p.logits) v = NAN;
                    }),
        "nothing finite");
}

TEST(SampleCuda, DrawsTheHostsToken) {
  RK_NEEDS_CARD();
  for (const size_t vocab : {1, 33, 1000, 49152, 151936}) {
    for (const float deviation : {0.01F, 2.0F, 10.0F}) {
      for (int kind = 0; kind < 6; ++kind) {
        check(problems_of(vocab, 24, deviation, 10 + kind,
                          [&](Problem& p, std::mt19937& random) {
                            SampleOptions& o = p.options;
                            o.temperature = 0.3F + 0.1F * static_cast<float>(random() % 15);
                            if (kind == 1 || kind == 4)
                              o.top_k = 1 + static_cast<int>(random() % 60);
                            if (kind == 2 || kind >= 4) {
                              o.top_p = 0.05F + 0.9F * static_cast<float>(random() % 100) / 100.0F;
                            }
                            if (kind == 3 || kind >= 4) {
                              o.min_p = 0.2F * static_cast<float>(random() % 100) / 100.0F;
                            }
                            if (kind == 5) {
                              for (float& v : p.logits) v = std::round(v * 2.0F) / 2.0F;
                              o.top_k = 1 + static_cast<int>(random() % 2000);
                            }
                          }),
              "draws");
      }
    }
  }
}

TEST(SampleCuda, PenaltiesAndBiases) {
  RK_NEEDS_CARD();
  for (const size_t vocab : {50, 32000}) {
    check(problems_of(vocab, 40, 2.0F, 50,
                      [&](Problem& p, std::mt19937& random) {
                        SampleOptions& o = p.options;
                        o.temperature = random() % 2 == 0 ? 0.0F : 0.8F;
                        o.repetition_penalty = random() % 2 == 0 ? 1.0F : 1.3F;
                        o.presence_penalty = random() % 2 == 0 ? 0.0F : 0.7F;
                        o.frequency_penalty = random() % 2 == 0 ? 0.0F : -0.4F;
                        for (int i = 0; i < 100; ++i) {
                          p.prompt.push_back(static_cast<int32_t>(random() % (vocab + 5)));
                          p.generated.push_back(static_cast<int32_t>(random() % 40) - 1);
                        }
                        for (int i = 0; i < 5; ++i) {
                          o.logit_bias.emplace_back(static_cast<int32_t>(random() % 3), 0.7F);
                        }
                      }),
          "penalties");
  }
}

TEST(SampleAdjust, EntriesOfATokenLieSideBySide) {
  std::vector<SampleAdjust> adjust(1);
  SampleOptions o{.repetition_penalty = 1.5F, .presence_penalty = 1.0F};
  o.logit_bias = {{7, 1.0F}, {3, 2.0F}, {7, 3.0F}};
  const std::vector<int32_t> prompt{7, 9}, generated{9, 9, 100};
  const SampleRow row = make_sample_row(o, {prompt, generated}, 0, 50, adjust);
  EXPECT_EQ(row.adjust_begin, 1);
  ASSERT_EQ(row.adjust_end, 6);
  const int want[][3] = {{3, 0, 0}, {7, 1, 0}, {7, 0, 0}, {7, 0, 0}, {9, 1, 2}};
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(adjust[i + 1].token, want[i][0]);
    EXPECT_EQ(adjust[i + 1].seen, want[i][1]);
    EXPECT_EQ(adjust[i + 1].count, want[i][2]);
  }
  EXPECT_EQ(adjust[3].bias, 1.0F);
  EXPECT_EQ(adjust[4].bias, 3.0F);
}

}  // namespace
}  // namespace rk::kernels
