#include "rag/dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace rk::rag {
namespace {

class DatasetTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("rk_dataset_" + std::to_string(getpid())))
                .string();
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Result<std::vector<Sample>> read(const std::string& text, const DatasetLimits& limits = {}) {
    std::ofstream(path_, std::ios::binary) << text;
    return read_samples(path_, limits);
  }
  // Without the path.
  std::string error(const std::string& text, const DatasetLimits& limits = {}) {
    const std::string message = read(text, limits).status().message();
    return message.starts_with(path_) ? message.substr(path_.size()) : message;
  }
  std::string path_;
};

const char* kGood = R"({"id":"a","question":"q?","answers":["x","y"],"documents":["one","one"]})";

TEST_F(DatasetTest, ReadsStringsAndTitledDocuments) {
  const auto samples = read(std::string(kGood) + "\n\n" +
                            R"({"id":7,"question":"q2","answers":["z"],"more":1,)"
                            R"("documents":[{"title":"T","text":"two"},{"text":"three"}]})" +
                            "\r\n");
  ASSERT_TRUE(samples.ok()) << samples.status().message();
  ASSERT_EQ(samples->size(), 2U);
  const Sample &a = (*samples)[0], &b = (*samples)[1];
  EXPECT_EQ(a.answers, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(a.documents.size(), 2U);  // the same twice is allowed
  EXPECT_FALSE(a.needle);
  EXPECT_EQ(a.task, "data");
  EXPECT_EQ(b.id, "7");
  EXPECT_EQ(b.documents[0].title, "T");
  EXPECT_EQ(b.documents[1].text, "three");
  EXPECT_EQ(read(std::string(kGood) + "\nnonsense", {.max_samples = 1})->size(), 1U);
}

TEST_F(DatasetTest, ErrorsNameFileLineAndField) {
  const std::string good = std::string(kGood) + "\n";
  EXPECT_EQ(error(""), ": no samples");
  EXPECT_NE(error(good + "{\"id\":").find(":2: no JSON: "), std::string::npos);
  EXPECT_EQ(error("[]"), ":1: an array, an object wanted");
  EXPECT_EQ(error(R"({"question":"q"})"), ":1: field 'id' is missing");
  EXPECT_EQ(error(R"({"id":"a"})"), ":1: field 'question' is missing");
  EXPECT_EQ(error(R"({"id":"a","question":1})"),
            ":1: field 'question' is a number, a string wanted");
  EXPECT_EQ(error(R"({"id":"a","question":" "})"), ":1: field 'question' is empty");
  EXPECT_EQ(error(R"({"id":"a","question":"q"})"), ":1: field 'answers' is missing");
  const auto with = [](const std::string& rest) {
    return R"({"id":"b","question":"q",)" + rest + "}";
  };
  EXPECT_EQ(error(with(R"("answers":"x")")), ":1: field 'answers' is a string, an array wanted");
  EXPECT_EQ(error(with(R"("answers":[])")), ":1: field 'answers' is empty");
  EXPECT_EQ(error(with(R"("answers":["x",null])")),
            ":1: field 'answers[1]' is null, a string wanted");
  EXPECT_EQ(error(with(R"("answers":["x"])")), ":1: field 'documents' is missing");
  EXPECT_EQ(error(with(R"("answers":["x"],"documents":[])")), ":1: field 'documents' is empty");
  EXPECT_EQ(error(good + with(R"("answers":["x"],"documents":["d","\n "])")),
            ":2: field 'documents[1]' is empty");
  EXPECT_EQ(error(with(R"("answers":["x"],"documents":[{"title":"t"}])")),
            ":1: field 'documents[0].text' is missing");
  EXPECT_EQ(error(with(R"("answers":["x"],"documents":[{"title":1,"text":"t"}])")),
            ":1: field 'documents[0].title' is a number, a string wanted");
  EXPECT_EQ(error(good + "\n" + good), ":3: field 'id' is 'a', used in line 1 already");
  EXPECT_NE(error("{\"id\":\"\xff\"}").find(":1: no JSON"), std::string::npos);
}

TEST_F(DatasetTest, LimitsAndManyDocuments) {
  std::string many = R"({"id":"m","question":"q","answers":["x"],"documents":["0")";
  for (int i = 1; i < 10'000; ++i) many += ",\"" + std::to_string(i) + "\"";
  const auto samples = read(many + "]}");
  ASSERT_TRUE(samples.ok()) << samples.status().message();
  EXPECT_EQ((*samples)[0].documents.size(), 10'000U);
  EXPECT_EQ(error(many + ",\"x\"]}"),
            ":1: field 'documents' has 10001 of them, at most 10000 wanted");
  EXPECT_EQ(error(kGood, {.max_line_bytes = 10}), ":1: more than 10 bytes in a line");
  EXPECT_EQ(read_samples(path_ + "x").code(), Code::kNotFound);
  EXPECT_EQ(read_samples("/").code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::rag
