#include <algorithm>

#include "kernels/attn_mass/attn_mass_cuda.h"

namespace rk::kernels {

std::vector<AttnMassTile> attn_mass_tiles(std::span<const Run> runs, int32_t end, int tile_rows) {
  std::vector<AttnMassTile> out;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Run& run = runs[i];
    const int32_t row_end = std::min(run.row_end, end - run.offset);
    if (run.row_begin >= row_end) continue;
    for (int32_t row = run.row_begin / 16 * 16; row < row_end; row += tile_rows) {
      out.push_back({static_cast<int32_t>(i), row});
    }
  }
  return out;
}

}  // namespace rk::kernels
