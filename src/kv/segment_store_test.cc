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
