#include "kv/segment_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rk::kv {
namespace {

using testing::ElementsAre;

Digest digest(uint8_t n) {
  Digest out;
  out.bytes[0] = n;
  return out;
}
// `context` 0 is the lead alone.
SegmentStore::Variant variant(uint8_t context, std::vector<int32_t> tokens = {1, 2, 3}) {
  auto segment = std::make_shared<Segment>();
  segment->tokens = std::move(tokens);
  segment->context = {digest(context), {}, context == 0 ? 0 : 1, true};
  return segment;
}
std::vector<int> contexts(const SegmentStore& store, uint8_t document,
                          std::vector<int32_t> tokens = {1, 2, 3}) {
  std::vector<int> out;
  for (const auto& v : store.find(digest(document), tokens)) {
    out.push_back(v->context.before.bytes[0]);
  }
  return out;
}

SegmentStore::Variant of_bytes(uint8_t context, int64_t num_bytes) {
  auto segment = std::make_shared<Segment>(*variant(context));
  segment->num_bytes = num_bytes;
  return segment;
}

TEST(SegmentStore, BytesAreBounded) {
  SegmentStore store(4, 100);
  for (uint8_t d = 0; d < 5; ++d) store.insert(digest(d), of_bytes(0, 30));
  EXPECT_EQ(store.num_bytes(), 90);
  EXPECT_EQ(store.num_segments(), 3);
  EXPECT_TRUE(contexts(store, 0).empty());  // the least recently used went
  EXPECT_TRUE(contexts(store, 1).empty());
  store.mark_used(digest(2), store.find(digest(2), std::vector<int32_t>{1, 2, 3})[0].get());
  EXPECT_TRUE(store.insert(digest(5), of_bytes(0, 30)));
  EXPECT_TRUE(contexts(store, 3).empty());
  EXPECT_FALSE(contexts(store, 2).empty());
  EXPECT_FALSE(store.insert(digest(6), of_bytes(0, 101)));  // larger than all there is
  EXPECT_TRUE(contexts(store, 6).empty());
  EXPECT_LE(store.num_bytes(), 100);
  // What requests hold stays, and what has no room beside it is not kept.
  SegmentStore held(4, 100);
  const auto a = of_bytes(0, 60), b = of_bytes(0, 60);
  held.insert(digest(1), a);
  held.insert(digest(2), b);
  EXPECT_EQ(held.num_bytes(), 60);
  EXPECT_FALSE(contexts(held, 1).empty());
  EXPECT_TRUE(contexts(held, 2).empty());
}

TEST(SegmentStore, ExpandedRowsGoLeastRecentlyUsedFirstAndNeverWhileRead) {
  auto pool = PagePool::create({.capacity_bytes = int64_t{1} << 20}).value();
  const auto rows = [&] {
    std::vector<std::vector<PageId>> pages(1);
    EXPECT_TRUE(pool->allocate(1, pages[0]).ok());
    return std::make_shared<const FrameRows>(*pool, 0, 3, std::move(pages));
  };
  SegmentStore store;
  std::vector<const Segment*> segments;
  for (uint8_t d = 0; d < 3; ++d) {
    const auto segment = variant(0);
    segments.push_back(segment.get());
    store.insert(digest(d), segment);
    EXPECT_EQ(store.expanded(digest(d), segment.get()), nullptr);
    store.keep_expanded(digest(d), segment.get(), rows());
  }
  EXPECT_EQ(pool->num_used(), 3);
  store.mark_used(digest(0), segments[0]);
  const auto read = store.expanded(digest(1), segments[1]);
  EXPECT_TRUE(store.drop_one_expanded());
  EXPECT_EQ(store.expanded(digest(2), segments[2]), nullptr);
  EXPECT_TRUE(store.drop_one_expanded());
  EXPECT_FALSE(store.drop_one_expanded());  // the rest is read
  EXPECT_EQ(pool->num_used(), 1);
  EXPECT_EQ(store.num_segments(), 3);
  store.keep_expanded(digest(9), segments[0], rows());  // of nothing that is stored
  EXPECT_EQ(pool->num_used(), 1);
}

TEST(SegmentStore, VariantsComeNewestFirstAndOnlyForEqualIds) {
  SegmentStore store;
  for (const uint8_t c : {0, 5, 3}) store.insert(digest(9), variant(c));
  EXPECT_THAT(contexts(store, 9), ElementsAre(3, 5, 0));
  EXPECT_TRUE(contexts(store, 9, {1, 2}).empty());
  EXPECT_TRUE(contexts(store, 8).empty());
  EXPECT_EQ(store.num_segments(), 3);
  EXPECT_EQ(store.num_documents(), 1);
  EXPECT_EQ(store.num_tokens(), 9);
}

TEST(SegmentStore, AnEqualContextReplaces) {
  SegmentStore store;
  for (const uint8_t c : {5, 3, 5}) store.insert(digest(9), variant(c));
  EXPECT_THAT(contexts(store, 9), ElementsAre(5, 3));
  EXPECT_EQ(store.num_tokens(), 6);
}

TEST(SegmentStore, TheBudgetForgetsTheLeastRecentlyUsedButNotTheLeadAlone) {
  SegmentStore store(2);
  for (const uint8_t c : {0, 1, 2}) store.insert(digest(9), variant(c));
  EXPECT_EQ(store.num_segments(), 3);
  const auto oldest = store.find(digest(9), std::vector<int32_t>{1, 2, 3})[1];
  store.mark_used(digest(9), oldest.get());
  store.insert(digest(9), variant(3));
  EXPECT_THAT(contexts(store, 9), ElementsAre(3, 1, 0));
  store.insert(digest(9), variant(4));
  EXPECT_THAT(contexts(store, 9), ElementsAre(4, 3, 0));
  store.insert(digest(8), variant(7));  // another document has its own budget
  EXPECT_EQ(store.num_segments(), 4);
}

TEST(SegmentStore, EvictionSparesWhatIsHeldAndTheLeadAloneWhileOthersAreThere) {
  SegmentStore store;
  for (const uint8_t c : {0, 1, 2}) store.insert(digest(9), variant(c));
  {
    const auto held = store.find(digest(9), std::vector<int32_t>{1, 2, 3});  // 2, 1, 0
    EXPECT_FALSE(store.evict_one());
  }
  EXPECT_TRUE(store.evict_one());
  EXPECT_THAT(contexts(store, 9), ElementsAre(2, 0));
  EXPECT_TRUE(store.evict_one());
  EXPECT_THAT(contexts(store, 9), ElementsAre(0));
  store.insert(digest(9), variant(4));
  {
    const auto held = store.find(digest(9), std::vector<int32_t>{1, 2, 3})[0];
    EXPECT_TRUE(store.evict_one());  // nothing else may go
    EXPECT_THAT(contexts(store, 9), ElementsAre(4));
  }
  EXPECT_TRUE(store.evict_one());
  EXPECT_FALSE(store.evict_one());
  EXPECT_EQ(store.num_tokens(), 0);
  EXPECT_EQ(store.num_documents(), 0);
}

}  // namespace
}  // namespace rk::kv
