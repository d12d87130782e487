// Cuts a step's attention into items for a persistent grid. Work is counted in key tiles of 128
// rows; a tile of queries costs the same however many of its rows are used. Where there are fewer
// items than the card can run, keys are split, so that the longest-first schedule of the parts
// (simulated here) ends as early as possible.
#include <algorithm>
#include <array>
#include <functional>
#include <queue>

#include "kernels/seg_attn/seg_attn_cuda.h"

namespace rk::kernels {
namespace {

constexpr int64_t kTileKeys = 128;  // also what split points are rounded to
constexpr int64_t kItemTiles = 2;   // what starting and ending an item costs, in tiles
constexpr int64_t kMinChunk = 2;    // tiles of a part, at least
constexpr int kMaxWaves = 4;        // items a multiprocessor gets, where keys are split

/// What an item's queries see: positions [0, near) and [far, end).
struct Seen {
  int32_t near = 0, far = 0, end = 0;
  int64_t count(int32_t begin, int32_t stop) const {
    const auto within = [&](int32_t a, int32_t b) {
      return int64_t{std::max(0, std::min(b, stop) - std::max(a, begin))};
    };
    return within(0, near) + within(far, end);
  }
  int32_t position(int64_t index) const {  ///< of the index-th visible key
    return static_cast<int32_t>(index < near ? index : far + (index - near));
  }
};

struct Block {  // an item before its keys are split
  SegAttnItem item;
  Seen seen;
  int64_t tiles;
};

Seen seen_by(int32_t p_min, int32_t p_max, HeadSight sight, int32_t num_keys) {
  const int32_t end = std::min(p_max + 1, num_keys);
  const int64_t far =
      sight.window < 0 ? 0 : std::max<int64_t>(0, int64_t{p_min} - sight.window + 1);
  if (far <= sight.sink) return {end, end, end};
  return {std::min(sight.sink, end), static_cast<int32_t>(std::min<int64_t>(far, end)), end};
}

std::vector<Block> blocks_of(std::span<const SegAttnPlanSequence> sequences, int group) {
  std::vector<Block> blocks;
  for (size_t b = 0; b < sequences.size(); ++b) {
    const SegAttnPlanSequence& s = sequences[b];
    const auto rows = static_cast<int32_t>(s.q_pos.size() * group);
    for (int32_t m = 0; m < rows; m += kSegAttnTileRows) {
      const int32_t end = std::min(rows, m + kSegAttnTileRows);
      for (size_t g = 0; g < s.sight.size(); ++g) {
        const int32_t p_max = s.q_pos[(end - 1) / group];
        const Seen seen = seen_by(s.q_pos[m / group], p_max, s.sight[g], s.num_keys);
        const SegAttnItem item = {static_cast<int32_t>(b),
                                  static_cast<int32_t>(g),
                                  m,
                                  end,
                                  0,
                                  std::max(p_max + 1, 0),
                                  -1};
        const int64_t keys = seen.count(0, seen.end);
        blocks.push_back({item, seen, (keys + kTileKeys - 1) / kTileKeys});
      }
    }
  }
  return blocks;
}

int64_t parts_of(const Block& block, int64_t chunk) {
  return std::max<int64_t>(1, (block.tiles + chunk - 1) / chunk);
}

struct Count {
  int64_t items = 0, parts = 0;  // parts: of blocks cut in two or more
};
Count count_items(const std::vector<Block>& blocks, int64_t chunk) {
  Count count;
  for (const Block& block : blocks) {
    const int64_t n = parts_of(block, chunk);
    count.items += n;
    if (n > 1) count.parts += n;
  }
  return count;
}

/// Smallest chunk with at most so many items and parts; `most`, where nothing is cut, if none.
int64_t chunk_for(const std::vector<Block>& blocks, int64_t items, int64_t parts, int64_t most) {
  int64_t lo = std::min(kMinChunk, most), hi = most;
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    const Count count = count_items(blocks, mid);
    if (count.items <= items && count.parts <= parts) {
      hi = mid;
    } else {
      lo = mid + 1;
    }
  }
  return lo;
}

/// When the last multiprocessor ends, in tiles, if each takes the longest part left.
int64_t makespan(const std::vector<Block>& blocks, int64_t chunk, int num_sms) {
  const auto cost_of = [&](const Block& block) {
    const int64_t n = parts_of(block, chunk);
    return (block.tiles + n - 1) / n + kItemTiles;
  };
  int64_t num = 0, least = cost_of(blocks[0]), most = least;
  for (const Block& block : blocks) {
    num += parts_of(block, chunk);
    least = std::min(least, cost_of(block));
    most = std::max(most, cost_of(block));
  }
  // Alike, as most decode steps have them, or one each.
  if (least == most || num <= num_sms) return (num + num_sms - 1) / num_sms * most;

  std::vector<int64_t> costs;
  costs.reserve(static_cast<size_t>(num));
  for (const Block& block : blocks)
    costs.insert(costs.end(), parts_of(block, chunk), cost_of(block));
  std::sort(costs.begin(), costs.end(), std::greater<>());
  std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> load;
  int64_t last = 0;
  for (const int64_t cost : costs) {
    int64_t start = 0;
    if (load.size() == static_cast<size_t>(num_sms)) {
      start = load.top();
      load.pop();
    }
    load.push(start + cost);
    last = std::max(last, start + cost);
  }
  return last;
}

int64_t choose_chunk(const std::vector<Block>& blocks, const SegAttnPlanOptions& options) {
  int64_t most = 1, total = 0;
  for (const Block& block : blocks) {
    most = std::max(most, block.tiles);
    total += block.tiles + kItemTiles;
  }
  const auto num = static_cast<int64_t>(blocks.size());
  if (num > int64_t{kMaxWaves} * options.num_sms) {  // enough to fill the card: cut giants only
    const int64_t mean = total / options.num_sms;
    return most <= mean ? most
                        : std::max(mean, chunk_for(blocks, 2 * num, options.max_parts, most));
  }
  int64_t best = most, best_span = makespan(blocks, most, options.num_sms);
  for (int waves = 1; waves <= kMaxWaves; ++waves) {
    const int64_t items = int64_t{waves} * options.num_sms;
    if (num > items) continue;
    const int64_t chunk = chunk_for(blocks, items, options.max_parts, most);
    const int64_t span = makespan(blocks, chunk, options.num_sms);
    if (span < best_span) best = chunk, best_span = span;
  }
  return best;
}

/// Where the keys are cut: positions, the first 0 and the last the item's end.
std::vector<int32_t> cuts_of(const Block& block, int64_t parts) {
  const Seen& seen = block.seen;
  const int64_t keys = seen.count(0, seen.end);
  std::vector<int32_t> cuts = {0};
  for (int64_t j = 1; j < parts; ++j) {
    const int32_t at = seen.position(keys * j / parts) / kTileKeys * kTileKeys;
    if (at > cuts.back() && seen.count(cuts.back(), at) > 0 && seen.count(at, seen.end) > 0) {
      cuts.push_back(at);
    }
  }
  cuts.push_back(block.item.key_end);
  return cuts;
}

}  // namespace

