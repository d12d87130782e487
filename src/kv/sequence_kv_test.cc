#include "kv/sequence_kv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace rk::kv {
namespace {

using testing::ElementsAre;
constexpr int kLayers = 2, kHeads = 2, kAll = kLayers * kHeads, kPage = 4, kDim = 2;

std::unique_ptr<PagePool> make_pool(int64_t num_pages) {
  PagePool::Options options{.page_rows = kPage, .head_dim = kDim, .dtype = DType::kF32};
  options.capacity_bytes = num_pages * PagePool::page_bytes(options);
  return PagePool::create(options).value();
}

std::unique_ptr<SequenceKv> make(PagePool& pool, Visible visible = {}) {
  return std::make_unique<SequenceKv>(pool, kLayers, kHeads, std::vector<Visible>(kAll, visible));
}

std::vector<int32_t> range(int32_t begin, int32_t end) {
  std::vector<int32_t> out(static_cast<size_t>(end - begin));
  std::iota(out.begin(), out.end(), begin);
  return out;
}

// The K element that stands for (layer, head, value) in a slot.
float* k_at(PagePool& pool, int64_t slot) {
  return pool.k(static_cast<PageId>(slot / kPage)).ptr<float>() + slot % kPage * kDim;
}

std::vector<int64_t> slots(const SequenceKv& kv, int layer, const std::vector<int32_t>& positions) {
  std::vector<int64_t> out(positions.size() * kHeads);
  kv.slots(layer, positions, out.data());
  return out;
}

// Prepares the positions and writes mark + position (and the head, in the second element).
void write(PagePool& pool, SequenceKv& kv, const std::vector<int32_t>& positions, float mark) {
  ASSERT_TRUE(kv.prepare(positions).ok());
  for (int l = 0; l < kLayers; ++l) {
    const auto to = slots(kv, l, positions);
    for (size_t i = 0; i < to.size(); ++i) {
      k_at(pool, to[i])[0] = mark + static_cast<float>(positions[i / kHeads]);
      k_at(pool, to[i])[1] = static_cast<float>(l * kHeads + static_cast<int>(i % kHeads));
    }
  }
}

// What a head's runs hold as (position, first K element), read as the attention kernel reads them.
std::vector<std::pair<int32_t, float>> rows(PagePool& pool, const SequenceKv& kv, int layer = 0,
                                            int head = 0) {
  std::vector<std::pair<int32_t, float>> out;
  const kernels::HeadRows held = kv.head_rows(layer, head);
  for (const kernels::Run& run : held.runs) {
    for (int32_t row = run.row_begin; row < run.row_end; ++row) {
      const int32_t page =
          held.pages[static_cast<size_t>(run.first_page + row / kPage - run.row_begin / kPage)];
      const float* k = k_at(pool, int64_t{page} * kPage + row % kPage);
      EXPECT_EQ(k[1], static_cast<float>(layer * kHeads + head)) << "position " << run.offset + row;
      out.emplace_back(run.offset + row, k[0]);
    }
  }
  return out;
}

std::vector<int32_t> positions_of(PagePool& pool, const SequenceKv& kv) {
  std::vector<int32_t> out;
  for (const auto& [position, value] : rows(pool, kv)) out.push_back(position);
  return out;
}

// `n` frozen rows whose K is mark + row.
std::shared_ptr<const FrameRows> stored(PagePool& pool, int32_t n, float mark) {
  auto kv = make(pool);
  kv->add_fresh(0, n);
  write(pool, *kv, range(0, n), mark);
  return kv->freeze(0, 0, n);
}

TEST(SequenceKv, PiecesTileThePositions) {
  auto pool = make_pool(100);
  {
    auto document = stored(*pool, 11, 100);
    auto kv = make(*pool);
    kv->add_stored(document, 0, 6);  // a prefix of the document
    kv->add_fresh(6, 3);             // continues its frame
    kv->add_stored(document, 0, 11);
    kv->add_fresh(0, 2);
    EXPECT_EQ(kv->num_positions(), 22);
    EXPECT_EQ(kv->num_pieces(), 4);
    EXPECT_EQ(kv->num_own_pages(), 0);  // nothing is allocated before it is written
    EXPECT_EQ(kv->piece(1).offset, 0);
    EXPECT_EQ(kv->piece(2).offset, 9);
    EXPECT_EQ(kv->piece(3).offset, 20);
    auto want = range(0, 6);
    const auto second = range(9, 20);
    want.insert(want.end(), second.begin(), second.end());
    EXPECT_EQ(positions_of(*pool, *kv), want);  // unwritten rows are not seen
    write(*pool, *kv, {6, 7, 8, 20, 21}, 1000);
    EXPECT_EQ(positions_of(*pool, *kv), range(0, 22));
    for (int l = 0; l < kLayers; ++l) {
      for (int g = 0; g < kHeads; ++g) {
        const auto got = rows(*pool, *kv, l, g);
        EXPECT_EQ(got[5].second, 105);
        EXPECT_EQ(got[6].second, 1006);
        EXPECT_EQ(got[9].second, 100);  // row 0 of the document
        EXPECT_EQ(got[19].second, 110);
        EXPECT_EQ(got[20].second, 1020);
      }
    }
    std::vector<int32_t> indices(4);
    kv->row_indices(std::vector<int32_t>{5, 8, 9, 21}, indices.data());
    EXPECT_THAT(indices, ElementsAre(5, 8, 0, 1));
    EXPECT_EQ(kv->num_own_pages(), 3 * kAll);  // rows 6-8 lie on two pages of their frame
  }
  EXPECT_EQ(pool->num_used(), 0);
}

TEST(SequenceKv, SlotsAreDistinctPerHeadAndRow) {
  auto pool = make_pool(100);
  auto kv = make(*pool);
  kv->add_fresh(0, 10);
  ASSERT_TRUE(kv->prepare(range(0, 10)).ok());
  std::vector<int64_t> all;
  for (int l = 0; l < kLayers; ++l) {
    for (const int64_t slot : slots(*kv, l, range(0, 10))) all.push_back(slot);
  }
  EXPECT_EQ(slots(*kv, 1, {7})[1], all[2 * 10 + 2 * 7 + 1]);
  EXPECT_EQ(slots(*kv, 1, {7})[1] % kPage, 7 % kPage);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
}

TEST(SequenceKv, AnOverlayLeavesStoredPagesUntouched) {
  auto pool = make_pool(100);
  auto document = stored(*pool, 11, 100);
  const int64_t before = pool->num_used();
  auto kv = make(*pool), other = make(*pool);
  kv->add_stored(document, 0, 11);
  other->add_stored(document, 0, 11);
  write(*pool, *kv, {0, 1, 2, 3, 5}, 1000);  // a whole page, and one row of the next
  EXPECT_EQ(kv->num_own_pages(), 2 * kAll);
  EXPECT_TRUE(kv->piece(0).overlaid);
  EXPECT_FALSE(other->piece(0).overlaid);
  for (const int head : {0, 1}) {
    const auto mine = rows(*pool, *kv, 1, head), theirs = rows(*pool, *other, 1, head);
    ASSERT_EQ(mine.size(), 11U);
    for (int32_t p = 0; p < 11; ++p) {
      const auto i = static_cast<size_t>(p);
      EXPECT_EQ(mine[i].second, static_cast<float>(p + (p < 4 || p == 5 ? 1000 : 100))) << p;
      EXPECT_EQ(theirs[i].second, static_cast<float>(p + 100)) << p;
    }
  }
  // Writing again changes the private copy and takes no page.
  write(*pool, *kv, {4, 5}, 2000);
  EXPECT_EQ(kv->num_own_pages(), 2 * kAll);
  EXPECT_EQ(rows(*pool, *kv)[4].second, 2004);
  EXPECT_EQ(rows(*pool, *kv)[6].second, 106);
  kv.reset();
  EXPECT_EQ(pool->num_used(), before);
}

TEST(SequenceKv, StoredRowsMayBeginInsideAPage) {
  auto pool = make_pool(100);
  auto document = stored(*pool, 11, 100);
  auto kv = make(*pool);
  kv->add_fresh(0, 3);
  kv->add_stored(document, 6, 10);
  EXPECT_EQ(kv->piece(1).offset, -3);
  write(*pool, *kv, {0, 1, 2}, 0);
  const auto got = rows(*pool, *kv);
  ASSERT_EQ(got.size(), 7U);
  EXPECT_EQ(got[3], (std::pair<int32_t, float>{3, 106}));
  EXPECT_EQ(got[6], (std::pair<int32_t, float>{6, 109}));
  write(*pool, *kv, {3}, 1000);
  EXPECT_EQ(rows(*pool, *kv)[3].second, 1003);
  EXPECT_EQ(rows(*pool, *kv)[4].second, 107);
}

TEST(SequenceKv, TheLastPieceGrowsRowByRow) {
  auto pool = make_pool(100);
  auto kv = make(*pool);
  kv->add_fresh(0, 3);
  write(*pool, *kv, range(0, 3), 0);
  for (int32_t p = 3; p < 14; ++p) {
    write(*pool, *kv, {p}, 0);
    EXPECT_EQ(kv->num_positions(), p + 1);
    EXPECT_EQ(positions_of(*pool, *kv), range(0, p + 1));
    EXPECT_EQ(kv->num_own_pages(), (p / kPage + 1) * kAll);
  }
  EXPECT_EQ(rows(*pool, *kv)[13].second, 13);
}

TEST(SequenceKv, TrimGivesBackWhatNoQueryCanSee) {
  auto pool = make_pool(100);
  std::vector<Visible> visible(kAll);
  visible[1] = {.sink = 5, .window = 6};
  auto kv = std::make_unique<SequenceKv>(*pool, kLayers, kHeads, visible);
  kv->add_fresh(0, 40);
  for (int32_t p = 0; p < 40; ++p) {
    write(*pool, *kv, {p}, 0);
    kv->trim(p + 1);
    EXPECT_EQ(rows(*pool, *kv, 0, 0).size(), static_cast<size_t>(p) + 1);
    // Everything that the next query sees is there, and at most a page more at either edge.
    const auto held = rows(*pool, *kv, 0, 1);
    std::vector<bool> have(41, false);
    for (const auto& [position, value] : held) {
      EXPECT_EQ(value, static_cast<float>(position));
      have[static_cast<size_t>(position)] = true;
    }
    for (int32_t key = 0; key <= p; ++key) {
      EXPECT_TRUE(have[static_cast<size_t>(key)] || !sees(visible[1], p + 1, key)) << p << key;
    }
    EXPECT_LE(held.size(), size_t{8 + 5 + 2 * kPage});
  }
  EXPECT_EQ(kv->num_own_pages(), 3 * 10 + 2 + 2);  // pages 0, 1 by the sink; rows 35-39 on 8, 9
  EXPECT_EQ(pool->num_used(), kv->num_own_pages());
  kv.reset();
  EXPECT_EQ(pool->num_used(), 0);
}

TEST(SequenceKv, TrimKeepsStoredPages) {
  auto pool = make_pool(100);
  auto document = stored(*pool, 16, 100);
  auto kv = make(*pool, {.sink = 0, .window = 2});
  kv->add_stored(document, 0, 16);
  kv->add_fresh(0, 8);
  write(*pool, *kv, range(16, 24), 0);
  kv->trim(24);
  EXPECT_EQ(document->num_pages(), 4 * kAll);
  auto again = make(*pool);
  again->add_stored(document, 0, 16);
  EXPECT_EQ(positions_of(*pool, *again), range(0, 16));
}

TEST(SequenceKv, FrozenRowsOutliveTheirSequence) {
  auto pool = make_pool(100);
  std::shared_ptr<const FrameRows> kept;
  {
    auto kv = make(*pool);
    kv->add_fresh(0, 11);
    write(*pool, *kv, range(0, 11), 50);
    kept = kv->freeze(0, 5, 10);
    EXPECT_EQ(kept->num_rows(), 5);
  }
  EXPECT_EQ(pool->num_used(), 2 * kAll);  // pages of rows 4-7 and 8-10
  EXPECT_EQ(kept->num_pages(), 2 * kAll);
  auto kv = make(*pool);
  kv->add_stored(kept, 5, 10);
  const auto got = rows(*pool, *kv);
  ASSERT_EQ(got.size(), 5U);
  EXPECT_EQ(got[0], (std::pair<int32_t, float>{0, 55}));
  EXPECT_EQ(got[4], (std::pair<int32_t, float>{4, 59}));
  kv.reset();
  kept.reset();
  EXPECT_EQ(pool->num_used(), 0);
}

TEST(SequenceKv, AnExhaustedPoolKeepsWhatWasPrepared) {
  auto pool = make_pool(2 * kAll);
  auto kv = make(*pool);
  kv->add_fresh(0, 12);
  write(*pool, *kv, range(0, 5), 0);
  const Status status = kv->prepare(range(5, 12));
  EXPECT_EQ(status.code(), Code::kExhausted);
  EXPECT_THAT(status.message(), testing::HasSubstr("4 pages wanted, 0 free"));
  const auto got = rows(*pool, *kv);
  ASSERT_GE(got.size(), 5U);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(got[i].second, static_cast<float>(i));
  kv.reset();
  EXPECT_EQ(pool->num_used(), 0);
}

// What a card reads: the shared runs and the numbered entries name the rows that the per-head runs
// and slots name, and every new page is among the changes.
TEST(SequenceKv, EntriesRunsAndChangesDescribeTheSamePages) {
  auto pool = make_pool(400);
  auto source = make(*pool);
  source->add_fresh(0, 10);
  write(*pool, *source, range(0, 10), 100);
  const std::shared_ptr<const FrameRows> stored = source->freeze(0, 0, 10);
  auto kv = make(*pool);
  kv->add_fresh(0, 6);
  kv->add_stored(stored, 1, 10);
  kv->add_fresh(0, 3);
  EXPECT_THAT(kv->take_changes(), ElementsAre(2, 3, 4));  // behind the two of the first piece
  const std::vector<int32_t> active = {0, 1, 2, 3, 4, 5, 7, 15, 16, 17};
  ASSERT_TRUE(kv->prepare(active).ok());
  EXPECT_THAT(kv->take_changes(), testing::UnorderedElementsAre(0, 1, 2, 5));
  EXPECT_TRUE(kv->take_changes().empty());
  std::vector<int32_t> index(active.size()), slot(active.size());
  kv->entries(active, index.data(), slot.data());
  for (int l = 0; l < kLayers; ++l) {
    const auto want = slots(*kv, l, active);
    for (size_t i = 0; i < want.size(); ++i) {
      const size_t head = static_cast<size_t>(l) * kHeads + i % kHeads, t = i / kHeads;
      const PageId page = kv->pages(head)[static_cast<size_t>(index[t])];
      EXPECT_EQ(int64_t{page} * kPage + slot[t], want[i]);
    }
  }
  const auto runs = kv->runs();
  ASSERT_EQ(runs.size(), 3U);
  const kernels::HeadRows held = kv->head_rows(0, 0);
  ASSERT_EQ(held.runs.size(), 3U);
  for (size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].first_page, held.runs[i].first_page);
    EXPECT_EQ(runs[i].row_begin, held.runs[i].row_begin);
    EXPECT_EQ(runs[i].offset, held.runs[i].offset);
    EXPECT_TRUE(i == 2 || runs[i].row_end == held.runs[i].row_end);
  }
  EXPECT_GT(runs[2].row_end, 1 << 20);  // open: it may grow
  EXPECT_NE(kv->serial(), source->serial());
  EXPECT_EQ(kv->num_entries(), 6);
}

