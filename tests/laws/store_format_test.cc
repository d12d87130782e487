// Laws of documents at rest in fewer bits (spec A3, A8) through the whole engine.
#include <gmock/gmock.h>

#include <limits>

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using kv::RowFormat;
using testing::ElementsAre;

struct Case {
  const char* family;
  RowFormat format;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.family << " " << kv::row_format_name(c.format);
}

class StoreFormat : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Engine> engine(Engine::Options options = {}) {
    options.store_format = GetParam().format;
    return load(GetParam().family, options);
  }
  std::unique_ptr<Engine> unquantised() { return load(GetParam().family); }
};
INSTANTIATE_TEST_SUITE_P(
    All, StoreFormat,
    testing::Values(Case{"llama", RowFormat::kInt8}, Case{"llama", RowFormat::kK8V4},
                    Case{"llama", RowFormat::kFp8}, Case{"qwen2", RowFormat::kInt8},
                    Case{"qwen2", RowFormat::kK8V4}, Case{"qwen2", RowFormat::kFp8}),
    [](const auto& info) {
      return std::string(info.param.family) + "_" + kv::row_format_name(info.param.format);
    });

bool on_host() { return !test_device().is_cuda(); }

// The same rows in the same steps: the same bits on the host.
void expect_same(const std::vector<float>& a, const std::vector<float>& b) {
  if (on_host()) {
    EXPECT_EQ(a, b);
  } else {
    EXPECT_LT(distance(a, b), same_within());
  }
}

TEST_P(StoreFormat, AHitAnswersLikeTheMiss) {
  for (const int pieces : {0, 1, 3}) {
    for (const Mode mode :
         {Mode::kReuse, Mode::kBoundary, Mode::kSelective, Mode::kRandom, Mode::kCacheblend}) {
      SCOPED_TRACE(cat(mode_name(mode), " ", pieces));
      auto e = engine();
      Request r = request(mode, three(6), 12);
      if (pieces > 0) r.company = ids(48, 9);
      r.company_pieces = std::max(1, pieces);
      const auto miss = logits(*e, r, 11);
      const auto hit = logits(*e, r, 11);
      expect_same(miss, hit);
      e->drop_expanded();  // read again from rest
      expect_same(miss, logits(*e, r, 11));
      EXPECT_EQ(run(*e, r).tokens, run(*engine(), r).tokens);
    }
  }
}

TEST_P(StoreFormat, ExactModesAreTouchedByNothing) {
  auto e = engine(), plain = unquantised();
  for (uint32_t question = 6; question < 9; ++question) {
    for (const Mode mode : {Mode::kReuse, Mode::kPrefix, Mode::kDense}) {
      const auto got = logits(*e, request(mode, three(question)));
      if (mode == Mode::kReuse) continue;
      const auto want = logits(*plain, request(Mode::kDense, three(question)));
      EXPECT_LT(distance(got, want), same_within()) << mode_name(mode);
    }
    finish_idle_work(*e);
  }
}

// Close to the rows as computed, and not equal to them: the codes are what is read.
TEST_P(StoreFormat, WhatIsSplicedIsWhatIsKept) {
  auto e = engine(), plain = unquantised();
  const Request r = request(Mode::kReuse, three(6));
  const auto want = logits(*plain, r, 11), got = logits(*e, r, 11);
  EXPECT_GT(distance(want, got), 1e-4);
  EXPECT_LT(distance(want, got), GetParam().format == RowFormat::kInt8 ? 0.05 : 0.3);
  // Recomputing every row leaves nothing of the codes.
  Request all = request(Mode::kBoundary, three(6));
  all.boundary_rows = 50;
  EXPECT_LT(distance(logits(*e, all, 11), logits(*plain, request(Mode::kDense, three(6)), 11)),
            same_within());
}