SegAttnPlan plan_seg_attn(std::span<const SegAttnPlanSequence> sequences,
                          const SegAttnPlanOptions& options) {
  const int group = options.num_heads / options.num_kv_heads;
  const std::vector<Block> blocks = blocks_of(sequences, group);
  SegAttnPlan plan;
  if (blocks.empty()) return plan;
  const int64_t chunk = choose_chunk(blocks, options);
  std::vector<std::pair<int64_t, SegAttnItem>> items;  // by visible keys
  for (const Block& block : blocks) {
    SegAttnItem item = block.item;
    plan.max_item_rows = std::max(plan.max_item_rows, item.m_end - item.m_begin);
    const std::vector<int32_t> cuts = cuts_of(block, parts_of(block, chunk));
    const auto parts = static_cast<int32_t>(cuts.size()) - 1;
    for (int32_t j = 0; j < parts; ++j) {
      item.key_begin = cuts[j];
      item.key_end = cuts[j + 1];
      item.part = parts > 1 ? plan.num_parts + j : -1;
      items.push_back({block.seen.count(item.key_begin, item.key_end), item});
    }
    if (parts == 1) continue;
    plan.merges.push_back(
        {item.sequence, item.kv_head, item.m_begin, item.m_end, plan.num_parts, parts});
    plan.num_parts += parts;
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  plan.items.reserve(items.size());
  for (const auto& [keys, item] : items) plan.items.push_back(item);
  return plan;
}

}  // namespace rk::kernels
