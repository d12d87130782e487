// Laws of `redknot` (spec A5, A6): local heads keep the documents' stored rows, global heads see
// recomputed ones, and rows of documents may leave out FFNs.
#include <gmock/gmock.h>

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
constexpr double kOther = 1e-3;  // at least: other rows were read, or other FFNs run

constexpr int kDocumentRows = 37 + 50 + 33;

Request redknot(double threshold = 1, int max_tokens = 8) {
  Request r = request(Mode::kRedknot, three_documents(), max_tokens);
  r.ffn_threshold = threshold;
  r.ffn_dense_layers = 1;
  r.ffn_recent_rows = 4;
  return r;
}

std::string all_local(int window, int sink) {
  const std::vector<kv::HeadPolicy> heads(kLayers * kKvHeads,
                                          {kv::HeadClass::kLocal, window, sink});
  return kv::HeadPlan::from_policies(kLayers, kKvHeads, heads).value().to_json();
}

class Redknot : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Engine> engine(const std::string& plan = "") {
    Engine::Options options;
    options.plan_json = plan;
    return load(GetParam(), options);
  }
};
INSTANTIATE_TEST_SUITE_P(Families, Redknot, testing::Values("llama", "qwen2"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Redknot, WithoutLocalHeadsIsDense) {
  auto e = engine();
  const auto dense = logits(*e, request(Mode::kDense, three_documents()), 11);
  for (const char* state : {"miss", "hit"}) {
    RequestStats stats;
    EXPECT_LT(distance(dense, logits(*e, redknot(), 11, &stats)), same_within()) << state;
    EXPECT_EQ(stats.mode, Mode::kRedknot);
    EXPECT_EQ(stats.gate, "bypassed");
    EXPECT_EQ(stats.recomputed, 50 + 33);  // the first document is exact
    EXPECT_EQ(stats.ffn_skipped, 0);
  }
  EXPECT_EQ(run(*e, redknot(1, 24)).tokens,
            run(*e, request(Mode::kDense, three_documents(), 24)).tokens);
}

// Every head local: what is recomputed is read by nobody, in no layer.
TEST_P(Redknot, WithLocalHeadsOnlyIsReuse) {
  for (const auto& plan : {all_local(kContext, 0), all_local(20, 3)}) {
    auto e = engine(plan);
    const auto reuse = logits(*e, request(Mode::kReuse, three_documents()), 11);
    RequestStats stats;
    EXPECT_LT(distance(reuse, logits(*e, redknot(), 11, &stats)), same_within());
    EXPECT_EQ(stats.recomputed, kDocumentRows);
    if (test_device().is_cuda()) continue;  // products of other row counts add up in another order
    EXPECT_EQ(run(*e, redknot(1, 24)).tokens,
              run(*e, request(Mode::kReuse, three_documents(), 24)).tokens);
  }
}

// A window over everything: local heads differ from global ones only in whose rows they read.
TEST_P(Redknot, LiesBetweenReuseAndDense) {
  auto e = engine(local_plan(kContext, 0));
  const auto dense = logits(*e, request(Mode::kDense, three_documents()), 11);
  const auto reuse = logits(*e, request(Mode::kReuse, three_documents()), 11);
  const auto mixed = logits(*e, redknot(), 11);
  EXPECT_GT(distance(dense, mixed), kOther);
  EXPECT_GT(distance(reuse, mixed), kOther);
  // Stored rows were not touched.
  EXPECT_EQ(reuse, logits(*e, request(Mode::kReuse, three_documents()), 11));
}

TEST_P(Redknot, LocalHeadsHoldNoCopies) {
  auto e = engine(local_plan(20, 3));
  Request selective = request(Mode::kSelective, three_documents());
  selective.selective_ratio = 1;
  const int64_t all = run(*e, selective).outcome.stats.kv_bytes;
  const int64_t half = run(*e, redknot()).outcome.stats.kv_bytes;
  EXPECT_LT(half, all * 3 / 4);
}

TEST_P(Redknot, AHitAnswersLikeTheMiss) {
  for (const std::string& plan : {std::string(), local_plan(20, 3), all_local(20, 3)}) {
    for (const double threshold : {1.0, 0.5}) {
      auto e = engine(plan);
      RequestStats miss_stats, hit_stats;
      const auto miss = logits(*e, redknot(threshold), 11, &miss_stats);
      EXPECT_LT(distance(miss, logits(*e, redknot(threshold), 11, &hit_stats)), same_within());
      EXPECT_EQ(miss_stats.ffn_skipped, hit_stats.ffn_skipped);
      auto other = engine(plan);
      const auto tokens = run(*other, redknot(threshold, 20)).tokens;
      EXPECT_EQ(run(*other, redknot(threshold, 20)).tokens, tokens);
      if (test_device().is_cuda()) continue;  // another engine may add up in another order
      EXPECT_EQ(run(*e, redknot(threshold, 20)).tokens, tokens);
    }
  }
}

TEST_P(Redknot, SparseFfnLeavesOutDocumentRowsOnly) {
  for (const std::string& plan : {std::string(), local_plan(20, 3)}) {
    auto e = engine(plan);
    const int64_t document_rows = plan.empty() ? 50 + 33 : kDocumentRows;
    const auto full = logits(*e, redknot(), 11);
    RequestStats all_stats, stats, none;
    const auto sparse = logits(*e, redknot(0.3), 11, &stats);
    EXPECT_GT(distance(full, sparse), kOther);
    // One layer of three may lose rows: the first is dense, and in the last no document row runs.
    EXPECT_GT(stats.ffn_skipped, document_rows / 3);
    EXPECT_LT(stats.ffn_skipped, document_rows);
    EXPECT_LT(distance(full, logits(*e, redknot(1), 11, &all_stats)), same_within());
    // It is work that is not done, gate, up and down of each row, and the model knows it.
    const double row = 2.0 * 3 * kHidden * kFfn;
    EXPECT_NEAR(all_stats.work.flops - stats.work.flops,
                static_cast<double>(stats.ffn_skipped) * row, 1);
    EXPECT_NEAR(stats.predicted_work.flops / stats.work.flops, 1, 0.005);
    EXPECT_NEAR(stats.predicted_work.bytes / stats.work.bytes, 1, 0.02);

    Request r = redknot(0.3);
    r.ffn_recent_rows = 64;  // more than any document has
    EXPECT_LT(distance(full, logits(*e, r, 11, &none)), same_within());
    EXPECT_EQ(none.ffn_skipped, 0);
    r = redknot(0.3);
    r.ffn_dense_layers = 2;
    EXPECT_LT(distance(full, logits(*e, r, 11, &none)), same_within());
    EXPECT_EQ(none.ffn_skipped, 0);
  }
}

TEST_P(Redknot, MoreOfTheMassMeansMoreRows) {
  auto e = engine();
  int64_t last = INT64_MAX;
  for (const double threshold : {0.05, 0.3, 0.6, 0.9}) {
    RequestStats stats;
    logits(*e, redknot(threshold), 11, &stats);
    EXPECT_LT(stats.ffn_skipped, last) << threshold;
    last = stats.ffn_skipped;
  }
  EXPECT_GT(last, 0);
}

// Rows that run the FFN get their own, whatever is left out beside them: leaving out one row in
// forty changes little, however far the others had to move.
TEST_P(Redknot, EveryRowGetsItsOwnFfn) {
  Engine::Options options;
  options.max_step_rows = 64;  // a document is ranked as a whole
  auto e = load(GetParam(), options);
  RequestStats stats;
  const auto full = logits(*e, redknot(), 11), sparse = logits(*e, redknot(0.97), 11, &stats);
  EXPECT_GT(stats.ffn_skipped, 1);
  EXPECT_LT(stats.ffn_skipped, 8);
  EXPECT_LT(distance(full, sparse), 0.06);  // a row that gets another's: above 0.3
}

// What is ranked together does not depend on how the steps before a document ended.
TEST_P(Redknot, SparseRowsDoNotDependOnWhatIsStored) {
  auto e = engine();
  RequestStats with, without;
  Request r = redknot(0.4);
  const auto stored = logits(*e, r, 11, &with);
  r.spans.insert(r.spans.begin() + 2, fresh(9, 40));  // in front of the second document
  Request cold = r;
  cold.cache_read = cold.cache_write = false;
  const double far = distance(logits(*e, r, 11, &with), logits(*e, cold, 11, &without));
  // On a card sums of other row counts differ, and with them a row on the edge.
  EXPECT_LT(far, test_device().is_cuda() ? 0.15 : same_within());
  EXPECT_NEAR(with.ffn_skipped, without.ffn_skipped, test_device().is_cuda() ? 3 : 0);
}

TEST_P(Redknot, BadNumbersAreNamed) {
  auto e = engine();
  for (const double threshold : {0.0, -0.1, 1.5, double{NAN}}) {
    const Status status = e->check(redknot(threshold));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << threshold;
    EXPECT_THAT(status.message(), testing::HasSubstr("threshold"));
  }
  Request r = redknot();
  r.ffn_recent_rows = -3;
  EXPECT_THAT(e->check(r).message(), testing::HasSubstr("-3"));
}

TEST(RedknotMode, IsReadWithItsThreshold) {
  Request r;
  EXPECT_TRUE(read_mode("redknot", r).ok());
  EXPECT_EQ(r.mode, Mode::kRedknot);
  EXPECT_EQ(r.ffn_threshold, 1);
  EXPECT_TRUE(read_mode("redknot:0.6", r).ok());
  EXPECT_EQ(r.ffn_threshold, 0.6);
  for (const char* bad :
       {"redknot:0", "redknot:1.01", "redknot:-1", "redknot:nan", "redknot:x", "redknot:"}) {
    EXPECT_EQ(read_mode(bad, r).code(), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace rk::engine