// A key bias like that of real models of this family, far above what else K holds.
TEST_P(StoreFormat, ALargeKeyBiasCostsNothing) {
  if (GetParam().family != std::string("qwen2")) GTEST_SKIP() << "the family has none";
  if (!on_host()) GTEST_SKIP() << "bf16 rows lose more to such a bias than the codes";
  Engine::Options options;
  const auto change = [](const std::string& name, std::vector<float>& values) {
    if (name.find("attn_k.bias") == std::string::npos) return;
    for (float& v : values) v *= 40;
  };
  const Request r = request(Mode::kReuse, three(6));
  const auto want = logits(*load_on(test_device(), "qwen2", options, change), r, 11);
  options.store_format = GetParam().format;
  const auto got = logits(*load_on(test_device(), "qwen2", options, change), r, 11);
  EXPECT_LT(distance(want, got), GetParam().format == RowFormat::kInt8 ? 0.05 : 0.3);
}

TEST_P(StoreFormat, ADocumentAtRestIsNeverExact) {
  auto e = engine();
  RequestStats stats;
  logits(*e, request(Mode::kReuse, three(6)), 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("predecessor", "lead", "lead"));
  EXPECT_FALSE(stats.documents[0].exact);
  // The first one may be recomputed, and a prompt that must be exact takes none of them.
  Request some = request(Mode::kBoundary, three(7));
  some.boundary_rows = 5;
  logits(*e, some, 1, &stats);
  EXPECT_EQ(stats.recomputed, 15);
  logits(*e, request(Mode::kPrefix, three(8)), 1, &stats);
  EXPECT_EQ(stats.document_cached, 0);
  EXPECT_LE(stats.prefix_cached, 21);
}

TEST_P(StoreFormat, PredecessorsAndHarvestedRowsAreAtRestToo) {
  auto e = engine();
  RequestStats stats;
  for (const uint32_t question : {11U, 12U}) logits(*e, request(Mode::kReuse, three(question)));
  finish_idle_work(*e);
  logits(*e, request(Mode::kReuse, three(13)), 1, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("predecessor", "predecessor", "predecessor"));
  auto other = engine();  // rows of a prompt that ran exactly
  logits(*other, request(Mode::kPrefix, three(11)));
  EXPECT_EQ(other->segments().num_segments(), 3);
  const std::vector<PromptSpan> spans{fresh(21, 1), document(40, 8), document(50, 4),
                                      document(33, 5), fresh(11, 12)};
  const auto miss = logits(*other, request(Mode::kReuse, spans), 11, &stats);
  EXPECT_THAT(fits(stats), ElementsAre("predecessor", "company", "predecessor"));
  expect_same(miss, logits(*other, request(Mode::kReuse, spans), 11));
}

TEST_P(StoreFormat, TheStoreTakesFewerBytesAndKeepsItsBound) {
  auto e = engine();
  const Answer one = run(*e, request(Mode::kReuse, three(6)));
  const int64_t bytes = e->segments().num_bytes();
  EXPECT_EQ(one.outcome.stats.store_bytes, bytes);
  const int64_t full =
      run(*unquantised(), request(Mode::kReuse, three(6))).outcome.stats.store_bytes;
  const double times = static_cast<double>(full) / static_cast<double>(bytes);
  EXPECT_GT(times, on_host() ? 3.7 : 1.85);  // f32, or bf16, beside at most 8 bits and a scale
  Engine::Options options;
  options.store_bytes = bytes * 4 / 3;
  auto small = engine(options);
  for (uint32_t i = 0; i < 9; ++i) {
    auto spans = three(6);
    spans[1] = document(37, 20 + i);
    run(*small, request(Mode::kReuse, spans));
    EXPECT_LE(small->segments().num_bytes(), options.store_bytes);
  }
  EXPECT_GE(small->segments().num_documents(), 3);
  small->clear_cache();
  EXPECT_EQ(small->segments().num_bytes(), 0);
  EXPECT_EQ(small->pool().num_used(), 0);
}

