// Laws of the rivals that `selective` is compared with: `random`, `cacheblend`, `none`.
#include <gmock/gmock.h>

#include "made_attention.h"
#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using Rows = std::vector<std::array<int32_t, 2>>;

// Of three_documents(): the first is exact; of the others 83 rows may be targets.
constexpr int kCandidates = 83, kSecond = 21 + 37 + 5, kThird = kSecond + 50;

Request recompute(Mode mode, double ratio, std::vector<PromptSpan> spans = three_documents(),
                  int max_tokens = 8) {
  Request r = request(mode, std::move(spans), max_tokens);
  r.selective_ratio = ratio;
  return r;
}

struct Case {
  Mode mode;
  const char* family;
};
class Rivals : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Engine> engine(Engine::Options options = {}) {
    return load(GetParam().family, options);
  }
  Mode mode() const { return GetParam().mode; }
};
INSTANTIATE_TEST_SUITE_P(All, Rivals,
                         testing::Values(Case{Mode::kRandom, "llama"}, Case{Mode::kRandom, "qwen2"},
                                         Case{Mode::kCacheblend, "llama"},
                                         Case{Mode::kCacheblend, "qwen2"}),
                         [](const auto& info) {
                           return std::string(mode_name(info.param.mode)) + info.param.family;
                         });

TEST_P(Rivals, OfAllRowsIsDense) {
  for (const std::string& plan : {std::string(), local_plan(20, 3)}) {
    Engine::Options options;
    options.plan_json = plan;
    auto e = engine(options);
    const auto dense = logits(*e, request(Mode::kDense, three_documents()), 11);
    for (const char* state : {"miss", "hit"}) {
      EXPECT_LT(distance(dense, logits(*e, recompute(mode(), 1), 11)), same_within()) << state;
    }
  }
}

TEST_P(Rivals, OfNoRowsIsReuse) {
  RequestStats stats;
  EXPECT_EQ(logits(*engine(), recompute(mode(), 0), 11, &stats),
            logits(*engine(), request(Mode::kReuse, three_documents()), 11));
  EXPECT_EQ(stats.mode, mode());
  EXPECT_EQ(stats.recomputed, 0);
}

TEST_P(Rivals, RecomputeAsManyRowsAsSelective) {
  for (const std::string& plan : {std::string(), local_plan(20, 3)}) {
    Engine::Options options;
    options.plan_json = plan;
    const int candidates = plan.empty() ? kCandidates : kCandidates + 37;
    for (const bool rows : {false, true}) {
      for (const double ratio : {0.01, 0.3, 0.77}) {
        auto e = engine(options);
        Request r = recompute(mode(), ratio);
        r.select = rows ? SelectUnits::kRows : SelectUnits::kBlocks;
        RequestStats miss, hit;
        const auto before = logits(*e, r, 11, &miss);
        EXPECT_LT(distance(before, logits(*e, r, 11, &hit)), same_within());
        EXPECT_EQ(hit.recomputed_rows, miss.recomputed_rows);
        const auto wanted = static_cast<int64_t>(std::ceil(ratio * candidates));
        EXPECT_GE(hit.recomputed, wanted) << ratio;
        EXPECT_LT(hit.recomputed, wanted + (rows ? 1 : 16)) << ratio;
        EXPECT_GT(hit.probe_ms, 0);
        EXPECT_EQ(hit.gate, "bypassed");
      }
    }
  }
}

// The choice of an answer that is followed is that of the question alone.
TEST_P(Rivals, AnAnswerThatIsFollowedChangesNoChoice) {
  auto e = engine();
  RequestStats without, with;
  logits(*e, recompute(mode(), 0.3), 1, &without);
  Request led = recompute(mode(), 0.3);
  const auto answer = ids(9, 77);
  led.spans.back().tokens.insert(led.spans.back().tokens.end(), answer.begin(), answer.end());
  led.answer_tokens = 9;
  logits(*e, led, 9, &with);
  EXPECT_EQ(with.recomputed_rows, without.recomputed_rows);
}

Rows recomputed(Engine& engine, const Request& request) {
  RequestStats stats;
  engine.clear_cache();
  logits(engine, request, 1, &stats);
  return stats.recomputed_rows;
}

TEST(RandomRows, FollowTheSeed) {
  auto e = load("llama");
  std::vector<Rows> seen;
  for (const uint64_t seed : {1U, 2U, 3U, 4U}) {
    Request r = recompute(Mode::kRandom, 0.3);
    r.sampling.seed = seed;
    seen.push_back(recomputed(*e, r));
    EXPECT_EQ(recomputed(*e, r), seen.back());
  }
  EXPECT_TRUE(seen[0] != seen[1] || seen[0] != seen[2] || seen[0] != seen[3]);
  const Rows asked = recomputed(*e, recompute(Mode::kSelective, 0.3));
  EXPECT_TRUE(seen[0] != asked || seen[1] != asked);
}

