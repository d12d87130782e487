#include "engine/variants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rk::engine {
namespace {

using testing::ElementsAre;

kv::Digest name(int n) { return context_digest(std::vector<int32_t>{n}); }

// A prompt's second document: `before` and `predecessor` as place_of() would name them.
const DocumentPlace kPlace{name(1), name(2), true};
const kv::SegmentContext kExact{name(1), name(2), 1, true};
const kv::SegmentContext kPredecessor{name(3), name(2), 1, true};
const kv::SegmentContext kMean{name(4), {}, 3, false};
const kv::SegmentContext kCompany{name(5), {}, 1, true};
const kv::SegmentContext kOtherPredecessor{name(6), name(7), 1, true};
const kv::SegmentContext kAlone{name(8), {}, 0, true};

TEST(Variants, TheOrderOfFits) {
  std::vector<kv::SegmentContext> stored{kAlone, kCompany, kMean, kPredecessor, kExact};
  const Fit fits[] = {Fit::kPredecessor, Fit::kPredecessor, Fit::kMean, Fit::kCompany, Fit::kLead};
  for (int i = 0; i < 5; ++i) {
    const VariantChoice choice = choose_variant(stored, kPlace);
    EXPECT_EQ(choice.index, 4 - i);
    EXPECT_EQ(choice.fit, fits[i]);
    EXPECT_EQ(choice.exact, i == 0);
    EXPECT_EQ(choice.whole, i == 0);
    stored.pop_back();
  }
  EXPECT_EQ(choose_variant(stored, kPlace).index, -1);
}

TEST(Variants, TheFirstGivenWinsTies) {
  // Behind another document is behind one company.
  EXPECT_EQ(choose_variant(std::vector{kAlone, kOtherPredecessor, kCompany}, kPlace).index, 1);
  EXPECT_EQ(choose_variant(std::vector{kAlone, kCompany, kOtherPredecessor}, kPlace).index, 1);
}

TEST(Variants, TheFirstDocumentTakesTheLeadAlone) {
  const DocumentPlace first{name(8), {}, true};
  const VariantChoice choice = choose_variant(std::vector{kMean, kPredecessor, kAlone}, first);
  EXPECT_EQ(choice.index, 2);
  EXPECT_TRUE(choice.exact);
  // Without it nothing is its predecessor.
  EXPECT_EQ(choose_variant(std::vector{kCompany, kMean}, first).fit, Fit::kMean);
}

TEST(Variants, AWholeContextIsExactOnlyWhereRowsAre) {
  DocumentPlace place = kPlace;
  place.can_be_exact = false;
  VariantChoice choice = choose_variant(std::vector{kPredecessor, kExact}, place);
  EXPECT_EQ(choice.index, 1);
  EXPECT_FALSE(choice.exact);
  EXPECT_TRUE(choice.whole);
  kv::SegmentContext not_exact = kExact;
  not_exact.exact = false;
  choice = choose_variant(std::vector{not_exact, kExact}, kPlace);
  EXPECT_EQ(choice.index, 1);
  kv::SegmentContext mean = kMean;
  mean.before = kPlace.before;
  EXPECT_FALSE(choose_variant(std::vector{mean}, kPlace).whole);
}

TEST(Variants, PlacesNameWhatStandsBefore) {
  const std::vector<int32_t> lead{1, 2}, a{3, 4}, between{5}, b{6};
  const Prompt prompt = flatten({{lead, false}, {a, true}, {between, false}, {b, true}});
  EXPECT_EQ(place_of(prompt, 1, true).before, context_digest(lead));
  EXPECT_EQ(place_of(prompt, 1, true).predecessor, kv::Digest());
  EXPECT_THAT(predecessor_ids(prompt, 3), ElementsAre(3, 4, 5));
  EXPECT_EQ(place_of(prompt, 3, true).before, context_digest(std::vector<int32_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(place_of(prompt, 3, true).predecessor, context_digest(std::vector<int32_t>{3, 4, 5}));
}

TEST(Variants, CompanyIsCutToTheRoomNextToTheDocument) {
  Request r;
  EXPECT_TRUE(companies_of(r, 100).empty());
  EXPECT_EQ(asked_fit(r), Fit::kLead);
  r.company = {1, 2, 3, 4, 5, 6, 7};
  EXPECT_THAT(companies_of(r, 3), ElementsAre(ElementsAre(5, 6, 7)));
  EXPECT_TRUE(companies_of(r, 0).empty());
  EXPECT_TRUE(companies_of(r, -5).empty());
  EXPECT_EQ(asked_fit(r), Fit::kCompany);
  r.company.resize(300);
  EXPECT_EQ(companies_of(r, 200)[0].size(), 192U);
  EXPECT_EQ(companies_of(r, 300)[0].size(), 300U);
  r.company = {1, 2, 3, 4, 5, 6, 7};
  r.company_pieces = 3;
  EXPECT_THAT(companies_of(r, 100),
              ElementsAre(ElementsAre(1, 2), ElementsAre(3, 4), ElementsAre(5, 6)));
  EXPECT_THAT(companies_of(r, 1), ElementsAre(ElementsAre(2), ElementsAre(4), ElementsAre(6)));
  EXPECT_EQ(asked_fit(r), Fit::kMean);
  r.company_pieces = 8;  // more pieces than ids
  EXPECT_TRUE(companies_of(r, 100).empty());
}

TEST(Variants, APairIsQueuedWhenItRecursAndOnlyOnce) {
  PredecessorQueue queue;
  const VariantJob job{"", {1}, {2}, {3}};
  queue.seen(job);
  queue.seen({"", {1}, {3}, {2}});  // the other order
  queue.seen({"x", {1}, {2}, {3}});
  EXPECT_TRUE(queue.empty());
  queue.seen(job);
  queue.seen(job);
  ASSERT_FALSE(queue.empty());
  EXPECT_THAT(queue.next()->document, ElementsAre(3));
  EXPECT_FALSE(queue.next().has_value());
}

TEST(Variants, TheQueueIsBounded) {
  PredecessorQueue queue;
  for (int i = 0; i < 20'000; ++i) {
    queue.seen({"", {1}, {2}, {i % 10'000}});  // each twice, but too far apart
  }
  EXPECT_TRUE(queue.empty());
  for (int i = 0; i < 2000; ++i) queue.seen({"", {1}, {2}, {i / 2}});
  int jobs = 0;
  while (queue.next()) ++jobs;
  EXPECT_EQ(jobs, 64);
}

}  // namespace
}  // namespace rk::engine
