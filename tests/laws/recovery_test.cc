// Laws of recovery (spec A5) through the whole engine, on a tiny random model of two families.
#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
constexpr double kOther = 1e-2;  // at least: another attention pattern

class Recovery : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Engine> engine(Engine::Options options = {}) { return load(GetParam(), options); }
};
INSTANTIATE_TEST_SUITE_P(Families, Recovery, testing::Values("llama", "qwen2"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Recovery, BoundaryOverWholeDocumentsIsDense) {
  auto e = engine();
  const auto dense = logits(*e, request(Mode::kDense, three_documents()), 11);
  for (const int k : {50, 10000}) {
    Request r = request(Mode::kBoundary, three_documents());
    r.boundary_rows = k;
    RequestStats miss, hit;
    EXPECT_LT(distance(dense, logits(*e, r, 11, &miss)), same_within()) << k;
    EXPECT_LT(distance(dense, logits(*e, r, 11, &hit)), same_within()) << k;
    EXPECT_EQ(miss.recomputed, 50 + 33);
    EXPECT_EQ(hit.recomputed, 50 + 33);
  }
}

TEST_P(Recovery, BoundaryOfNoRowsIsReuse) {
  auto e = engine();
  Request r = request(Mode::kBoundary, three_documents());
  r.boundary_rows = 0;
  const auto boundary = logits(*e, r, 11);
  r.mode = Mode::kReuse;
  EXPECT_EQ(boundary, logits(*engine(), r, 11));
}

// Without this the laws around it could hold for an engine that never splices.
TEST_P(Recovery, ReuseOfSeveralDocumentsIsNotDense) {
  auto e = engine();
  const auto dense = logits(*e, request(Mode::kDense, three_documents()), 11);
  const auto reuse = logits(*e, request(Mode::kReuse, three_documents()), 11);
  EXPECT_GT(distance(dense, reuse), kOther);
  Request r = request(Mode::kBoundary, three_documents());
  r.boundary_rows = 17;
  const auto boundary = logits(*e, r, 11);
  EXPECT_GT(distance(dense, boundary), kOther / 10);
  EXPECT_GT(distance(reuse, boundary), kOther / 10);
}

TEST_P(Recovery, WithoutDocumentsEveryModeIsDense) {
  auto e = engine();
  const std::vector<PromptSpan> spans{fresh(40, 1), fresh(43, 2)};
  const auto dense = logits(*e, request(Mode::kDense, spans), 83);
  ASSERT_EQ(dense.size(), size_t{83} * kVocab);
  for (const Mode mode : {Mode::kReuse, Mode::kBoundary, Mode::kPrefix, Mode::kSelective}) {
    e->clear_cache();
    EXPECT_LT(distance(dense, logits(*e, request(mode, spans), 83)), same_within())
        << mode_name(mode);
  }
}

TEST_P(Recovery, OneDocumentBehindTheLeadIsExact) {
  for (const int lead : {0, 1, 16, 30}) {
    auto e = engine();
    const std::vector<PromptSpan> spans{fresh(lead, 1), document(45, 2), fresh(9, 3)};
    const auto dense = logits(*e, request(Mode::kDense, spans));
    for (const char* state : {"miss", "hit"}) {
      for (const Mode mode : {Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
        RequestStats stats;
        EXPECT_LT(distance(dense, logits(*e, request(mode, spans), 1, &stats)), same_within())
            << state << " " << mode_name(mode) << " lead " << lead;
        ASSERT_EQ(stats.documents.size(), 1U);
        EXPECT_TRUE(stats.documents[0].exact);
        EXPECT_EQ(stats.recomputed, 0);
      }
    }
  }
}

// A segment is computed with all heads global: under a plan with local ones it is no exact row.
TEST_P(Recovery, PrefixUnderLocalHeadsIsDenseUnderThem) {
  Engine::Options options;
  options.plan_json = local_plan(20, 3);
  auto e = engine(options);
  const std::vector<PromptSpan> spans{fresh(20, 1), document(45, 2), fresh(9, 3)};
  const auto dense = logits(*e, request(Mode::kDense, spans));
  EXPECT_GT(distance(dense, logits(*e, request(Mode::kReuse, spans))), kOther / 10);
  EXPECT_LT(distance(dense, logits(*e, request(Mode::kPrefix, spans))), same_within());
}

TEST_P(Recovery, OnlyTheFirstDocumentIsExact) {
  auto e = engine();
  RequestStats stats;
  logits(*e, request(Mode::kReuse, three_documents()), 11, &stats);
  ASSERT_EQ(stats.documents.size(), 3U);
  EXPECT_TRUE(stats.documents[0].exact);
  EXPECT_FALSE(stats.documents[1].exact);
  EXPECT_FALSE(stats.documents[2].exact);
}

TEST_P(Recovery, AHitAnswersLikeTheMissBeforeIt) {
  for (const Mode mode :
       {Mode::kReuse, Mode::kBoundary, Mode::kPrefix, Mode::kDense, Mode::kSelective}) {
    auto e = engine();
    Request r = request(mode, three_documents(), 20);
    r.boundary_rows = 20;
    const Answer miss = run(*e, r);
    const Answer hit = run(*e, r);
    EXPECT_EQ(miss.tokens.size(), 20U);
    EXPECT_EQ(miss.tokens, hit.tokens) << mode_name(mode);
    const auto cached = [](const Answer& a) {
      return a.outcome.stats.prefix_cached + a.outcome.stats.document_cached;
    };
    EXPECT_EQ(cached(miss), 0) << mode_name(mode);
    EXPECT_TRUE(mode == Mode::kDense || cached(hit) > 100) << mode_name(mode);
  }
}

// Rows are stored in their span's frame: where a document stood before leaves no trace.
TEST_P(Recovery, WhereADocumentStoodBeforeDoesNotMatter) {
  const auto here = [] {
    return std::vector<PromptSpan>{fresh(21, 1), document(37, 2), document(50, 4), fresh(11, 6)};
  };
  const auto alone = logits(*engine(), request(Mode::kReuse, here()), 11);
  auto e = engine();
  logits(*e, request(Mode::kReuse, {fresh(21, 1), document(50, 4), fresh(3, 7)}), 1);
  logits(*e, request(Mode::kReuse, {fresh(21, 1), document(70, 8), fresh(100, 9), document(50, 4),
                                    document(37, 2), fresh(3, 7)}));
  RequestStats stats;
  EXPECT_LT(distance(alone, logits(*e, request(Mode::kReuse, here()), 11, &stats)), same_within());
  EXPECT_EQ(stats.document_cached, 87);
  EXPECT_EQ(stats.relocated, 50);
  EXPECT_EQ(stats.prefix_cached, 21);
}

// Equal documents side by side at other positions: each read at its own place.
TEST_P(Recovery, TheSameDocumentTwiceIsRecoveredTwice) {
  const std::vector<PromptSpan> spans{fresh(7, 1), document(40, 2), fresh(3, 3), document(40, 2),
                                      fresh(9, 4)};
  auto e = engine();
  const auto dense = logits(*e, request(Mode::kDense, spans), 9);
  Request r = request(Mode::kBoundary, spans);
  r.boundary_rows = 40;
  EXPECT_LT(distance(dense, logits(*e, r, 9)), same_within());
  r.boundary_rows = 10;
  const auto first = logits(*e, r, 9);
  EXPECT_EQ(first, logits(*e, r, 9));  // the overlay of one request left the stored rows alone
}

TEST_P(Recovery, ChunksDoNotMatter) {
  Engine::Options small, large;
  small.max_step_rows = 4;
  large.max_step_rows = 256;
  for (const std::string& plan : {std::string(), local_plan(20, 3)}) {
    small.plan_json = large.plan_json = plan;
    auto a = engine(small), b = engine(large);
    for (const Mode mode :
         {Mode::kDense, Mode::kPrefix, Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
      const Request r = request(mode, three_documents());
      a->clear_cache();  // a stored question leaves nothing to ask about
      b->clear_cache();
      EXPECT_LT(distance(logits(*a, r, 11), logits(*b, r, 11)), same_within())
          << mode_name(mode) << (plan.empty() ? "" : " with local heads");
    }
  }
}

TEST_P(Recovery, AnAllGlobalPlanIsDense) {
  Engine::Options options;
  options.plan_json = kv::HeadPlan::all_global(kLayers, kKvHeads).to_json();
  const Request r = request(Mode::kDense, three_documents(), 24);
  EXPECT_EQ(run(*engine(), r).tokens, run(*engine(options), r).tokens);
}

TEST_P(Recovery, AWindowAsLongAsTheContextIsDense) {
  Engine::Options options;
  options.plan_json = local_plan(kContext, 0);
  auto dense = engine(), wide = engine(options);
  // Not selective: no row is exact under such a plan, so it chooses among more of them.
  for (const Mode mode : {Mode::kDense, Mode::kReuse, Mode::kBoundary}) {
    const Request r = request(mode, three_documents());
    EXPECT_LT(distance(logits(*dense, r, 11), logits(*wide, r, 11)), same_within())
        << mode_name(mode);
  }
}

TEST_P(Recovery, LocalHeadsForgetRowsAndSeeLess) {
  Engine::Options options;
  options.plan_json = local_plan(20, 3);
  auto dense = engine(), local = engine(options);
  const Request r = request(Mode::kDense, {fresh(300, 1)}, 40);
  EXPECT_GT(distance(logits(*dense, r), logits(*local, r)), kOther);
  const int64_t all = run(*dense, r).outcome.stats.kv_bytes;
  const int64_t kept = run(*local, r).outcome.stats.kv_bytes;
  EXPECT_GT(kept, all / 2);  // one of two heads keeps everything
  EXPECT_LT(kept, all * 6 / 10);
  EXPECT_EQ(local->pool().num_used(), 0);
}

// What is out of every window cannot matter: another text there, the same answer.
TEST_P(Recovery, RowsOutsideEveryWindowDoNotMatter) {
  Engine::Options options;
  std::vector<kv::HeadPolicy> heads(kLayers * kKvHeads, {kv::HeadClass::kLocal, 16, 4});
  options.plan_json = kv::HeadPlan::from_policies(kLayers, kKvHeads, heads).value().to_json();
  auto e = engine(options);
  // Three layers of 16 rows reach 45 rows back; sinks are the first four.
  const auto a = logits(*e, request(Mode::kDense, {fresh(4, 1), fresh(90, 2), fresh(46, 3)}));
  const auto b = logits(*e, request(Mode::kDense, {fresh(4, 1), fresh(90, 4), fresh(46, 3)}));
  const auto c = logits(*e, request(Mode::kDense, {fresh(4, 5), fresh(90, 2), fresh(46, 3)}));
  const auto d = logits(*e, request(Mode::kDense, {fresh(4, 1), fresh(90, 2), fresh(12, 3)}));
  EXPECT_LT(distance(a, b), same_within());
  EXPECT_GT(distance(a, c), kOther / 10);  // sinks are seen
  EXPECT_GT(distance(a, d), kOther / 10);
}

}  // namespace
}  // namespace rk::engine
