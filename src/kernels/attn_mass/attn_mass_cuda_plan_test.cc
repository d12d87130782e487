#include <gtest/gtest.h>

#include <set>

#include "kernels/attn_mass/attn_mass_cuda.h"

namespace rk::kernels {
namespace {

TEST(AttnMassTiles, CoverEveryRowOnce) {
  const std::vector<rk::kernels::Run> runs{
      {0, 0, 17, 0}, {2, 5, 300, 12}, {9, 7, 7, 400}, {9, 16, 17, 384}, {9, 255, 512, 400}};
  for (const int tile_rows : {128, 256}) {
    SCOPED_TRACE(tile_rows);
    std::multiset<std::pair<int, int>> rows;
    for (const AttnMassTile& tile : attn_mass_tiles(runs, 2000, tile_rows)) {
      const rk::kernels::Run& run = runs[static_cast<size_t>(tile.run)];
      EXPECT_EQ(tile.first_row % 16, 0);
      const int begin = std::max(run.row_begin, tile.first_row);
      const int end = std::min(run.row_end, tile.first_row + tile_rows);
      EXPECT_LT(begin, end);
      for (int row = begin; row < end; ++row) rows.insert({tile.run, row});
    }
    size_t num_rows = 0;
    for (int i = 0; i < static_cast<int>(runs.size()); ++i) {
      const rk::kernels::Run& run = runs[static_cast<size_t>(i)];
      for (int row = run.row_begin; row < run.row_end; ++row, ++num_rows) {
        EXPECT_EQ(rows.count({i, row}), 1U) << i << " " << row;
      }
    }
    EXPECT_EQ(rows.size(), num_rows);
  }
}

TEST(AttnMassTiles, EndBehindTheLastQuery) {
  constexpr int kOpen = 1 << 30;
  const std::vector<rk::kernels::Run> runs{{0, 0, 300, 0}, {20, 0, kOpen, 300}};
  EXPECT_EQ(attn_mass_tiles(runs, 300, 256).size(), 2U);
  EXPECT_EQ(attn_mass_tiles(runs, 301, 256).size(), 3U);
  EXPECT_EQ(attn_mass_tiles(runs, 557, 256).size(), 4U);
  EXPECT_EQ(attn_mass_tiles(runs, 1, 128).size(), 1U);
}

}  // namespace
}  // namespace rk::kernels
