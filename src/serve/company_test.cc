#include "serve/company.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "serve/fake_engine.h"

namespace rk::serve {
namespace {

using testing::HasSubstr;

TEST(Company, NeutralTextIsTakenFromItsEnd) {
  const FakeTokenizer tokenizer;
  EXPECT_TRUE(read_company(tokenizer, "none")->tokens.empty());
  const auto all = read_company(tokenizer, "neutral:2000")->tokens;
  const auto some = read_company(tokenizer, "neutral:100")->tokens;
  ASSERT_EQ(some.size(), 100U);
  EXPECT_TRUE(std::equal(some.rbegin(), some.rend(), all.rbegin()));
  EXPECT_EQ(read_company(tokenizer, "neutral")->tokens.size(), 512U);
  EXPECT_EQ(read_company(tokenizer, "neutral")->pieces, 1);
}

TEST(Company, AMeanHasEqualPiecesOfDifferentText) {
  const FakeTokenizer tokenizer;
  for (const int k : {2, 3, 6}) {
    const auto mean = read_company(tokenizer, cat("mean:", k));
    ASSERT_TRUE(mean.ok());
    EXPECT_EQ(mean->pieces, k);
    ASSERT_EQ(mean->tokens.size() % static_cast<size_t>(k), 0U);
    const auto length = static_cast<std::ptrdiff_t>(mean->tokens.size()) / k;
    EXPECT_FALSE(std::equal(mean->tokens.begin(), mean->tokens.begin() + length,
                            mean->tokens.begin() + length));
  }
}

TEST(Company, BadOnesAreNamed) {
  const FakeTokenizer tokenizer;
  for (const char* bad : {"", "neutral:", "neutral:0", "neutral:-3", "neutral:9x", "mean:1",
                          "mean:7", "neutral:99999999999"}) {
    EXPECT_EQ(check_company(bad).code(), Code::kInvalidArgument) << bad;
    EXPECT_EQ(read_company(tokenizer, bad).status().code(), Code::kInvalidArgument) << bad;
  }
  EXPECT_THAT(read_company(tokenizer, "neutral:1000000").status().message(),
              testing::AllOf(HasSubstr("1000000"), HasSubstr("the neutral text has")));
  EXPECT_EQ(read_company(tokenizer, "no/such/file").status().code(), Code::kNotFound);
}

TEST(Company, AFileOfText) {
  const FakeTokenizer tokenizer;
  const auto path = std::filesystem::temp_directory_path() / cat("rk_company_", getpid());
  std::ofstream(path) << "some text";
  EXPECT_EQ(read_company(tokenizer, path.string())->tokens,
            tokenizer.encode("some text", false, false));
  std::ofstream(path, std::ios::trunc) << "";
  EXPECT_EQ(read_company(tokenizer, path.string()).status().code(), Code::kInvalidArgument);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace rk::serve