// Heads 1 and 2 of four keep what is stored; fresh rows are every head's own.
TEST(SequenceKv, HeadsThatKeepStoredRowsAreNotWritten) {
  auto pool = make_pool(200);
  std::shared_ptr<const FrameRows> document;
  {
    auto source = make(*pool);
    source->keep_all_rows();
    source->add_fresh(0, 10);
    write(*pool, *source, range(0, 10), 100);
    document = source->freeze(0, 0, 10);
  }
  const int64_t used = pool->num_used();
  auto kv = make(*pool);
  kv->keep_stored({0, 1, 1, 0});
  kv->add_fresh(0, 3);
  kv->add_stored(document, 0, 10);
  kv->add_fresh(0, 2);
  const auto all = range(0, 15);
  ASSERT_TRUE(kv->prepare(all).ok());
  ASSERT_TRUE(kv->prepare(all).ok());  // nothing is asked for twice
  EXPECT_EQ(pool->num_used() - used, 2 * kAll + 3 * 2);
  std::vector<uint8_t> in_stored(4, 7);
  kv->in_stored(std::vector<int32_t>{2, 3, 12, 13}, in_stored.data());
  EXPECT_EQ(in_stored, (std::vector<uint8_t>{0, 1, 1, 0}));
  for (int l = 0; l < kLayers; ++l) {
    const auto to = slots(*kv, l, all);
    for (size_t i = 0; i < to.size(); ++i) {
      const bool stored = i / kHeads >= 3 && i / kHeads < 13;
      const bool keeps = l * kHeads + static_cast<int>(i % kHeads) == 1 ||
                         l * kHeads + static_cast<int>(i % kHeads) == 2;
      EXPECT_EQ(to[i] < 0, stored && keeps) << l << " " << i;
      if (to[i] < 0) continue;
      k_at(*pool, to[i])[0] = 200 + static_cast<float>(i / kHeads);
      k_at(*pool, to[i])[1] = static_cast<float>(l * kHeads + static_cast<int>(i % kHeads));
    }
  }
  EXPECT_EQ(rows(*pool, *kv, 0, 0)[5].second, 205);
  EXPECT_EQ(rows(*pool, *kv, 0, 1)[5].second, 102);  // row 2 of the document
  EXPECT_EQ(rows(*pool, *kv, 1, 0)[5].second, 102);
  EXPECT_EQ(rows(*pool, *kv, 1, 1)[5].second, 205);
  EXPECT_EQ(rows(*pool, *kv, 0, 1)[14].second, 214);
}

