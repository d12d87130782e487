// Against an engine that answers from a table: what the bench asks for, in which order, and what it
// makes of the answers.
#include "rag/compare.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

namespace rk::rag {
namespace {

using engine::Mode;
using engine::Request;

constexpr int64_t kVocab = 4, kContext = 100;

// Probabilities of every token of the answer: dense is sure by 3/4, reuse prefers another token at
// the second place.
double probability(Mode mode, size_t at, int32_t token) {
  const bool astray = mode == Mode::kReuse && at == 1;
  const int32_t best = astray ? 3 : static_cast<int32_t>(at % 2 + 1);
  return token == best ? 0.75 : 0.25 / 3;
}

class FakeEngine : public engine::Runner {
 public:
  void run(const Request& request, double, engine::Listener& listener) override {
    runs.push_back(request);
    engine::Outcome outcome;
    outcome.status = status;
    outcome.stats.mode = request.mode;
    outcome.stats.prompt_tokens = 10;
    outcome.stats.ttft_ms = request.mode == Mode::kDense ? 100 : 20;
    outcome.stats.total_ms = 250;
    outcome.stats.recomputed_rows = {{4, 8}};
    outcome.finish = engine::FinishReason::kLength;
    for (size_t at = 0; at < static_cast<size_t>(request.max_tokens) && status.ok(); ++at) {
      engine::TokenEvent event;
      for (int32_t t = 1; t < kVocab; ++t) {
        if (probability(request.mode, at, t) > probability(request.mode, at, event.token)) {
          event.token = t;
        }
      }
      std::vector<float> logits;
      for (int32_t t = 0; t < kVocab && request.give_logits; ++t) {
        logits.push_back(static_cast<float>(std::log(probability(request.mode, at, t)) + 7));
      }
      event.logits = logits;
      ++outcome.stats.generated;
      listener.on_token(event);
    }
    listener.on_done(outcome);
  }
  Status evaluate(const Request& request, int64_t rows, std::vector<float>& logits) {
    led.push_back(request);
    for (size_t at = 0; at < static_cast<size_t>(rows); ++at) {
      for (int32_t t = 0; t < kVocab; ++t) {  // any constant may be added
        logits.push_back(static_cast<float>(std::log(probability(request.mode, at, t)) + 5));
      }
    }
    return {};
  }
  bool idle_work() override { return ++idle_calls % 3 != 0; }
  Status check(const Request&) const override { return {}; }
  int64_t context_tokens() const override { return kContext; }
  int64_t vocab_size() const override { return kVocab; }

  Status status;
  std::vector<Request> runs, led;
  int idle_calls = 0;
};

class CompareTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("rk_compare_" + std::to_string(getpid())))
                .string();
    std::filesystem::remove(path_);
    options_.modes = *parse_mode_list("dense,prefix,reuse,boundary:3");
    options_.max_tokens = 4;
    options_.config = "c";
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Subject subject() {
    return {.engine = &engine_,
            .evaluate = [this](const Request& r, int64_t n,
                               std::vector<float>& l) { return engine_.evaluate(r, n, l); },
            .clear_store = [this] { ++cleared_; },
            .make_prompt = [](const std::string& question, const std::vector<Document>& documents)
                -> Result<std::vector<engine::PromptSpan>> {
              std::vector<engine::PromptSpan> spans = {{{0}, false}};
              for (const Document& d : documents) {
                spans.push_back({std::vector<int32_t>(d.text.size(), 1), true});
              }
              spans.push_back({std::vector<int32_t>(question.size(), 2), false});
              return spans;
            },
            .decode =
                [](std::span<const int32_t> ids) {
                  std::string out;
                  for (const int32_t id : ids) out += std::to_string(id) + " ";
                  return out;
                }};
  }
  static Sample sample(const std::string& id, size_t size = 3) {
    return {.id = id,
            .task = "mk",
            .question = "qq",
            .answers = {"1", "3"},
            .documents = {{"", std::string(size, 'x')}, {"", "yy"}}};
  }
  static SampleSource source(const std::string& id, size_t size = 3) {
    return {id, 0, [id, size] { return Result<Sample>(sample(id, size)); }};
  }

  FakeEngine engine_;
  CompareOptions options_;
  int cleared_ = 0;
  std::string path_;
};

