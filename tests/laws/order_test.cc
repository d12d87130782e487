// `order: any` through the whole engine.
#include <gmock/gmock.h>

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using testing::ElementsAre;

std::vector<PromptSpan> in_order(const std::vector<int>& order, uint32_t question) {
  const std::vector<PromptSpan> documents{document(37, 2), document(50, 4), document(33, 5)};
  std::vector<PromptSpan> out{fresh(21, 1)};
  for (const int i : order) out.push_back(documents[static_cast<size_t>(i)]);
  out.push_back(fresh(11, question));
  return out;
}

Request any(Mode mode, std::vector<PromptSpan> spans) {
  Request r = request(mode, std::move(spans));
  r.any_order = true;
  return r;
}

TEST(Order, NothingStoredKeepsTheOrder) {
  for (const Mode mode : {Mode::kDense, Mode::kPrefix, Mode::kReuse, Mode::kSelective}) {
    auto a = load("llama"), b = load("llama");
    const Answer kept = run(*a, request(mode, in_order({2, 0, 1}, 6)));
    const Answer free = run(*b, any(mode, in_order({2, 0, 1}, 6)));
    EXPECT_EQ(kept.tokens, free.tokens);
    EXPECT_TRUE(kept.outcome.stats.document_order.empty());
    EXPECT_THAT(free.outcome.stats.document_order, ElementsAre(0, 1, 2));
  }
}

TEST(Order, AKnownPromptInAnotherOrderIsAPrefixHit) {
  for (const Mode mode : {Mode::kPrefix, Mode::kReuse}) {
    auto e = load("llama");
    run(*e, request(Mode::kPrefix, in_order({0, 1, 2}, 6)));
    const Answer free = run(*e, any(mode, in_order({2, 0, 1}, 7)));
    const RequestStats& s = free.outcome.stats;
    EXPECT_THAT(s.document_order, ElementsAre(1, 2, 0));
    EXPECT_EQ(s.prefix_cached + s.document_cached, 141) << mode_name(mode);
    EXPECT_EQ(s.recomputed, 0);
    // It is the answer to the prompt in that order, exactly.
    EXPECT_EQ(free.tokens, run(*e, request(Mode::kDense, in_order({0, 1, 2}, 7))).tokens);
  }
}

// Of the second document only the rows behind the third are kept as its own; the prompt that began
// with the other two is known by its prefix alone.
TEST(Order, APrefixIsEnough) {
  Engine::Options options;
  options.max_variants = 1;
  auto e = load("llama", options);
  run(*e, request(Mode::kPrefix, in_order({0, 1, 2}, 6)));
  run(*e, request(Mode::kPrefix, in_order({2, 1, 0}, 6)));
  const RequestStats s = run(*e, any(Mode::kPrefix, in_order({0, 2, 1}, 7))).outcome.stats;
  EXPECT_THAT(s.document_order, ElementsAre(0, 2, 1));
  EXPECT_EQ(s.prefix_cached, 141);
}

TEST(Order, AKnownPredecessorIsPutBefore) {
  auto e = load("llama");
  Request r = request(Mode::kReuse, in_order({0, 1, 2}, 6));
  r.company = ids(30, 9);
  for (const uint32_t question : {6U, 7U}) {
    r.spans = {fresh(21, 1), document(40, 8), document(33, 5), document(50, 4),
               fresh(11, question)};
    run(*e, r);
  }
  while (e->idle_work()) {
  }
  // All of 8, 5, 4 are known in that order; a new one goes behind, although it came first.
  r.spans = {fresh(21, 1),    document(29, 3), document(50, 4),
             document(33, 5), document(40, 8), fresh(11, 8)};
  r.any_order = true;
  const RequestStats s = run(*e, r).outcome.stats;
  EXPECT_THAT(s.document_order, ElementsAre(3, 2, 1, 0));
  EXPECT_TRUE(s.documents[0].exact && s.documents[1].exact);
  EXPECT_EQ(s.documents[2].fit, Fit::kPredecessor);
  EXPECT_EQ(s.documents[3].fit, Fit::kCompany);
}

TEST(Order, OnlyNeighboursChangePlaces) {
  auto e = load("llama");
  const auto spans = [](uint32_t a, uint32_t b) {
    return std::vector<PromptSpan>{fresh(21, 1), document(37, a), fresh(5, 3), document(37, b),
                                   fresh(11, 6)};
  };
  run(*e, request(Mode::kPrefix, spans(2, 4)));
  EXPECT_THAT(run(*e, any(Mode::kPrefix, spans(4, 2))).outcome.stats.document_order,
              ElementsAre(0, 1));
}

TEST(Order, WhatMayNotBeReadDecidesNothing) {
  auto e = load("llama");
  run(*e, request(Mode::kPrefix, in_order({0, 1, 2}, 6)));
  Request r = any(Mode::kPrefix, in_order({2, 0, 1}, 7));
  r.cache_read = false;
  EXPECT_THAT(run(*e, r).outcome.stats.document_order, ElementsAre(0, 1, 2));
  r.cache_read = true;
  r.cache_namespace = "another";
  EXPECT_THAT(run(*e, r).outcome.stats.document_order, ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace rk::engine
