#include "rag/results.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace rk::rag {
namespace {

SampleResult sample(const std::string& id, const std::string& config = "c1") {
  SampleResult r{.id = id,
                 .task = "mk",
                 .question = "q \"quoted\"\n?",
                 .answers = {"1", "ä"},
                 .config = config,
                 .prompt_digest = "ab",
                 .length_tokens = 1024,
                 .prompt_tokens = 1000,
                 .num_documents = 8,
                 .needle = true,
                 .evidence = {3, 1},
                 .ingest_ms = 12.5,
                 .order = {1, 0}};
  r.modes = {{.mode = "dense",
              .ran = "dense",
              .answer = "a\nb",
              .finish = "stop",
              .answer_tokens = 7,
              .score = 0.1,
              .exact_match = 1,
              .f1 = 1.0 / 3,
              .kl = 1e-17,
              .kl_tokens = 7,
              .same_top1 = 6,
              .same_answer = true,
              .ttft_ms = 3.25,
              .ingest_in_ttft_ms = 1,
              .tokens_per_s = 99.5,
              .prefix_cached = 1,
              .document_cached = 2,
              .recomputed = 3,
              .fresh = 4,
              .relocated = 5,
              .kv_bytes = 6,
              .flops = 7e12,
              .bytes = 8,
              .predicted_flops = 9,
              .predicted_bytes = 10,
              .recomputed_at = {{16, 32}, {48, 50}}},
             {.mode = "reuse", .ran = "reuse", .finish = "length"}};
  return r;
}

class ResultsTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("rk_results_" + std::to_string(getpid())))
                .string();
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string text() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }
  std::string path_;
};

TEST_F(ResultsTest, ALineKeepsEveryField) {
  const std::string line = to_json_line(sample("x"));
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto back = parse_json_line(line);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(to_json_line(*back), line);
  EXPECT_EQ(back->modes[0].kl, 1e-17);
  EXPECT_EQ(back->modes[0].f1, 1.0 / 3);
  EXPECT_EQ(back->modes[0].flops, 7e12);
  EXPECT_EQ(back->modes[0].predicted_bytes, 10);
  EXPECT_FALSE(back->modes[1].kl.has_value());
  EXPECT_EQ(back->modes[0].recomputed_at[1].second, 50);
  EXPECT_EQ(back->answers[1], "ä");
  EXPECT_EQ(back->order, (std::vector<int>{1, 0}));
}

TEST_F(ResultsTest, BadLinesNameTheField) {
  const auto error = [](std::string line, const std::string& from, const std::string& to) {
    line.replace(line.find(from), from.size(), to);
    return parse_json_line(line).status().message();
  };
  const std::string line = to_json_line(sample("x"));
  EXPECT_EQ(error(line, "\"id\":\"x\"", "\"id\":1"),
            "field 'id' is missing, of another type or out of range");
  EXPECT_EQ(error(line, "\"same_top1\"", "\"other\""),
            "field 'modes.same_top1' is missing, of another type or out of range");
  EXPECT_EQ(error(line, "\"evidence\":[3", "\"evidence\":[4294967299"),
            "field 'evidence' is missing, of another type or out of range");
  EXPECT_EQ(error(line, "\"ttft_ms\":3.25E0", "\"ttft_ms\":1e31"),
            "field 'modes.ttft_ms' is missing, of another type or out of range");
  SampleResult twice = sample("x");
  twice.modes.push_back(twice.modes[0]);
  EXPECT_EQ(parse_json_line(to_json_line(twice)).status().message(),
            cat("modes: '", twice.modes[0].mode, "' is there twice"));
  EXPECT_EQ(parse_json_line("7").code(), Code::kDataLoss);
  EXPECT_EQ(parse_json_line("{").code(), Code::kDataLoss);
}

TEST_F(ResultsTest, GoesOnWhereItWasAndDropsHalfALine) {
  {
    auto file = ResultsFile::open(path_, "c1");
    ASSERT_TRUE(file.ok()) << file.status().message();
    ASSERT_TRUE(file->append(sample("a")).ok());
    ASSERT_TRUE(file->append(sample("b")).ok());
    EXPECT_EQ(ResultsFile::open(path_, "c1").code(), Code::kUnavailable);  // held
  }
  const std::string whole = text();
  write(whole + to_json_line(sample("c")).substr(0, 40));
  auto file = ResultsFile::open(path_, "c1");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(text(), whole);
  EXPECT_TRUE(file->has("a"));
  EXPECT_TRUE(file->has("b"));
  EXPECT_FALSE(file->has("c"));
  EXPECT_EQ(file->find("c"), nullptr);
  EXPECT_EQ(to_json_line(*file->find("b")), to_json_line(sample("b")));
  ASSERT_TRUE(file->append(sample("c")).ok());
  EXPECT_EQ(text(), whole + to_json_line(sample("c")) + "\n");
}

TEST_F(ResultsTest, WhatIsKeptIsWhatIsReadLater) {
  SampleResult r = sample("a");
  for (int i = 1; i < 200; ++i) r.modes.push_back({.mode = cat("m", i), .ttft_ms = 1.0 / i + 0.1});
  std::string kept;
  {
    auto file = ResultsFile::open(path_, "c1");
    ASSERT_TRUE(file->append(r).ok());
    kept = to_json_line(*file->find("a"));
  }
  auto file = ResultsFile::open(path_, "c1");
  EXPECT_EQ(to_json_line(*file->find("a")), kept);
}

TEST_F(ResultsTest, RefusesOtherConfigurationsAndBrokenLinesUntouched) {
  const std::string good = to_json_line(sample("a")) + "\n";
  const std::string other = good + to_json_line(sample("b", "c2")) + "\nhalf";
  write(other);
  const Status of_another = ResultsFile::open(path_, "c1").status();
  EXPECT_EQ(of_another.code(), Code::kInvalidArgument);
  EXPECT_NE(of_another.message().find(path_ + ":2: a result of another configuration (c2"),
            std::string::npos);
  EXPECT_EQ(text(), other);
  write(good + "{}\n");
  const Status broken = ResultsFile::open(path_, "c1").status();
  EXPECT_EQ(broken.code(), Code::kDataLoss);
  EXPECT_NE(broken.message().find(path_ + ":2: field 'id'"), std::string::npos);
  EXPECT_EQ(ResultsFile::open(path_ + "/none/x", "c1").code(), Code::kUnavailable);
}

}  // namespace
}  // namespace rk::rag
