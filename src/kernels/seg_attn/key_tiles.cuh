// Walks the key tiles of one SegAttnItem on the card: which rows of which runs its queries may see,
// as tiles of a fixed number of rows that start on a page edge. Knows positions, runs and pages;
// not how a tile is loaded or used. Plain integers, any architecture; every thread that walks gets
// the same tiles, or one thread walks and passes them on.
//
// Visible positions of queries at p_min..p_max: [0, sink) and (p_min - window, p_max], cut to the
// item's [key_begin, key_end). Each run turns them into rows of its own frame.
#pragma once

#include "kernels/seg_attn/seg_attn_cuda.h"

#ifdef __CUDACC__
#define RK_DEVICE __device__
#else  // plain C++ too, so that a CPU test can walk every tile
#include <algorithm>
#define RK_DEVICE
#endif

namespace rk::kernels {

#ifndef __CUDACC__
using std::max;
using std::min;
#endif

inline constexpr int kPageRows = 16;

/// Rows [first_row, first_row + tile rows) of a run. Pages without a row of [lo, hi) may be gone
/// and must not be read. Rows outside [written_lo, written_hi) of a page that is read were never
/// written and may hold anything; the others are finite.
struct KeyTile {
  int offset = 0;      ///< of the run: row j stands at position offset + j
  int first_row = 0;   ///< a multiple of 16
  int first_page = 0;  ///< entry of the head's page list that holds first_row
  int lo = 0, hi = 0;  ///< rows that may be seen, counted from first_row
  int written_lo = 0, written_hi = 0;
  bool masked = true;  ///< some (query, row) pair of the tile is invisible

  RK_DEVICE int position() const { return offset + first_row; }  ///< of the tile's first row
  RK_DEVICE int page_begin() const { return lo / kPageRows; }    ///< pages to read: [begin, end)
  RK_DEVICE int page_end() const { return (hi + kPageRows - 1) / kPageRows; }
};

/// Whether the query at `q_pos` sees row `row` of the tile; only masked tiles need asking.
RK_DEVICE inline bool sees(const KeyTile& tile, int row, int q_pos, HeadSight sight) {
  const int position = tile.position() + row;
  return row >= tile.lo && row < tile.hi && position <= q_pos &&
         (sight.window < 0 || position < sight.sink || position > q_pos - sight.window);
}

class KeyTiles {
 public:
  /// Queries at positions p_min..p_max (gaps allowed).
  RK_DEVICE KeyTiles(const Run* runs, int num_runs, HeadSight sight, int p_min, int p_max,
                     int key_begin, int key_end, int tile_rows)
      : runs_(runs),
        num_runs_(num_runs),
        sight_(sight),
        p_min_(p_min),
        p_max_(p_max),
        tile_rows_(tile_rows) {
    const int last = min(p_max + 1, key_end);
    const int near = sight.window < 0 ? 0 : max(0, p_min - sight.window + 1);
    if (near <= sight.sink || sight.window < 0) {  // sink and window meet
      begin_ = key_begin;
      end_ = last;
    } else {
      begin_ = key_begin;
      end_ = min(sight.sink, last);
      next_begin_ = max(near, key_begin);
      next_end_ = last;
    }
    find_run();
  }

  /// The next tile; false when there is none.
  RK_DEVICE bool next(KeyTile* tile) {
    while (row_ >= row_end_) {
      if (!next_run()) return false;
    }
    const int first = row_ / kPageRows * kPageRows;
    tile->offset = run_.offset;
    tile->first_row = first;
    tile->first_page = run_.first_page + first / kPageRows - run_.row_begin / kPageRows;
    tile->lo = row_ - first;
    tile->hi = min(row_end_ - first, tile_rows_);
    tile->written_lo = max(run_.row_begin - first, 0);
    tile->written_hi = min(run_.row_end - first, tile_rows_);
    tile->masked = needs_mask(*tile);
    row_ = first + tile_rows_;
    return true;
  }

  /// Positions still to walk, at most: some may be held by no run.
  RK_DEVICE int rows_left() const {
    return max(row_end_ - row_, 0) + max(end_ - begin_, 0) + max(next_end_ - next_begin_, 0);
  }

 private:
  /// The first run that ends behind begin_.
  RK_DEVICE void find_run() {
    int lo = 0, hi = begin_ < end_ ? num_runs_ : 0;
    while (lo < hi) {
      const int mid = (lo + hi) / 2;
      if (runs_[mid].offset + runs_[mid].row_end <= begin_) {
        lo = mid + 1;
      } else {
        hi = mid;
      }
    }
    next_run_ = lo;
  }
  /// Rows of the next run inside [begin_, end_), perhaps none; false when all ranges are done.
  RK_DEVICE bool next_run() {
    if (begin_ >= end_ || next_run_ >= num_runs_) {
      if (next_begin_ >= next_end_) return false;
      begin_ = next_begin_;
      end_ = next_end_;
      next_begin_ = next_end_ = 0;
      find_run();
      return true;
    }
    run_ = runs_[next_run_++];
    row_ = max(begin_ - run_.offset, run_.row_begin);
    row_end_ = min(end_ - run_.offset, run_.row_end);
    begin_ = max(begin_, min(run_.offset + run_.row_end, end_));
    if (run_.offset + run_.row_begin >= end_) begin_ = end_;
    return true;
  }
  RK_DEVICE bool needs_mask(const KeyTile& tile) const {
    if (tile.lo > 0 || tile.hi < tile_rows_) return true;
    const int first = tile.position(), last = first + tile_rows_ - 1;
    if (last > p_min_) return true;
    return sight_.window >= 0 && last >= sight_.sink &&
           max(first, sight_.sink) <= p_max_ - sight_.window;
  }

  const Run* runs_;
  int num_runs_;
  HeadSight sight_;
  int p_min_, p_max_, tile_rows_;
  int begin_ = 0, end_ = 0, next_begin_ = 0, next_end_ = 0;  // positions still to walk
  int next_run_ = 0;
  Run run_;
  int row_ = 0, row_end_ = 0;  // rows of run_ still to walk
};

}  // namespace rk::kernels
