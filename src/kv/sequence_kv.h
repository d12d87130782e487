// One request's KV cache: an ordered list of pieces that tile the positions from 0 on.
//
// A piece is part of one span in the span's frame: rows [row_begin, row_end) at offset d, row j at
// position d + j. It is *fresh* (own pages, filled by the step) or *stored* (pages shared with a
// FrameRows; a recomputed row replaces its page by a private copy first, the overlay). Per head the
// page ids of all pieces lie in one list, ready for the attention kernel.
//
// A head whose visibility is bounded (sink + window) gives the pages of fresh pieces back as the
// window rolls. Knows no head class, no mode and no token. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "kernels/seg_attn/seg_attn.h"
#include "kv/frame_rows.h"
#include "kv/page_pool.h"
#include "kv/visible.h"

namespace rk::kv {

class SequenceKv {
 public:
  /// `visible` is [num_layers * num_kv_heads], layer-major.
  SequenceKv(PagePool& pool, int num_layers, int num_kv_heads, std::vector<Visible> visible);
  ~SequenceKv();
  SequenceKv(const SequenceKv&) = delete;
  SequenceKv& operator=(const SequenceKv&) = delete;

  /// Appends rows [row_begin, row_end) of `rows` at the next position. Shares pages, allocates
  /// none. Requires: the range lies inside `rows`.
  void add_stored(std::shared_ptr<const FrameRows> rows, int32_t row_begin, int32_t row_end);
  /// Appends a fresh piece whose first row has index `row_begin` of its span's frame. It has no
  /// rows until they are prepared. Only the last piece can grow beyond `num_rows`.
  void add_fresh(int32_t row_begin, int32_t num_rows);

  /// Heads, [num_heads()], 1 each, whose rows of stored pieces stay as they are: prepare() makes no
  /// private copies of theirs, and slots() has none to write to. Requires: nothing was prepared.
  void keep_stored(std::vector<uint8_t> heads);
  /// The same, empty where no head does.
  std::span<const uint8_t> keeps_stored() const { return keeps_stored_; }

  /// Positions covered by the pieces.
  int32_t num_positions() const { return num_positions_; }
  int num_heads() const { return static_cast<int>(heads_.size()); }  ///< layers * KV heads
  int num_layers() const { return num_heads() / num_kv_heads_; }
  int num_pieces() const { return static_cast<int>(pieces_.size()); }

  /// Makes the rows at `positions` (ascending) writable: pages for fresh rows, private copies of
  /// shared ones. The position after the end grows the last piece, which must be fresh.
  /// Errors: kExhausted from the pool, all or none: what was prepared before stays valid.
  Status prepare(std::span<const int32_t> positions);

  /// Entries of every head's list whose pages prepare() of these positions would make its own.
  /// Requires: no position lies behind the end.
  int32_t num_pages_to_write(std::span<const int32_t> positions) const;

  /// Slot of each (position, KV head) of a layer for kv_write: page * P + row, [T * G]; -1 where
  /// the stored row stays. Requires: the positions were prepared.
  void slots(int layer, std::span<const int32_t> positions, int64_t* out) const;

  /// Index of each position's row in its span's frame: what K is rotated at. [T]
  void row_indices(std::span<const int32_t> positions, int32_t* out) const;

  /// What a head holds, for the attention kernel; valid until the next change.
  kernels::HeadRows head_rows(int layer, int kv_head) const;

  // What a card's copy of the page lists needs. There, all heads share one list of runs and one
  // numbering of list entries; what a head cannot see it never reads, so pages may be missing.
  /// Tells sequences apart, also after one of them died.
  uint64_t serial() const { return serial_; }
  /// Entry of every head's list that holds each position, and the row's slot on that page. [T] each
  void entries(std::span<const int32_t> positions, int32_t* index, int32_t* slot) const;
  /// 1 where a position lies in a stored piece, else 0. [T]
  void in_stored(std::span<const int32_t> positions, uint8_t* out) const;
  /// Entry of the page that holds a position.
  int32_t entry(int32_t position) const;
  /// One run per piece, as if every page were there; the last one is open where it may grow.
  std::vector<kernels::Run> runs() const;
  /// Entries that were given a page since the last call, in no order.
  std::vector<int32_t> take_changes() { return std::exchange(changed_, {}); }
  int32_t num_entries() const { return static_cast<int32_t>(heads_[0].pages.size()); }
  /// Page ids of head l * num_kv_heads + g.
  std::span<const PageId> pages(size_t head) const { return heads_[head].pages; }
  std::span<const Visible> visible() const { return visible_; }
  PagePool& pool() const { return pool_; }

  /// Gives back the pages that no query at `next_position` or later can see; none after
  /// keep_all_rows(): rows that are to be frozen.
  void trim(int32_t next_position);
  void keep_all_rows() { keeps_all_rows_ = true; }

  /// Shares the pages of a piece's rows [row_begin, row_end) as immutable rows (span indices).
  /// Requires: no page of that range was given back; rows there are not written again.
  std::shared_ptr<const FrameRows> freeze(int piece, int32_t row_begin, int32_t row_end) const;

  struct PieceInfo {
    bool stored = false;
    int32_t offset = 0, row_begin = 0, row_end = 0;
    std::shared_ptr<const FrameRows> rows;  ///< of a stored piece
    bool overlaid = false;                  ///< a stored piece with recomputed rows
  };
  const PieceInfo& piece(int i) const { return pieces_[static_cast<size_t>(i)].info; }

  View k_pages() const { return pool_.k_pages(); }
  View v_pages() const { return pool_.v_pages(); }

  /// Pages held privately (fresh and overlay), all heads.
  int64_t num_own_pages() const { return num_own_pages_; }

 private:
  struct Piece {
    PieceInfo info;
    int32_t base = 0;       ///< index of its first page in every head's list
    int32_t first_row = 0;  ///< row_begin rounded down to a page
    int32_t written = 0;    ///< rows below are backed by pages (fresh pieces)
  };
  struct Head {
    std::vector<PageId> pages;
    std::vector<uint8_t> own;  ///< parallel to pages: 1 where the page is private
    std::vector<kernels::Run> runs;
  };
  int piece_at(int32_t position) const;
  /// A page, by its index in every head's list, that is to become private.
  struct Wanted {
    size_t index = 0;
    bool copy = false;  ///< rows of the shared page stay
    bool stored = false;
  };
  Status make_writable(std::span<const Wanted> wanted);
  void rebuild_runs(Head& head, const std::vector<Piece>& pieces) const;
  void refresh_runs();

  void note_change(size_t index);

  uint64_t serial_;
  PagePool& pool_;
  int num_kv_heads_, page_rows_;
  std::vector<Visible> visible_;
  std::vector<Piece> pieces_;
  mutable std::vector<Head> heads_;  ///< their runs are made on demand
  mutable bool runs_known_ = false;
  bool keeps_all_rows_ = false;
  std::vector<uint8_t> keeps_stored_;  ///< empty: none
  size_t first_writer_ = 0;            ///< head whose stored rows may be replaced
  std::vector<int32_t> changed_;
  int32_t num_positions_ = 0;
  int64_t num_own_pages_ = 0;
};

}  // namespace rk::kv