TEST(SequenceKv, AllHeadsMayKeepStoredRows) {
  auto pool = make_pool(100);
  auto source = make(*pool);
  source->keep_all_rows();
  source->add_fresh(0, 10);
  write(*pool, *source, range(0, 10), 100);
  auto kv = make(*pool);
  kv->keep_stored(std::vector<uint8_t>(kAll, 1));
  kv->add_stored(source->freeze(0, 0, 10), 0, 10);
  const int64_t used = pool->num_used();
  ASSERT_TRUE(kv->prepare(range(0, 10)).ok());
  EXPECT_EQ(pool->num_used(), used);
  EXPECT_EQ(slots(*kv, 1, {3}), (std::vector<int64_t>{-1, -1}));
}

TEST(SequenceKv, PagesToWriteAreThoseThatPrepareTakes) {
  auto pool = make_pool(200);
  auto kv = make(*pool);
  kv->add_stored(stored(*pool, 3 * kPage, 100), 0, 3 * kPage);
  kv->add_fresh(0, 2 * kPage + 1);
  const auto check = [&](const std::vector<int32_t>& positions, int32_t want) {
    EXPECT_EQ(kv->num_pages_to_write(positions), want);
    const int64_t before = pool->num_free();
    ASSERT_TRUE(kv->prepare(positions).ok());
    EXPECT_EQ(before - pool->num_free(), want * kAll);
  };
  check({1, 2, 2 * kPage}, 2);  // two rows of a page, one of another
  check({0, kPage, 2 * kPage + 1}, 1);
  check(range(3 * kPage, 5 * kPage + 1), 3);
}

}  // namespace
}  // namespace rk::kv
