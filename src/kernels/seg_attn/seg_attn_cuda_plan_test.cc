// The plan of seg_attn_cuda(), and the walk over an item's key tiles, without a card: together they
// must show every query every key it sees, once.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "kernels/seg_attn/key_tiles.cuh"

namespace rk::kernels {
namespace {

struct Sequence {
  std::vector<int32_t> q_pos;
  std::vector<HeadSight> sight;
  std::vector<Run> runs;
  int32_t num_keys = 0;
};

std::vector<int32_t> positions(int32_t begin, int32_t end, int32_t step = 1) {
  std::vector<int32_t> out;
  for (int32_t p = begin; p < end; p += step) out.push_back(p);
  return out;
}
SegAttnPlan plan_of(const std::vector<Sequence>& sequences, const SegAttnPlanOptions& options) {
  std::vector<SegAttnPlanSequence> in;
  for (const Sequence& s : sequences) in.push_back({s.q_pos, s.sight, s.num_keys});
  return plan_seg_attn(in, options);
}
bool visible(int32_t position, int32_t q_pos, HeadSight sight) {
  return position <= q_pos &&
         (sight.window < 0 || position < sight.sink || position > q_pos - sight.window);
}

/// How often each (packed row, key position) pair of a head is covered.
void cover(const Sequence& s, const SegAttnItem& item, int group, int tile_rows,
           std::map<std::pair<int, int>, int>& seen) {
  const HeadSight sight = s.sight[item.kv_head];
  KeyTiles tiles(s.runs.data(), static_cast<int>(s.runs.size()), sight,
                 s.q_pos[item.m_begin / group], s.q_pos[(item.m_end - 1) / group], item.key_begin,
                 item.key_end, tile_rows);
  KeyTile tile;
  while (tiles.next(&tile)) {
    ASSERT_EQ(tile.first_row % kPageRows, 0);
    ASSERT_LT(tile.lo, tile.hi);
    ASSERT_LE(tile.hi, tile_rows);
    ASSERT_LE(tile.written_lo, tile.lo);
    ASSERT_GE(tile.written_hi, tile.hi);
    for (int m = item.m_begin; m < item.m_end; ++m) {
      const int32_t p = s.q_pos[m / group];
      for (int row = 0; row < tile_rows; ++row) {
        const bool sees_it = sees(tile, row, p, sight);
        ASSERT_TRUE(tile.masked || sees_it);
        if (sees_it) ++seen[{m, tile.position() + row}];
      }
    }
  }
}

void expect_exact(const std::vector<Sequence>& sequences, const SegAttnPlanOptions& options,
                  int tile_rows) {
  const SegAttnPlan plan = plan_of(sequences, options);
  const int group = options.num_heads / options.num_kv_heads;
  ASSERT_LE(plan.num_parts, options.max_parts);
  std::map<std::array<int, 2>, std::map<std::pair<int, int>, int>> seen;
  for (const SegAttnItem& item : plan.items) {
    ASSERT_LE(item.m_end - item.m_begin, kSegAttnTileRows);
    cover(sequences[item.sequence], item, group, tile_rows, seen[{item.sequence, item.kv_head}]);
  }
  for (size_t b = 0; b < sequences.size(); ++b) {
    const Sequence& s = sequences[b];
    for (size_t g = 0; g < s.sight.size(); ++g) {
      std::map<std::pair<int, int>, int> want;
      for (int m = 0; m < static_cast<int>(s.q_pos.size()) * group; ++m) {
        for (const Run& run : s.runs) {
          for (int j = run.row_begin; j < run.row_end; ++j) {
            if (visible(run.offset + j, s.q_pos[m / group], s.sight[g])) {
              want[{m, run.offset + j}] = 1;
            }
          }
        }
      }
      ASSERT_EQ((seen[{static_cast<int>(b), static_cast<int>(g)}]), want)
          << "sequence " << b << " head " << g;
    }
  }
}

TEST(SegAttnCudaPlan, EveryVisiblePairIsCoveredOnce) {
  std::mt19937 random(5);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  for (int trial = 0; trial < 40; ++trial) {
    SCOPED_TRACE(trial);
    const int group = 1 + below(5), kv_heads = 1 + below(3);
    std::vector<Sequence> sequences;
    for (int b = 1 + below(2); b > 0; --b) {
      Sequence s;
      int32_t position = 0;
      for (int r = 1 + below(4); r > 0; --r) {
        const int32_t row = below(2) ? 0 : below(50), rows = 1 + below(220);
        s.runs.push_back({0, row, row + rows, position - row});
        position += rows;
      }
      s.num_keys = position;
      for (int g = 0; g < kv_heads; ++g) {
        s.sight.push_back({below(40), below(2) ? -1 : below(150)});
      }
      for (int32_t p = below(position); p < position; p += 1 + below(9)) s.q_pos.push_back(p);
      sequences.push_back(s);
    }
    const SegAttnPlanOptions options = {.num_heads = group * kv_heads,
                                        .num_kv_heads = kv_heads,
                                        .num_sms = 1 + below(40),
                                        .max_parts = below(3) ? 4096 : below(5)};
    expect_exact(sequences, options, below(2) ? 128 : 64);
  }
}

TEST(SegAttnCudaPlan, MergesNameThePartsOfTheirRows) {
  const Sequence s = {{9000}, {{}, {16, 128}}, {{0, 0, 9001, 0}}, 9001};
  const SegAttnPlan plan = plan_of({s}, {.num_heads = 8, .num_kv_heads = 2});
  ASSERT_EQ(plan.merges.size(), 1U);  // the window's two tiles are not worth it
  EXPECT_EQ(plan.max_item_rows, 4);
  const SegAttnMerge merge = plan.merges[0];
  EXPECT_EQ(merge.num_parts, plan.num_parts);
  std::vector<int> parts;
  for (const SegAttnItem& item : plan.items) {
    if (item.kv_head == merge.kv_head) parts.push_back(item.part);
    EXPECT_EQ(item.kv_head == merge.kv_head, item.part >= 0);
  }
  std::sort(parts.begin(), parts.end());
  std::vector<int> want(plan.num_parts);
  std::iota(want.begin(), want.end(), 0);
  EXPECT_EQ(parts, want);
}

/// Work of the busiest multiprocessor over the mean, if each takes the next item when it is free.
double imbalance(const SegAttnPlan& plan, const std::vector<Sequence>& sequences, int num_sms) {
  std::vector<double> load(num_sms);
  double total = 0;
  for (const SegAttnItem& item : plan.items) {
    const Sequence& s = sequences[item.sequence];
    KeyTiles tiles(s.runs.data(), static_cast<int>(s.runs.size()), s.sight[item.kv_head],
                   s.q_pos[item.m_begin / 4], s.q_pos[(item.m_end - 1) / 4], item.key_begin,
                   item.key_end, 128);
    KeyTile tile;
    int num = 0;
    while (tiles.next(&tile)) ++num;
    *std::min_element(load.begin(), load.end()) += num;
    total += num;
  }
  return *std::max_element(load.begin(), load.end()) / (total / num_sms);
}

Sequence decode_at(int32_t keys, std::vector<HeadSight> sight = std::vector<HeadSight>(8)) {
  return {{keys - 1}, std::move(sight), {{0, 0, keys, 0}}, keys};
}

TEST(SegAttnCudaPlan, TheCardIsFilledEvenly) {
  const SegAttnPlanOptions options = {.num_heads = 32, .num_kv_heads = 8};
  const std::vector<HeadSight> mixed = {{}, {16, 1024}, {16, 320}, {}, {}, {16, 1024}, {}, {}};
  const std::vector<Sequence> batch8(8, decode_at(32768)), batch32(32, decode_at(32768));
  const Sequence question = {
      positions(32768, 32832), std::vector<HeadSight>(8), {{0, 0, 32832, 0}}, 32832};
  const Sequence prompt = {
      positions(0, 16384), std::vector<HeadSight>(8), {{0, 0, 16384, 0}}, 16384};
  const std::vector<std::pair<const char*, std::vector<Sequence>>> cases = {
      {"one decode", {decode_at(32768)}},
      {"one decode, heads differing 100 times", {decode_at(131072, mixed)}},
      {"eight decodes", batch8},
      {"32 decodes", batch32},
      {"long and short", {decode_at(131072), decode_at(2000), decode_at(300), decode_at(30000)}},
      {"question", {question}},
      {"prompt", {prompt}},
  };
  for (const auto& [name, sequences] : cases) {
    EXPECT_LT(imbalance(plan_of(sequences, options), sequences, options.num_sms), 1.12) << name;
  }
}

TEST(SegAttnCudaPlan, PartsStayWithinTheirMemory) {
  const std::vector<Sequence> sequences(3, decode_at(50000));
  for (const int max_parts : {0, 1, 7, 24, 100}) {
    const SegAttnPlanOptions options = {.num_heads = 32, .num_kv_heads = 8, .max_parts = max_parts};
    EXPECT_LE(plan_of(sequences, options).num_parts, max_parts);
  }
}

TEST(SegAttnCudaPlan, LongestFirstAndNothingForNothing) {
  EXPECT_TRUE(plan_seg_attn({}, {}).items.empty());
  const Sequence s = {positions(0, 3000), {{}}, {{0, 0, 3000, 0}}, 3000};
  const SegAttnPlan plan = plan_of({s}, {.num_heads = 1, .num_kv_heads = 1, .max_parts = 0});
  ASSERT_EQ(plan.items.size(), 24U);
  for (size_t i = 1; i < plan.items.size(); ++i) {
    EXPECT_GE(plan.items[i - 1].key_end, plan.items[i].key_end);
  }
}

}  // namespace
}  // namespace rk::kernels
