#include "engine/guardian.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace rk::engine {
namespace {

// The definition: from `at` on, the longest piece that begins earlier too.
int64_t factors_one_by_one(const std::vector<int32_t>& text) {
  int64_t factors = 0;
  for (size_t at = 0; at < text.size(); ++factors) {
    size_t longest = 1;
    for (size_t from = 0; from < at; ++from) {
      size_t n = 0;
      while (at + n < text.size() && text[from + n] == text[at + n]) ++n;
      longest = std::max(longest, n);
    }
    at += longest;
  }
  return factors;
}

int64_t factors(const std::vector<int32_t>& text) {
  Lz77Counter counter;
  for (const int32_t token : text) counter.push(token);
  return counter.num_factors();
}

TEST(Lz77Counter, CountsKnownTexts) {
  EXPECT_EQ(factors({}), 0);
  EXPECT_EQ(factors({7}), 1);
  EXPECT_EQ(factors({7, 7, 7, 7}), 2);           // 7 | 777
  EXPECT_EQ(factors({1, 2, 1, 2, 1, 2, 3}), 4);  // 1 | 2 | 1212 | 3
  EXPECT_EQ(factors({1, 2, 3, 4, 5}), 5);
}

TEST(Lz77Counter, IsTheDefinitionAtEveryLength) {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    const uint32_t letters = 1 + round % 6;
    std::vector<int32_t> text;
    Lz77Counter counter;
    const int repeat_from = round % 3 == 0 ? 20 : 1000;
    for (int i = 0; i < 90; ++i) {
      const bool again = i > repeat_from && random() % 5 != 0;
      text.push_back(again ? text[static_cast<size_t>(i - 17)]
                           : static_cast<int32_t>(random() % letters));
      counter.push(text.back());
      ASSERT_EQ(counter.num_factors(), factors_one_by_one(text)) << round << " " << i;
    }
  }
}

// After how many tokens it stops; 0: never.
template <class Token>
int64_t stops_after(int64_t num, const Token& token) {
  Guardian guardian;
  for (int64_t i = 0; i < num; ++i) {
    if (guardian.stop_after(token(i))) return i + 1;
  }
  return 0;
}

TEST(Guardian, StopsAtTheFirstIntervalWithoutNews) {
  std::mt19937 random(3);
  std::vector<int32_t> text(4000);
  for (int32_t& t : text) t = static_cast<int32_t>(random() % 30000);
  EXPECT_EQ(stops_after(4000, [&](int64_t i) { return text[static_cast<size_t>(i)]; }), 0);
  // New for 600 tokens, then the last 40 again and again: 750 holds 150 new ones, 1,000 none.
  EXPECT_EQ(stops_after(4000,
                        [&](int64_t i) {
                          return text[static_cast<size_t>(i < 600 ? i : 560 + (i - 600) % 40)];
                        }),
            1000);
  EXPECT_EQ(stops_after(249, [](int64_t) { return 5; }), 0);
  EXPECT_EQ(stops_after(4000, [](int64_t) { return 5; }), 250);
}

TEST(Guardian, TheThresholdIsTwentyFactors) {
  // `news` tokens never seen, the rest one token again and again: news + 2 or 3 factors.
  const auto with = [](int64_t news) {
    return stops_after(250, [&](int64_t i) { return static_cast<int32_t>(i < news ? i : 9999); });
  };
  EXPECT_EQ(with(17), 250);  // and 9999, and its repeats: 19
  EXPECT_EQ(with(18), 0);
}

TEST(Guardian, ALongAnswerIsCheap) {
  std::mt19937 random(3);
  EXPECT_EQ(stops_after(200000, [&](int64_t) { return static_cast<int32_t>(random() % 50000); }),
            0);
}

}  // namespace
}  // namespace rk::engine