// More documents than the pool has pages for: they wait at rest, and nothing is computed again.
TEST_P(StoreFormat, MoreDocumentsAreReadyThanThePoolHolds) {
  Engine::Options options;
  const int64_t column = int64_t{16} * kHeadDim * 2 * (on_host() ? 4 : 2) * kLayers * kKvHeads;
  options.kv_bytes = 16 * column;  // 256 rows
  options.store_bytes = 2 * options.kv_bytes;
  auto e = engine(options);
  const auto ask = [&](uint32_t i) {
    RequestStats stats;
    logits(*e, request(Mode::kReuse, {fresh(16, 1), document(64, 10 + i), fresh(9, 4)}), 1, &stats);
    return stats;
  };
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(ask(i).document_cached, 0);
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(ask(i).document_cached, 64) << i;
}

TEST_P(StoreFormat, RowsOfAnotherFormatHaveAnotherName) {
  Engine::Options options;
  options.model = path(GetParam().family);
  options.threads = 1;
  options.device = test_device();
  const auto none = Engine::create(options);
  options.store_format = GetParam().format;
  const auto ours = Engine::create(options);
  ASSERT_TRUE(none.ok() && ours.ok());
  const auto a = (*none)->card_identity(), b = (*ours)->card_identity();
  ASSERT_TRUE(a.ok() && b.ok());
  const std::string dtype = on_host() ? "f16" : "bf16";
  EXPECT_EQ(a->kv_dtype, dtype);
  EXPECT_EQ(b->kv_dtype, cat(dtype, "+", kv::row_format_name(GetParam().format)));
  EXPECT_FALSE(a->low_precision);
  EXPECT_TRUE(b->low_precision);
  // Neither card serves the other, and a store in fewer bits is never strict whatever a card says.
  CardEntry e = measured_entry(Mode::kReuse);
  e.needle_loss_high = 0.001;
  const Card card = card_for(*b, e);
  EXPECT_EQ(level_of(e), Level::kStrict);
  EXPECT_EQ(check_card(card, *a, "card").code(), Code::kInvalidArgument);
  options.card = options.model + ".card";
  std::ofstream(options.card) << card.to_json();
  const auto gated = Engine::create(options);
  options.store_format = RowFormat::kAsComputed;
  EXPECT_EQ(Engine::create(options).status().code(), Code::kInvalidArgument);
  std::filesystem::remove(options.card);
  std::filesystem::remove(options.model);
  ASSERT_TRUE(gated.ok()) << gated.status().message();
  Request r = request(Mode::kAuto, three(6));
  r.quality = Level::kStrict;
  EXPECT_EQ(run(**gated, r).outcome.stats.mode, Mode::kPrefix);
  r.quality = Level::kBalanced;
  const RequestStats stats = run(**gated, r).outcome.stats;
  EXPECT_EQ(stats.mode, Mode::kReuse);
  EXPECT_EQ(stats.quality_used, Level::kBalanced);
}

TEST(StoreFormatOptions, AreChecked) {
  Engine::Options options;
  options.model = path("llama");
  options.threads = 1;
  options.device = test_device();
  options.store_bytes = -1;
  EXPECT_EQ(Engine::create(options).status().code(), Code::kInvalidArgument);
  options.store_format = kv::RowFormat::kInt8;
  options.store_bytes = 100;  // not even a page of rows of every head
  const Status small = Engine::create(options).status();
  EXPECT_EQ(small.code(), Code::kInvalidArgument);
  EXPECT_THAT(small.message(), testing::HasSubstr("store_bytes: 100 for documents at rest, 16 "
                                                  "rows of one take "));
  options.store_bytes = std::numeric_limits<int64_t>::max();
  const Status large = Engine::create(options).status();
  EXPECT_EQ(large.code(), Code::kExhausted) << large.message();
  EXPECT_THAT(large.message(), testing::HasSubstr("MiB"));
  std::filesystem::remove(options.model);
}

}  // namespace
}  // namespace rk::engine