TEST(RandomRows, DependOnWhatTheDocumentsSay) {
  auto e = load("llama");
  const Rows rows = recomputed(*e, recompute(Mode::kRandom, 0.3));
  int others = 0;
  for (const uint32_t seed : {60U, 70U, 80U}) {
    auto spans = three_documents();
    spans[3] = document(50, seed);
    spans[4] = document(33, seed + 1);
    others += recomputed(*e, recompute(Mode::kRandom, 0.3, spans)) != rows;
  }
  EXPECT_GT(others, 0);
}

// Nothing but marks says anything in the first layer.
void make_marks_heard(const std::string& name, std::vector<float>& values) {
  if (name == "blk.0.attn_v.weight") {
    for (size_t i = 0; i < values.size(); ++i) values[i] = i % kHidden == 0 ? 1.0F : 0.0F;
  }
  if (name == "blk.0.attn_q.weight" || name == "blk.0.attn_k.weight") {
    std::fill(values.begin(), values.end(), 0.0F);
  }
  make_attention(name, values);
}

// A row of the third document that looks for a mark, which stands in the second: stored, it saw
// none. No other row changes as much.
TEST(CacheblendRows, AreThoseThatTheContextChanges) {
  auto e = load_on(test_device(), "qwen2", {}, make_marks_heard);
  auto spans = three_documents();
  for (PromptSpan& span : spans) {
    for (int32_t& id : span.tokens) id %= kVocab - 4;
  }
  // Not the document's last: when stored it is a step of its own, and a card rounds one row's
  // products in other places than many rows'.
  for (const int at : {3, 20, 31}) {
    auto asked = spans;
    asked[3].tokens[10] = mark(kAsked);
    asked[4].tokens[static_cast<size_t>(at)] = asker(kAsked);
    Request r = recompute(Mode::kCacheblend, 0.01, asked);
    r.select = SelectUnits::kRows;
    EXPECT_EQ(recomputed(*e, r), (Rows{{kThird + at, kThird + at + 1}})) << at;
    asked[3].tokens[10] = 1;  // nothing to find
    r.spans = asked;
    EXPECT_NE(recomputed(*e, r), (Rows{{kThird + at, kThird + at + 1}})) << at;
  }
}

TEST(None, IsDenseWithoutTheDocuments) {
  for (const std::string& plan : {std::string(), local_plan(20, 3)}) {
    Engine::Options options;
    options.plan_json = plan;
    auto e = load("llama", options);
    const std::vector<PromptSpan> rest{fresh(21, 1), fresh(5, 3), fresh(11, 6)};
    RequestStats stats;
    for (const char* state : {"first", "again"}) {
      EXPECT_EQ(logits(*e, request(Mode::kNone, three_documents()), 11, &stats),
                logits(*e, request(Mode::kDense, rest), 11))
          << state;
    }
    EXPECT_EQ(stats.mode, Mode::kNone);
    EXPECT_EQ(stats.gate, "bypassed");
    EXPECT_EQ(stats.prompt_tokens, 37);
    EXPECT_EQ(stats.fresh, 37);
    EXPECT_TRUE(stats.documents.empty());
    EXPECT_EQ(run(*e, request(Mode::kNone, three_documents(), 20)).tokens,
              run(*e, request(Mode::kDense, rest, 20)).tokens);
  }
}

TEST(None, NeedsMoreThanDocuments) {
  auto e = load("llama");
  const Status status = e->check(request(Mode::kNone, {document(20, 1)}));
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), testing::HasSubstr("documents"));
}

TEST(RivalModes, AreReadWithTheirNumbers) {
  Request r;
  EXPECT_TRUE(read_mode("random:0.25", r).ok());
  EXPECT_EQ(r.mode, Mode::kRandom);
  EXPECT_EQ(r.selective_ratio, 0.25);
  EXPECT_TRUE(read_mode("cacheblend:1", r).ok());
  EXPECT_EQ(r.mode, Mode::kCacheblend);
  EXPECT_TRUE(read_mode("random:0.5:rows", r).ok());
  EXPECT_EQ(r.select, SelectUnits::kRows);
  EXPECT_TRUE(read_mode("cacheblend:0.5:blocks", r).ok());
  EXPECT_EQ(r.select, SelectUnits::kBlocks);
  EXPECT_THAT(read_mode("random:0.5:both", r).message(), testing::HasSubstr("blocks or rows"));
  EXPECT_FALSE(read_mode("cacheblend", r).ok());  // as it stands: both
  EXPECT_TRUE(read_mode("none", r).ok());
  for (const char* bad : {"random:1.01", "random:-1", "cacheblend:nan", "cacheblend:x", "none:1"}) {
    EXPECT_EQ(read_mode(bad, r).code(), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace rk::engine
