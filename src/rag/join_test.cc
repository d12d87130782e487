#include "rag/join.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace rk::rag {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

SampleResult sample(const std::string& task, int64_t length, int i,
                    const std::vector<std::string>& modes) {
  SampleResult r{.id = cat(task, "-", length, "-", i), .task = task};
  r.prompt_digest = cat("d", i);
  r.length_tokens = length;
  r.prompt_tokens = length - 10;
  r.num_documents = 8;
  for (const std::string& mode : modes) {
    r.modes.push_back({.mode = mode, .kl = 0.01, .kl_tokens = 2, .ttft_ms = 100});
  }
  return r;
}

class JoinTest : public testing::Test {
 protected:
  void SetUp() override { root_ = fs::temp_directory_path() / cat("rk_join_", getpid()); }
  void TearDown() override { fs::remove_all(root_); }

  std::string folder(const char* name, const std::vector<SampleResult>& samples,
                     const Fields& fields, bool with_summary = true) {
    const fs::path path = root_ / name;
    fs::create_directories(path);
    std::ofstream out(path / "samples.jsonl");
    for (SampleResult s : samples) {
      s.config = Configuration{fields}.hash();
      out << to_json_line(s) << "\n";
    }
    out << "{\"id\": \"half";
    if (with_summary) {
      Summary summary;
      summary.configuration.fields = fields;
      summary.provenance = {{"command", cat("bench of ", name)}};
      std::ofstream(path / "summary.json") << summary_json(summary);
    }
    return path.string();
  }
  static Fields fields(const char* company = "neutral", const char* predecessors = "0") {
    return {{"model", "m"},       {"weights_sha256", "w"}, {"plan", "p"},
            {"company", company}, {"kv_dtype", "bf16"},    {"predecessors", predecessors},
            {"seed", "7"}};
  }
  fs::path root_;
};

TEST_F(JoinTest, ShardsAndLengthsBecomeOneRun) {
  const auto a = folder(
      "a", {sample("mk", 4096, 10, {"dense", "reuse"}), sample("mk", 4096, 2, {"dense", "reuse"})},
      fields());
  const auto b = folder("b", {sample("mk", 4096, 2, {"dense", "reuse"})}, fields(), false);
  Fields other = fields();
  other.back().second = "8";
  const auto c = folder("c", {sample("mk", 1024, 1, {"dense", "none", "reuse"})}, other);
  const auto joined = read_results(std::vector<std::string>{a, b, c});
  ASSERT_TRUE(joined.ok()) << joined.status().message();
  ASSERT_EQ(joined->results.size(), 3U);  // one was met twice, half lines are no samples
  EXPECT_EQ(joined->results[0].id, "mk-1024-1");
  EXPECT_EQ(joined->results[1].id, "mk-4096-2");
  EXPECT_EQ(joined->results[2].id, "mk-4096-10");
  EXPECT_EQ(joined->results[0].modes.size(), 3U);
  EXPECT_EQ(joined->results[1].modes.size(), 2U);
  EXPECT_EQ(joined->seed, 7U);
  EXPECT_THAT(joined->configuration.fields, testing::Contains(testing::Pair("seed", "7 | 8")));
  EXPECT_THAT(joined->provenance,
              testing::Contains(testing::Pair("command", "bench of a | bench of c")));
  EXPECT_EQ(identity_of(joined->configuration).kv_dtype, "bf16");
}

// What a report wrote is a folder like any other: its lines keep the configurations they are of.
TEST_F(JoinTest, WhatWasJoinedMayBeJoinedAgain) {
  Fields other = fields();
  other.back().second = "8";
  const auto a = folder("a", {sample("mk", 4096, 1, {"dense"})}, fields());
  const auto b = folder("b", {sample("mk", 4096, 2, {"dense"})}, other);
  const auto first = read_results(std::vector<std::string>{a, b});
  ASSERT_TRUE(first.ok()) << first.status().message();
  const fs::path path = root_ / "both";
  fs::create_directories(path);
  std::ofstream lines(path / "samples.jsonl");
  for (const SampleResult& r : first->results) lines << to_json_line(r) << "\n";
  lines.close();
  Summary summary;
  summary.configuration = first->configuration;
  std::ofstream(path / "summary.json") << summary_json(summary);
  const auto c = folder("c", {sample("mk", 4096, 3, {"dense"})}, fields());
  const auto again = read_results(std::vector<std::string>{path.string(), c});
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(again->results.size(), 3U);
}

