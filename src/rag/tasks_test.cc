#include "rag/tasks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "rag/metrics.h"

namespace rk::rag {
namespace {

// A token a word.
int64_t words(const std::string& text) {
  std::istringstream in(text);
  int64_t n = 0;
  for (std::string word; in >> word;) ++n;
  return n;
}

TaskOptions options(int index, int64_t length = 1024, int documents = 8) {
  return {.length_tokens = length,
          .num_documents = documents,
          .seed = 5,
          .index = index,
          .overhead_tokens = 20,
          .count_tokens = words};
}

Sample make(const std::string& task, const TaskOptions& o) {
  auto sample = generate_sample(task, o);
  EXPECT_TRUE(sample.ok()) << sample.status().message();
  return sample.ok() ? *sample : Sample{};
}

bool contains(const Document& d, const std::string& what) {
  return needle_score(d.text, std::vector<std::string>{what}) == 1;
}

TEST(Tasks, LengthIsKeptFromOneToSixtyFourThousand) {
  for (const std::string& task : task_names()) {
    for (const int64_t length : {1024, 4096, 65536}) {
      const int documents = default_num_documents(length);
      const Sample s = make(task, options(3, length, documents));
      int64_t used = 20 + words(s.question);
      for (const Document& d : s.documents) used += words(d.text);
      EXPECT_LE(used, length) << task;
      EXPECT_GT(used, length - documents * 30) << task;
      EXPECT_EQ(static_cast<int>(s.documents.size()), documents);
      EXPECT_TRUE(s.needle);
    }
  }
}

TEST(Tasks, SameOptionsSameSampleAndNothingElse) {
  for (const std::string& task : task_names()) {
    const Sample a = make(task, options(1)), b = make(task, options(1)), c = make(task, options(2));
    ASSERT_EQ(a.documents.size(), b.documents.size());
    for (size_t i = 0; i < a.documents.size(); ++i) {
      EXPECT_EQ(a.documents[i].text, b.documents[i].text);
      EXPECT_NE(a.documents[i].text, c.documents[i].text);
    }
    EXPECT_EQ(a.question, b.question);
    EXPECT_EQ(a.answers, b.answers);
    EXPECT_NE(a.id, c.id);
    TaskOptions other = options(1);
    other.seed = 6;
    EXPECT_NE(make(task, other).documents[0].text, a.documents[0].text);
  }
}

TEST(Tasks, EvidenceIsSweptOverTheDocuments) {
  for (const std::string task : {"mk", "mv", "hop2", "vt2"}) {
    for (int i = 0; i < 16; ++i) {
      const Sample s = make(task, options(i));
      ASSERT_FALSE(s.evidence.empty());
      EXPECT_EQ(s.evidence[0], i % 8) << task;
    }
  }
}

TEST(Tasks, SingleNeedleStandsInItsDocumentOnly) {
  for (int i = 0; i < 16; ++i) {
    const Sample s = make("mk", options(i));
    ASSERT_EQ(s.answers.size(), 1U);
    EXPECT_EQ(s.answers[0].size(), 7U);
    int keys = 0;
    for (size_t d = 0; d < s.documents.size(); ++d) {
      EXPECT_EQ(contains(s.documents[d], s.answers[0]), static_cast<int>(d) == s.evidence[0]);
      const std::string& text = s.documents[d].text;
      for (size_t at = 0; (at = text.find("access number", at)) != std::string::npos; ++at) ++keys;
    }
    EXPECT_EQ(keys, 16);
  }
}

TEST(Tasks, FourValuesInFourDocuments) {
  const Sample s = make("mv", options(6));
  ASSERT_EQ(s.answers.size(), 4U);
  EXPECT_EQ(std::set<int>(s.evidence.begin(), s.evidence.end()).size(), 4U);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(contains(s.documents[static_cast<size_t>(s.evidence[i])], s.answers[i]));
  }
}

TEST(Tasks, HopsStandInTwoDocumentsInEitherOrder) {
  std::set<bool> orders;
  for (int i = 0; i < 16; ++i) {
    const Sample s = make("hop2", options(i));
    ASSERT_EQ(s.evidence.size(), 2U);
    const size_t begin = s.question.find("parcel of ") + 10;
    const std::string person = s.question.substr(begin, s.question.find('?') - begin);
    int parcel = -1, code = -1;
    for (size_t d = 0; d < s.documents.size(); ++d) {
      if (contains(s.documents[d], person)) parcel = static_cast<int>(d);
      if (contains(s.documents[d], s.answers[0])) code = static_cast<int>(d);
    }
    EXPECT_NE(parcel, code);
    EXPECT_EQ((std::set<int>{parcel, code}), (std::set<int>{s.evidence[0], s.evidence[1]}));
    orders.insert(parcel < code);
  }
  EXPECT_EQ(orders.size(), 2U);
}

TEST(Tasks, VariableChainsCrossDocuments) {
  const Sample s = make("vt2", options(2));
  ASSERT_EQ(s.answers.size(), 2U);
  const auto document = [&](const std::string& what) {
    for (size_t d = 0; d < s.documents.size(); ++d) {
      if (s.documents[d].text.find(what) != std::string::npos) return static_cast<int>(d);
    }
    return -1;
  };
  EXPECT_EQ(document("VAR " + s.answers[0] + " = "), s.evidence[0]);
  EXPECT_EQ(document("VAR " + s.answers[1] + " = VAR " + s.answers[0] + "."), s.evidence[1]);
  EXPECT_NE(s.evidence[0], s.evidence[1]);
}

TEST(Tasks, CommonWordsAreTheMostFrequent) {
  const Sample s = make("cwe", options(0));
  std::map<std::string, int> counts;
  for (const Document& d : s.documents) {
    std::istringstream in(d.text.substr(d.text.find(':') + 1));
    for (std::string word; in >> word;) ++counts[word];
  }
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [word, n] : counts) sorted.push_back({n, word});
  std::sort(sorted.rbegin(), sorted.rend());
  std::set<std::string> top;
  for (size_t i = 0; i < 3; ++i) top.insert(sorted[i].second);
  EXPECT_EQ(top, std::set<std::string>(s.answers.begin(), s.answers.end()));
  EXPECT_GT(sorted[2].first, 2 * sorted[3].first);  // no tie decides
}

TEST(Tasks, ManyDocumentsAndBadOptions) {
  const Sample s = make("mk", options(9'999, 1'000'000, 10'000));
  EXPECT_EQ(s.documents.size(), 10'000U);
  EXPECT_EQ(s.evidence[0], 9'999);
  const auto message = [](const std::string& task, const TaskOptions& o) {
    return generate_sample(task, o).status().message();
  };
  EXPECT_EQ(message("mk2", options(0)), "task 'mk2' is none of mk, mv, hop2, vt2, cwe");
  EXPECT_EQ(message("mk", options(0, 1024, 1)), "mk: 1 documents, 2 to 10000 wanted");
  EXPECT_NE(message("mk", options(0, 100)).find("mk: 100 tokens over 8 documents leave 8"),
            std::string::npos);
  EXPECT_NE(message("cwe", options(0, 60)).find("cwe: 60 tokens over 8"), std::string::npos);
  EXPECT_NE(message("mk", options(-1)).find("index -1 is negative"), std::string::npos);
}

}  // namespace
}  // namespace rk::rag
