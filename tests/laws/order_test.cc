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
  // 4 is known behind 5 wherever the two stand.
  r.spans = {fresh(21, 1), document(50, 4), document(29, 3), document(33, 5), fresh(11, 8)};
  r.any_order = true;
  const RequestStats s = run(*e, r).outcome.stats;
  const auto at = [&](int document) {
    return std::find(s.document_order.begin(), s.document_order.end(), document) -
           s.document_order.begin();
  };
  EXPECT_EQ(at(0), at(2) + 1);
  EXPECT_LE(s.documents[static_cast<size_t>(at(0))].fit, Fit::kPredecessor);
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