TEST_F(JoinTest, WhatWasMeasuredDifferentlyDoesNotStandTogether) {
  const auto a = folder("a", {sample("mk", 4096, 1, {"dense"})}, fields());
  const auto b = folder("b", {sample("mk", 4096, 2, {"dense"})}, fields("none"));
  const auto joined = read_results(std::vector<std::string>{a, b});
  EXPECT_EQ(joined.code(), Code::kInvalidArgument);
  EXPECT_THAT(joined.status().message(), HasSubstr("company is none, that of the others neutral"));
  EXPECT_EQ(read_results(std::vector<std::string>{"/nowhere"}).code(), Code::kNotFound);
  const auto alone = folder("c", {sample("mk", 4096, 1, {"dense"})}, {}, false);
  EXPECT_EQ(read_results(std::vector<std::string>{alone}).code(), Code::kNotFound);
  std::ofstream(fs::path(a) / "samples.jsonl") << "{}\n";
  const auto bad = read_results(std::vector<std::string>{a});
  EXPECT_EQ(bad.code(), Code::kDataLoss);
  EXPECT_THAT(bad.status().message(), HasSubstr("samples.jsonl:1: field 'id'"));
}

// Without a summary of its own a folder says only which configuration it is of.
TEST_F(JoinTest, SamplesOfAConfigurationThatNoSummaryHasAreRefused) {
  const auto a = folder("a", {sample("mk", 4096, 1, {"dense"})}, fields());
  Fields other = fields();
  other.front().second = "another model";
  const auto b = folder("b", {sample("mk", 4096, 2, {"dense"})}, other, false);
  const auto joined = read_results(std::vector<std::string>{a, b});
  EXPECT_EQ(joined.code(), Code::kInvalidArgument);
  EXPECT_THAT(joined.status().message(), HasSubstr("b/samples.jsonl:1: a result of configuration"));
}

// A sample met again with other modes: they stand beside the dense answer of their own run, and a
// figure is over the samples that have its mode.
TEST_F(JoinTest, RunsOfOtherModesStandTogether) {
  SampleResult first = sample("mk", 4096, 1, {"dense", "reuse"});
  SampleResult again = sample("mk", 4096, 1, {"dense", "reuse", "prefix"});
  first.needle = again.needle = true;
  again.modes[0].score = 1;  // only here dense found the fact, which prefix lost
  again.modes[1].kl = 5;     // known already: not counted
  const auto a = folder("a", {first, sample("mk", 4096, 2, {"dense", "reuse"})}, fields());
  const auto b = folder("b", {again, sample("mk", 4096, 2, {"dense"})}, fields());
  const auto joined = read_results(std::vector<std::string>{a, b});
  ASSERT_TRUE(joined.ok()) << joined.status().message();
  ASSERT_EQ(joined->results.size(), 3U);
  std::vector<const SampleResult*> results;
  for (const SampleResult& r : joined->results) results.push_back(&r);
  const Summary summary = summarize(results, 1);
  EXPECT_EQ(summary.num_samples, 2);
  EXPECT_EQ(summary.modes, (std::vector<std::string>{"dense", "reuse", "prefix"}));
  ASSERT_EQ(summary.groups.size(), 3U);
  EXPECT_EQ(summary.groups[0].num_samples, 2);
  EXPECT_EQ(summary.groups[1].num_samples, 2);
  EXPECT_NEAR(summary.groups[1].kl->value, 0.01, 1e-9);
  EXPECT_EQ(summary.groups[1].needle_found, 0);
  EXPECT_EQ(summary.groups[2].num_samples, 1);
  EXPECT_EQ(summary.groups[2].needle_lost, 1);
}

TEST_F(JoinTest, SamplesThatDoNotBeginWithDenseAreRefused) {
  const auto a = folder("a", {sample("mk", 4096, 1, {"dense", "reuse"})}, fields());
  const auto b = folder("b", {sample("mk", 4096, 2, {"prefix"})}, fields());
  EXPECT_THAT(read_results(std::vector<std::string>{a, b}).status().message(),
              HasSubstr("mk-4096-2 begins with prefix; dense is what all are compared with"));
  std::ofstream(fs::path(a) / "summary.json") << "{\"configuration\": {}, \"provenance\": {}}";
  EXPECT_THAT(read_results(std::vector<std::string>{a}).status().message(),
              HasSubstr("summary.json: no summary of bench rag: configuration.hash is missing"));
  std::ofstream(fs::path(a) / "summary.json") << "[1]";
  EXPECT_THAT(read_results(std::vector<std::string>{a}).status().message(),
              testing::EndsWith("summary.json: no JSON object"));
}

