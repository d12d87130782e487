// The engine beside transformers: tools/make_model_golden.py says what the folders of
// tests/golden/models hold.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "engine/engine.h"

namespace rk::engine {
namespace {

constexpr double kTolerance = 2e-3;  // of a log-probability

struct Golden {
  int32_t vocab = 0;
  std::vector<int32_t> tokens, positions, documents;
  std::vector<float> dense, answers;  // [positions, vocab], [answer rows, vocab]
  int32_t spliced_tokens = 0;
};

Golden read_golden(const std::string& folder) {
  std::ifstream in(folder + "/golden.bin", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  Golden g;
  if (bytes.compare(0, 4, "RKG1") != 0) return g;
  size_t at = 4;
  const auto take = [&](auto& values, size_t n) {
    values.resize(n);
    const size_t size = n * sizeof(values[0]);
    if (at + size > bytes.size()) {
      ADD_FAILURE() << folder << ": golden.bin ends early";
      return;
    }
    if (n > 0) std::memcpy(values.data(), bytes.data() + at, size);
    at += size;
  };
  std::vector<int32_t> head, spliced;
  take(head, 5);
  g.vocab = head[0];
  const auto vocab = static_cast<size_t>(g.vocab);
  take(g.tokens, static_cast<size_t>(head[1]));
  take(g.positions, static_cast<size_t>(head[2]));
  take(g.dense, g.positions.size() * vocab);
  take(g.documents, static_cast<size_t>(head[3]));
  take(spliced, 1);
  g.spliced_tokens = spliced[0];
  take(g.answers, static_cast<size_t>(head[4]) * vocab);
  EXPECT_EQ(at, bytes.size()) << folder;
  return g;
}

// Largest difference between `want` and the log-probabilities of `logits`.
double difference(const float* logits, const float* want, size_t vocab) {
  double largest = logits[0], sum = 0, worst = 0;
  for (size_t i = 0; i < vocab; ++i) largest = std::max<double>(largest, logits[i]);
  for (size_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - largest);
  for (size_t i = 0; i < vocab; ++i) {
    const double d = std::abs(logits[i] - largest - std::log(sum) - want[i]);
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst;
}

struct Case {
  const char* folder;
  const char* gemm;  // "" lets the engine choose
  friend void PrintTo(const Case& c, std::ostream* os) {
    *os << c.folder << (*c.gemm == '\0' ? "" : ", reference gemm");
  }
};

class Parity : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string folder =
        std::string(RK_SOURCE_DIR "/tests/golden/models/") + GetParam().folder;
    golden_ = read_golden(folder);
    ASSERT_GT(golden_.positions.size(), 50U);
    Engine::Options options;
    options.model = folder;
    options.threads = 1;
    options.kv_dtype = DType::kF32;
    options.max_step_rows = 100;
    if (*GetParam().gemm != '\0') options.forced["gemm"] = GetParam().gemm;
    auto engine = Engine::create(options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = std::move(engine).value();
    ASSERT_EQ(engine_->vocab_size(), golden_.vocab);
  }
  Golden golden_;
  std::unique_ptr<Engine> engine_;
};

INSTANTIATE_TEST_SUITE_P(
    Models, Parity,
    testing::Values(Case{"llama", ""}, Case{"llama", "ref"}, Case{"mistral", ""},
                    Case{"mistral", "ref"}, Case{"mistral_window", ""},
                    Case{"mistral_window", "ref"}, Case{"qwen2", ""}, Case{"qwen2", "ref"},
                    Case{"qwen3", ""}, Case{"qwen3", "ref"}, Case{"llama_linear", ""},
                    Case{"llama_linear", "ref"}, Case{"qwen2_yarn", ""}, Case{"qwen2_yarn", "ref"}),
    [](const auto& info) {
      return std::string(info.param.folder) + (*info.param.gemm != '\0' ? "_reference" : "");
    });

TEST_P(Parity, DenseLogProbabilities) {
  Request request;
  request.mode = Mode::kDense;
  request.spans = {{golden_.tokens, false}};
  std::vector<float> logits;
  const Status status = engine_->evaluate(request, -1, logits, nullptr);
  ASSERT_TRUE(status.ok()) << status.message();
  const auto vocab = static_cast<size_t>(golden_.vocab);
  ASSERT_EQ(logits.size(), golden_.tokens.size() * vocab);
  for (size_t i = 0; i < golden_.positions.size(); ++i) {
    const auto position = static_cast<size_t>(golden_.positions[i]);
    ASSERT_LE(difference(&logits[position * vocab], &golden_.dense[i * vocab], vocab), kTolerance)
        << "position " << position;
  }
}

TEST_P(Parity, SplicedDocumentsLogProbabilities) {
  if (golden_.documents.empty()) GTEST_SKIP() << "no spliced prompt for this model";
  Request request;
  request.mode = Mode::kReuse;
  auto at = golden_.tokens.begin();
  for (const int32_t length : golden_.documents) {
    request.spans.push_back({{at, at + length}, true});
    at += length;
  }
  request.spans.push_back({{at, golden_.tokens.begin() + golden_.spliced_tokens}, false});
  const auto vocab = static_cast<size_t>(golden_.vocab);
  const size_t rows = golden_.answers.size() / vocab;
  ASSERT_GT(rows, 0U);
  for (const char* state : {"miss", "hit"}) {
    std::vector<float> logits;
    RequestStats stats;
    const Status status = engine_->evaluate(request, static_cast<int64_t>(rows), logits, &stats);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(stats.mode, Mode::kReuse);
    for (size_t i = 0; i < rows; ++i) {
      ASSERT_LE(difference(&logits[i * vocab], &golden_.answers[i * vocab], vocab), kTolerance)
          << state << ", row " << i;
    }
  }
}

}  // namespace
}  // namespace rk::engine