TEST_F(CompareTest, EveryModeOnTheSameIdsBesideDense) {
  Comparer comparer(subject(), options_);
  const auto r = comparer.compare(sample("s"), 0);
  ASSERT_TRUE(r.ok()) << r.status().message();
  ASSERT_EQ(r->modes.size(), 4U);
  EXPECT_EQ(cleared_, 1);
  EXPECT_EQ(r->prompt_tokens, 8);
  EXPECT_EQ(r->ingest_ms, 250);
  const ModeResult &dense = r->modes[0], &prefix = r->modes[1], &reuse = r->modes[2],
                   &boundary = r->modes[3];
  EXPECT_EQ(dense.answer, "1 2 1 2 ");
  EXPECT_EQ(dense.kl, 0);
  EXPECT_EQ(dense.score, 0.5);
  EXPECT_EQ(dense.ttft_ms, 100);
  EXPECT_EQ(prefix.kl, 0);
  EXPECT_TRUE(prefix.same_answer);
  EXPECT_EQ(reuse.answer, "1 3 1 2 ");
  EXPECT_FALSE(reuse.same_answer);
  EXPECT_EQ(reuse.score, 1);
  EXPECT_EQ(reuse.kl_tokens, 4);
  EXPECT_EQ(reuse.same_top1, 3);
  // At one of four tokens .75 and .25/3 change places.
  EXPECT_NEAR(*reuse.kl, (0.75 - 0.25 / 3) * std::log(9.0) / 4, 1e-6);
  EXPECT_NEAR(*boundary.kl, 0, 1e-6);
  EXPECT_EQ(boundary.mode, "boundary:3");
  EXPECT_EQ(boundary.ran, "boundary");
  EXPECT_EQ(boundary.recomputed_at, (std::vector<std::pair<int64_t, int64_t>>{{4, 8}}));
}

TEST_F(CompareTest, DocumentsAreStoredOnceAndTimedRunsLeaveNothing) {
  Comparer comparer(subject(), options_);
  ASSERT_TRUE(comparer.compare(sample("s"), 0).ok());
  ASSERT_EQ(engine_.runs.size(), 3U + 1U + 4U);  // warm-up, ingest, modes
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(engine_.runs[i].spans.size(), 2U);  // no documents
  const Request& ingest = engine_.runs[3];
  EXPECT_EQ(ingest.mode, Mode::kReuse);
  EXPECT_TRUE(ingest.cache_write);
  EXPECT_EQ(ingest.max_tokens, 0);
  for (size_t i = 4; i < 8; ++i) {
    const Request& r = engine_.runs[i];
    EXPECT_FALSE(r.cache_write);
    EXPECT_EQ(r.spans.size(), 4U);
    EXPECT_EQ(r.spans[1].tokens.size(), 3U);
  }
  EXPECT_EQ(engine_.runs[7].boundary_rows, 3);
  ASSERT_EQ(engine_.led.size(), 1U);  // reuse; the others gave dense's tokens
  EXPECT_EQ(engine_.led[0].answer_tokens, 3);
  EXPECT_EQ(engine_.led[0].spans.back().tokens, (std::vector<int32_t>{2, 2, 1, 2, 1}));
  EXPECT_FALSE(engine_.led[0].cache_write);
}

TEST_F(CompareTest, ARunThatGaveTheTokensBeforeADistributionNeedNotBeLed) {
  options_.max_tokens = 2;  // reuse strays at the second, which leaves its distribution right
  Comparer comparer(subject(), options_);
  const auto r = comparer.compare(sample("s"), 0);
  ASSERT_TRUE(r.ok());
  EXPECT_TRUE(engine_.led.empty());
  EXPECT_FALSE(r->modes[2].same_answer);
  EXPECT_NEAR(*r->modes[2].kl, (0.75 - 0.25 / 3) * std::log(9.0) / 2, 1e-6);
}

TEST_F(CompareTest, AKnownPredecessorIsAPairThatRecurred) {
  options_.predecessors = 1;
  Comparer comparer(subject(), options_);
  ASSERT_TRUE(comparer.compare(sample("s"), 0).ok());
  ASSERT_EQ(engine_.runs.size(), 3U + 1U + 2U + 4U);
  EXPECT_EQ(engine_.idle_calls, 3);  // until nothing is left
  for (size_t i = 4; i < 6; ++i) {
    const Request& pair = engine_.runs[i];
    EXPECT_EQ(pair.mode, Mode::kReuse);
    EXPECT_TRUE(pair.cache_write);
    EXPECT_EQ(pair.max_tokens, 0);
    ASSERT_EQ(pair.spans.size(), 4U);  // lead, both documents, question
    EXPECT_EQ(pair.spans[1].tokens.size(), 3U);
    EXPECT_EQ(pair.spans[2].tokens.size(), 2U);
  }
}

