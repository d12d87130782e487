// Laws of documents behind different contexts (spec A3) through the whole engine.
#include <gmock/gmock.h>

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using testing::ElementsAre;

class Variants : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Engine> engine(Engine::Options options = {}) { return load(GetParam(), options); }
};
INSTANTIATE_TEST_SUITE_P(Families, Variants, testing::Values("llama", "qwen2"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Variants, CompanyChangesOnlyDocumentsThatAreNotExact) {
  auto e = engine();
  Request r = request(Mode::kReuse, {fresh(21, 1), document(37, 2), fresh(11, 6)});
  const auto alone = logits(*e, r, 11);
  e->clear_cache();
  r.company = ids(30, 9);
  EXPECT_EQ(alone, logits(*e, r, 11));
  r.spans = three(6);
  RequestStats stats;
  const auto in_company = logits(*e, r, 11, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("exact", "company", "company"));
  e->clear_cache();
  r.company.clear();
  EXPECT_GT(distance(in_company, logits(*e, r, 11, &stats)), same_within());
  EXPECT_THAT(fits(stats), ElementsAre("exact", "lead", "lead"));
}

TEST_P(Variants, AHitInCompanyAnswersLikeTheMiss) {
  for (const int pieces : {1, 3}) {
    for (const Mode mode : {Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
      auto e = engine();
      Request r = request(mode, three(6), 12);
      r.company = ids(48, 9);
      r.company_pieces = pieces;
      const Answer miss = run(*e, r), hit = run(*e, r);
      EXPECT_EQ(miss.tokens, hit.tokens) << mode_name(mode) << pieces;
      EXPECT_EQ(fits(miss.outcome.stats), fits(hit.outcome.stats));
      EXPECT_EQ(miss.outcome.stats.document_cached, 0);
      EXPECT_EQ(hit.outcome.stats.prefix_cached + hit.outcome.stats.document_cached +
                    hit.outcome.stats.recomputed,
                141);
    }
  }
}

// The fit that a request asks for holds whatever was stored before; better ones are taken.
TEST_P(Variants, AWorseFitIsNotTakenForTheAskedOne) {
  auto e = engine();
  Request r = request(Mode::kReuse, three(6));
  logits(*e, r);
  r.company = ids(30, 9);
  RequestStats stats;
  const auto in_company = logits(*e, r, 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("exact", "company", "company"));
  e->clear_cache();
  EXPECT_LT(distance(in_company, logits(*e, r)), same_within());
  r.company.clear();  // asks for less than there is
  logits(*e, r, 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("exact", "company", "company"));
}

TEST_P(Variants, TheMeanOverEqualCompaniesIsOneOfThem) {
  auto e = engine();
  Request r = request(Mode::kReuse, three(6));
  r.company = ids(30, 9);
  const auto one = logits(*e, r);
  e->clear_cache();
  const auto piece = r.company;
  r.company.insert(r.company.end(), piece.begin(), piece.end());
  const auto longer = logits(*e, r);
  e->clear_cache();
  r.company_pieces = 2;
  RequestStats stats;
  EXPECT_LT(distance(one, logits(*e, r, 1, &stats)), same_within());
  EXPECT_THAT(fits(stats), ElementsAre("exact", "mean", "mean"));
  EXPECT_GT(distance(longer, one), same_within());
}

TEST_P(Variants, CompanyIsCutWhereTheContextIsFull) {
  auto e = engine();
  Request r = request(Mode::kReuse, {fresh(20, 1), document(30, 2), document(400, 3), fresh(9, 4)});
  r.company = ids(300, 9);
  EXPECT_EQ(run(*e, r).tokens, run(*e, r).tokens);
  // Each document has another company then: their rows do not pile up.
  r.spans = {fresh(20, 1)};
  for (int i = 0; i < 9; ++i) r.spans.push_back(document(2 + 5 * i, 10 + uint32_t(i)));
  r.spans.push_back(fresh(9, 4));
  r.company = ids(480, 9);
  Engine::Options options;
  options.kv_bytes = int64_t{96} * 16 * kHeadDim * 2 * 4 * kLayers * kKvHeads;
  EXPECT_EQ(run(*engine(options), r).tokens.size(), 8U);
}

TEST_P(Variants, APairThatRecursIsComputedAndUsedTheThirdTime) {
  auto e = engine();
  RequestStats stats;
  logits(*e, request(Mode::kReuse, three(11)), 1, &stats);
  EXPECT_FALSE(e->idle_work());  // once is not enough
  logits(*e, request(Mode::kReuse, three(12)), 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("exact", "lead", "lead"));
  EXPECT_GT(finish_idle_work(*e), 2);  // steps of 16 rows
  const auto spans = three(13);
  const auto dense = logits(*e, request(Mode::kDense, spans));
  const auto third = logits(*e, request(Mode::kReuse, spans), 1, &stats);
  // The second document's whole context is lead and first document.
  EXPECT_THAT(fits(stats), ElementsAre("exact", "exact", "predecessor"));
  const auto cold = logits(*engine(), request(Mode::kReuse, spans));
  EXPECT_LT(distance(dense, third), distance(dense, cold));
  EXPECT_FALSE(e->idle_work());
}

// A document that comes to stand first is not computed again at once, but when it does so again.
TEST_P(Variants, AFirstDocumentBecomesExactWhenItRecurs) {
  auto e = engine();
  Request r = request(Mode::kReuse, three(11));
  r.company = ids(30, 9);
  logits(*e, r);
  RequestStats stats;
  for (uint32_t question = 12; question < 14; ++question) {
    r.spans = {fresh(21, 1), document(50, 4), fresh(11, question)};
    logits(*e, r, 1, &stats);
    EXPECT_THAT(fits(stats), ElementsAre("company"));
    EXPECT_EQ(stats.document_cached, 50);
  }
  finish_idle_work(*e);
  r.spans = {fresh(21, 1), document(50, 4), fresh(11, 14)};
  EXPECT_LT(distance(logits(*e, r, 11, &stats), logits(*e, request(Mode::kDense, r.spans), 11)),
            same_within());
  EXPECT_THAT(fits(stats), ElementsAre("exact"));
}

TEST_P(Variants, ADocumentBehindItsWholeContextIsExact) {
  auto e = engine();
  const auto spans = [](uint32_t question) {
    return std::vector<PromptSpan>{fresh(21, 1), document(37, 2), fresh(5, 3), document(50, 4),
                                   fresh(11, question)};
  };
  for (const uint32_t question : {11U, 12U}) run(*e, request(Mode::kReuse, spans(question)));
  finish_idle_work(*e);
  for (const Mode mode : {Mode::kReuse, Mode::kBoundary, Mode::kSelective}) {
    Request r = request(mode, spans(20 + static_cast<uint32_t>(mode)));
    RequestStats stats;
    const auto dense = logits(*e, request(Mode::kDense, r.spans), 11);
    EXPECT_LT(distance(dense, logits(*e, r, 11, &stats)), same_within()) << mode_name(mode);
    EXPECT_THAT(fits(stats), ElementsAre("exact", "exact"));
    EXPECT_EQ(stats.recomputed, 0);
  }
}

TEST_P(Variants, RowsOfAnExactPromptServeAnotherOne) {
  auto e = engine();
  logits(*e, request(Mode::kPrefix, three(11)));
  // Behind the same document, in front of which another one stands.
  const std::vector<PromptSpan> spans{fresh(21, 1), document(40, 8), document(50, 4),
                                      document(33, 5), fresh(11, 12)};
  RequestStats stats;
  logits(*e, request(Mode::kReuse, spans), 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("exact", "company", "predecessor"));
  EXPECT_EQ(stats.document_cached, 83);
  // Dense as a baseline leaves nothing, and so does a request that must not.
  auto other = engine();
  Request r = request(Mode::kPrefix, three(11));
  r.cache_write = false;
  logits(*other, r);
  logits(*other, request(Mode::kDense, three(11)));
  EXPECT_EQ(other->segments().num_segments(), 0);
}

TEST_P(Variants, UnfinishedIdleWorkChangesNoAnswer) {
  auto with = engine(), without = engine();
  for (uint32_t question = 11; question < 16; ++question) {
    const Request r = request(Mode::kReuse, three(question), 6);
    EXPECT_EQ(run(*with, r).tokens, run(*without, r).tokens) << question;
    if (question == 13) {
      EXPECT_TRUE(with->idle_work());  // one step of several
    }
  }
}

TEST_P(Variants, BudgetsHold) {
  Engine::Options options;
  options.max_variants = 2;
  options.max_step_rows = 64;
  auto e = engine(options);
  for (uint32_t i = 0; i < 8; ++i) {
    const std::vector<PromptSpan> spans{fresh(20, 1), document(20 + int(i), 100 + i),
                                        document(40, 2), fresh(9, 4)};
    Request r = request(i % 2 == 0 ? Mode::kReuse : Mode::kPrefix, spans);
    if (i % 4 == 0) r.company = ids(25, 9);
    for (int k = 0; k < 2; ++k) logits(*e, r);
    finish_idle_work(*e);
    EXPECT_LE(e->segments().num_segments(), int64_t{i} + 1 + 3);
  }
  EXPECT_EQ(e->segments().num_documents(), 9);
  options.max_variants = 0;
  options.model = path(GetParam());
  const auto bad = Engine::create(options);
  std::filesystem::remove(options.model);
  EXPECT_EQ(bad.status().code(), Code::kInvalidArgument);
}

// Rows come and go all the time; answers are those of an engine with room for all.
TEST_P(Variants, SmallPoolsKeepTheCacheRight) {
  const int64_t column =
      int64_t{16} * kHeadDim * 2 * 4 * kLayers * kKvHeads / (test_device().is_cuda() ? 2 : 1);
  for (const int columns : {12, 17, 24, 32}) {
    Engine::Options options;
    options.kv_bytes = columns * column;
    auto small = engine(options);
    int served = 0;
    for (uint32_t i = 0; i < 24; ++i) {
      Request r = request(
          i % 5 == 4 ? Mode::kPrefix : Mode::kReuse,
          {fresh(20, i % 2), document(40, 10 + i % 3), document(50, 20 + i % 2), fresh(12, 30 + i)},
          6);
      r.company = ids(40, 9);
      r.company_pieces = i % 7 == 6 ? 2 : 1;
      Answer answer;
      small->run(r, 0, answer);
      served += answer.outcome.status.ok();
      if (!answer.outcome.status.ok()) {
        EXPECT_EQ(answer.outcome.status.code(), Code::kExhausted);
      }
      for (uint32_t k = 0; k < i % 4; ++k) small->idle_work();
      if (i % 6 != 5) continue;
      // What is stored now is right: exact modes are exact.
      Request exact = r;
      exact.mode = Mode::kPrefix;
      std::vector<float> got;
      if (small->evaluate(exact, 1, got, nullptr).ok()) {
        exact.mode = Mode::kDense;
        EXPECT_LT(distance(got, logits(*small, exact)), same_within()) << columns << " " << i;
      }
    }
    EXPECT_TRUE(columns < 32 || served > 20) << served;
    small->clear_cache();
    EXPECT_EQ(small->pool().num_used(), 0);
  }
}

TEST_P(Variants, UnderLocalHeadsCompanyAndPredecessorsWorkToo) {
  Engine::Options options;
  options.plan_json = local_plan(20, 3);
  auto e = engine(options);
  Request r = request(Mode::kReuse, three(11));
  r.company = ids(30, 9);
  RequestStats stats;
  logits(*e, r, 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("predecessor", "company", "company"));
  r.spans = three(12);
  logits(*e, r, 1, &stats);
  finish_idle_work(*e);
  r.spans = three(13);
  logits(*e, r, 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("predecessor", "predecessor", "predecessor"));
  EXPECT_EQ(stats.document_cached, 120);
}

// A model's own window makes a prompt forget rows; a document's are kept all the same.
TEST(VariantsOfAWindow, DocumentsLongerThanTheModelsWindowAreStored) {
  if (test_device().is_cuda()) GTEST_SKIP() << "heads of 8 elements are for the CPU";
  Engine::Options options;
  options.model = std::string(RK_SOURCE_DIR) + "/tests/golden/models/mistral_window";
  options.threads = 1;
  options.kv_dtype = DType::kF32;
  options.device = test_device();
  const auto engine = Engine::create(options);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const auto few = [](int n, uint32_t seed) {
    auto out = ids(n, seed);
    for (int32_t& id : out) id %= 64;
    return out;
  };
  Request r =
      request(Mode::kReuse,
              {{few(9, 1), false}, {few(170, 2), true}, {few(50, 3), true}, {few(9, 4), false}});
  r.company = few(40, 5);
  const auto miss = logits(**engine, r);
  EXPECT_LT(distance(miss, logits(**engine, r)), same_within());
}

}  // namespace
}  // namespace rk::engine
