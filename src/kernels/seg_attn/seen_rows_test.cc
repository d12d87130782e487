#include "kernels/seg_attn/seen_rows.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "kernels/seg_attn/head_rows.h"

namespace rk::kernels {
namespace {

SeenRows one_by_one(const HeadRows& head, std::span<const int32_t> q_pos) {
  SeenRows out;
  std::set<int64_t> rows;
  for (const int32_t p : q_pos) {
    for (const kernels::Run& run : head.runs) {
      for (int64_t j = run.row_begin; j < run.row_end; ++j) {
        if (!row_visible(run.offset + j, p, head.sink, head.window)) continue;
        ++out.pairs;
        rows.insert(run.offset + j);
      }
    }
  }
  out.rows = static_cast<int64_t>(rows.size());
  return out;
}

TEST(SeenRows, CountsEveryPairOnce) {
  std::mt19937 random(7);
  const auto below = [&](int n) {
    return static_cast<int32_t>(random() % static_cast<unsigned>(n));
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<kernels::Run> runs;
    int32_t at = below(4), end = 0;
    for (int r = below(5); r >= 0; --r) {  // spans with gaps between them, empty ones too
      const int32_t rows = below(20), first = below(9);
      runs.push_back({0, first, first + rows, at - first});
      at += rows + below(3) * below(8);
      end = at;
    }
    std::vector<int32_t> q_pos;
    for (int32_t p = below(6); p < end + 5; p += 1 + below(round % 2 == 0 ? 2 : 17)) {
      q_pos.push_back(p);
    }
    const HeadRows head{runs, {}, below(12), below(3) == 0 ? -1 : below(24)};
    const SeenRows got = count_seen(head, q_pos), want = one_by_one(head, q_pos);
    ASSERT_EQ(got.pairs, want.pairs) << round;
    ASSERT_EQ(got.rows, want.rows) << round;
  }
}

TEST(SeenRows, ARowAtEveryPositionIsOneRun) {
  for (const int32_t window : {-1, 0, 1, 5, 40}) {
    for (const int32_t sink : {0, 3, 50}) {
      const kernels::Run run{0, 0, 30, 0};
      const std::vector<int32_t> q_pos{0, 1, 2, 9, 20, 29};
      const SeenRows a = count_seen({{&run, 1}, {}, sink, window}, q_pos);
      const SeenRows b = count_seen(sink, window, q_pos, 30);
      EXPECT_EQ(a.pairs, b.pairs);
      EXPECT_EQ(a.rows, b.rows);
    }
  }
}

}  // namespace
}  // namespace rk::kernels