TEST_F(CompareTest, OnlyThePairIsAskedNotItsNeighbours) {
  options_.predecessors = 1;
  Sample three = sample("s");
  three.documents.push_back({"", "zzzzz"});
  ASSERT_TRUE(Comparer(subject(), options_).compare(three, 0).ok());
  const Request &first = engine_.runs[4], &second = engine_.runs[6];
  EXPECT_EQ(first.spans[2].tokens.size(), 2U);
  ASSERT_EQ(second.spans.size(), 4U);
  EXPECT_EQ(second.spans[1].tokens.size(), 2U);
  EXPECT_EQ(second.spans[2].tokens.size(), 5U);
  EXPECT_FALSE(second.spans[3].segment);
}

TEST_F(CompareTest, TheOrderRotates) {
  Comparer comparer(subject(), options_);
  EXPECT_EQ(comparer.compare(sample("s"), 0)->order, (std::vector<int>{0, 1, 2, 3}));
  const auto r = comparer.compare(sample("s"), 6);
  EXPECT_EQ(r->order, (std::vector<int>{2, 3, 0, 1}));
  EXPECT_EQ(r->modes[0].mode, "dense");  // results keep their places
  EXPECT_EQ(engine_.runs.back().mode, Mode::kPrefix);
}

TEST_F(CompareTest, SkipsWhatIsDoneAndWhatDoesNotFit) {
  auto file = ResultsFile::open(path_, "c");
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto run = [&](const std::vector<SampleSource>& sources) {
    return compare_all(sources, subject(), options_, *file, [](size_t, size_t, const auto&) {});
  };
  auto skipped = run({source("a"), source("long", 200), source("b")});
  ASSERT_TRUE(skipped.ok()) << skipped.status().message();
  ASSERT_EQ(skipped->size(), 1U);
  EXPECT_EQ((*skipped)[0].id, "long");
  EXPECT_EQ((*skipped)[0].why, "prompt of 205 tokens and answer of 4, the context holds 100");
  const size_t runs = engine_.runs.size();
  ASSERT_TRUE(run({source("a"), source("b")}).ok());
  EXPECT_EQ(engine_.runs.size(), runs);
  ASSERT_TRUE(run({source("a"), source("c")}).ok());
  EXPECT_GT(engine_.runs.size(), runs);
  EXPECT_TRUE(file->has("c"));
  EXPECT_EQ(run({source("long", 200)}).code(), Code::kInvalidArgument);
}

TEST_F(CompareTest, TheEnginesFailureEndsTheBench) {
  auto file = ResultsFile::open(path_, "c");
  engine_.status = unavailable("gone");
  const auto r =
      compare_all({source("a")}, subject(), options_, *file, [](size_t, size_t, const auto&) {});
  EXPECT_EQ(r.status().message(), "sample a: gone");
  EXPECT_FALSE(file->has("a"));
}

TEST(ModeSpecs, ListsStartWithDense) {
  const auto names = [](const char* text) {
    std::string out;
    const auto list = parse_mode_list(text);
    if (!list.ok()) return list.status().message();
    for (const ModeSpec& m : *list) out += m.name + " ";
    return out;
  };
  EXPECT_EQ(names("reuse"), "dense reuse ");
  EXPECT_EQ(names(" reuse , dense,boundary:8,boundary"), "dense reuse boundary:8 boundary ");
  EXPECT_EQ(names("random:0.3,cacheblend:0.15,none"), "dense random:0.3 cacheblend:0.15 none ");
  EXPECT_EQ(names("reuse,reuse"), "mode 'reuse' is given twice");
  EXPECT_EQ(names("selective:0.3:both,selective:0.3:blocks,selective:0.3:rows"),
            "dense selective:0.3:both selective:0.3 selective:0.3:rows ");
  EXPECT_EQ(names("selective:0.3,selective:0.3:blocks"), "mode 'selective:0.3' is given twice");
  EXPECT_FALSE(parse_mode_list("selective:0.3:halves").ok());
  engine::Request r;
  parse_mode_list("selective:0.3:both")->back().apply(r);
  EXPECT_EQ(r.select, engine::SelectUnits::kBoth);
  parse_mode_list("selective:0.3")->back().apply(r);
  EXPECT_EQ(r.select, engine::SelectUnits::kBlocks);
  EXPECT_NE(names("warp").find("'warp' is none of dense, prefix"), std::string::npos);
  EXPECT_FALSE(parse_mode_list("boundary:-1").ok());
  EXPECT_FALSE(parse_mode_list("boundary:x").ok());
  EXPECT_FALSE(parse_mode_list("reuse:1").ok());
  EXPECT_FALSE(parse_mode_list("random:2").ok());
}

}  // namespace
}  // namespace rk::rag