TEST_F(JoinTest, ARunThatNamesNoStoreIsOfRowsAsComputed) {
  Fields named = fields(), fewer = fields();
  named.emplace_back("kv_store", "auto");
  fewer.emplace_back("kv_store", "int8");
  const auto a = folder("a", {sample("mk", 4096, 1, {"dense"})}, fields());
  const auto b = folder("b", {sample("mk", 4096, 2, {"dense"})}, named);
  const auto c = folder("c", {sample("mk", 4096, 3, {"dense"})}, fewer);
  EXPECT_TRUE(read_results(std::vector<std::string>{a, b}).ok());
  EXPECT_THAT(read_results(std::vector<std::string>{a, c}).status().message(),
              HasSubstr("kv_store is int8, that of the others auto"));
}

TEST_F(JoinTest, ACardOfDocumentsAtRestInFewerBitsSaysSo) {
  EXPECT_FALSE(identity_of({fields()}).low_precision);
  EXPECT_FALSE(identity_of({{{"kv_dtype", "f16"}, {"kv_store", "auto"}}}).low_precision);
  EXPECT_TRUE(identity_of({{{"kv_dtype", "f16+int8"}, {"kv_store", "int8"}}}).low_precision);
}

TEST_F(JoinTest, TimesComeFromTheRunThatWasAlone) {
  const auto group = [](const char* mode, const char* task, int64_t length, double ms) {
    Group g{.mode = mode, .task = task, .length_tokens = length};
    g.ttft_ms = ms;
    return g;
  };
  Summary summary, alone;
  summary.groups = {group("reuse", "mk", 4096, 500), group("reuse", "all", 4096, 600)};
  alone.groups = {group("reuse", "mk", 4096, 9), group("reuse", "all", 4096, 7),
                  group("reuse", "all", 8192, 70)};
  ASSERT_TRUE(take_times(alone, summary).ok());
  EXPECT_EQ(summary.groups[0].ttft_ms, 7);
  EXPECT_EQ(summary.groups[1].ttft_ms, 7);
  summary.groups.push_back(group("none", "all", 4096, 1));
  EXPECT_THAT(take_times(alone, summary).message(), HasSubstr("none of mode none at 4096 tokens"));
}

TEST_F(JoinTest, FactsOfMoreSamplesReplaceThoseOfAllTasks) {
  const auto group = [](const char* task, int64_t found, int64_t lost) {
    Group g{.mode = "reuse", .task = task, .length_tokens = 4096};
    g.needle_found = found;
    g.needle_lost = lost;
    g.needle_loss_bound = rate_upper_bound(lost, found);
    return g;
  };
  Summary summary, facts;
  summary.groups = {group("mk", 40, 2), group("all", 40, 2)};
  EXPECT_THAT(take_facts(facts, summary).message(), HasSubstr("no sample of task mk"));
  facts.groups = {group("mk", 200, 3)};
  ASSERT_TRUE(take_facts(facts, summary).ok());
  EXPECT_EQ(summary.groups[0].needle_found, 40);
  EXPECT_EQ(summary.groups[1].needle_found, 200);
  EXPECT_EQ(summary.groups[1].needle_lost, 3);
  EXPECT_LT(*summary.groups[1].needle_loss_bound, 0.04);
}

TEST(JoinFit, FollowsCompanyAndKnownPredecessors) {
  const auto fit = [](const char* company, const char* predecessors) {
    return fit_of({{{"company", company}, {"predecessors", predecessors}}});
  };
  EXPECT_EQ(*fit("neutral", "0"), engine::Fit::kCompany);
  EXPECT_EQ(*fit("none", "0"), engine::Fit::kLead);
  EXPECT_EQ(*fit("mean:4", "0"), engine::Fit::kMean);
  EXPECT_EQ(*fit("neutral", "1"), engine::Fit::kPredecessor);
  EXPECT_THAT(fit("neutral", "0.5").status().message(), HasSubstr("mixture"));
}

}  // namespace
}  // namespace rk::rag
