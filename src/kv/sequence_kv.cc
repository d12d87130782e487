#include "kv/sequence_kv.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"

namespace rk::kv {
namespace {

// A piece that may grow ends here on a card, so that its run stays as it is while it does.
constexpr int32_t kOpenEnd = 1 << 30;

uint64_t next_serial() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

SequenceKv::SequenceKv(PagePool& pool, int num_layers, int num_kv_heads,
                       std::vector<Visible> visible)
    : serial_(next_serial()),
      pool_(pool),
      num_kv_heads_(num_kv_heads),
      page_rows_(pool.page_rows()),
      visible_(std::move(visible)),
      heads_(static_cast<size_t>(num_layers) * static_cast<size_t>(num_kv_heads)) {
  RK_CHECK(visible_.size() == heads_.size());
}

SequenceKv::~SequenceKv() {
  for (Head& head : heads_) {
    for (size_t i = 0; i < head.pages.size(); ++i) {
      if (head.own[i] != 0 && head.pages[i] != kNoPage) pool_.release(head.pages[i]);
    }
  }
}

void SequenceKv::add_stored(std::shared_ptr<const FrameRows> rows, int32_t row_begin,
                            int32_t row_end) {
  RK_CHECK(rows->row_begin() <= row_begin && row_begin < row_end && row_end <= rows->row_end());
  const int32_t first_stored = rows->row_begin() / page_rows_ * page_rows_;
  Piece piece;
  piece.first_row = row_begin / page_rows_ * page_rows_;
  piece.base = static_cast<int32_t>(heads_[0].pages.size());
  piece.written = row_end;
  piece.info = {true, num_positions_ - row_begin, row_begin, row_end, rows, false};
  const int32_t skip = (piece.first_row - first_stored) / page_rows_;
  const int32_t count = (row_end - piece.first_row + page_rows_ - 1) / page_rows_;
  for (size_t h = 0; h < heads_.size(); ++h) {
    const auto& from = rows->pages(static_cast<int>(h));
    heads_[h].pages.insert(heads_[h].pages.end(), from.begin() + skip, from.begin() + skip + count);
    heads_[h].own.resize(heads_[h].pages.size(), 0);
  }
  for (int32_t i = 0; i < count; ++i) note_change(static_cast<size_t>(piece.base + i));
  num_positions_ += row_end - row_begin;
  pieces_.push_back(std::move(piece));
  runs_known_ = false;
}

void SequenceKv::add_fresh(int32_t row_begin, int32_t num_rows) {
  Piece piece;
  piece.first_row = row_begin / page_rows_ * page_rows_;
  piece.base = static_cast<int32_t>(heads_[0].pages.size());
  piece.written = row_begin;
  piece.info = {false, num_positions_ - row_begin, row_begin, row_begin + num_rows, nullptr, false};
  const int32_t count = (row_begin + num_rows - piece.first_row + page_rows_ - 1) / page_rows_;
  for (Head& head : heads_) {
    head.pages.resize(head.pages.size() + static_cast<size_t>(count), kNoPage);
    head.own.resize(head.pages.size(), 0);
  }
  num_positions_ += num_rows;
  pieces_.push_back(std::move(piece));
}

void SequenceKv::keep_stored(std::vector<uint8_t> heads) {
  RK_CHECK(heads.size() == heads_.size() && num_own_pages_ == 0);
  keeps_stored_ = std::move(heads);
  first_writer_ = static_cast<size_t>(std::find(keeps_stored_.begin(), keeps_stored_.end(), 0) -
                                      keeps_stored_.begin());
}

int SequenceKv::piece_at(int32_t position) const {
  const auto it = std::upper_bound(
      pieces_.begin(), pieces_.end(), position,
      [](int32_t p, const Piece& piece) { return p < piece.info.offset + piece.info.row_begin; });
  RK_CHECK(it != pieces_.begin());
  return static_cast<int>(it - pieces_.begin()) - 1;
}

Status SequenceKv::make_writable(std::span<const Wanted> wanted) {
  if (wanted.empty()) return {};
  std::vector<PageId> got;
  const auto stored = static_cast<size_t>(std::ranges::count(wanted, true, &Wanted::stored));
  const auto keepers = static_cast<size_t>(std::ranges::count(keeps_stored_, 1));
  const size_t num_pages = wanted.size() * heads_.size() - stored * keepers;
  RK_RETURN_IF_ERROR(pool_.allocate(static_cast<int64_t>(num_pages), got));
  const PageId* next = got.data();
  for (size_t h = 0; h < heads_.size(); ++h) {
    Head& head = heads_[h];  // its pages lie one behind the other: decode reads them in order
    const bool keeps = !keeps_stored_.empty() && keeps_stored_[h] != 0;
    for (const Wanted& w : wanted) {
      if (keeps && w.stored) continue;
      if (w.copy) pool_.copy_page(head.pages[w.index], *next);
      head.pages[w.index] = *next++;
      head.own[w.index] = 1;
    }
  }
  for (const Wanted& w : wanted) note_change(w.index);
  num_own_pages_ += static_cast<int64_t>(got.size());
  return {};
}

int32_t SequenceKv::num_pages_to_write(std::span<const int32_t> positions) const {
  int32_t num = 0, last = -1;
  for (const int32_t position : positions) {
    const int32_t index = entry(position);
    if (index == last) continue;
    last = index;
    const bool stored = pieces_[static_cast<size_t>(piece_at(position))].info.stored;
    const size_t writer = stored ? first_writer_ : 0;
    num += writer < heads_.size() && heads_[writer].own[static_cast<size_t>(index)] == 0 ? 1 : 0;
  }
  return num;
}

Status SequenceKv::prepare(std::span<const int32_t> positions) {
  std::vector<Wanted> wanted;
  for (size_t i = 0; i < positions.size();) {
    const int32_t position = positions[i];
    if (position >= num_positions_) {  // decode: the last piece grows by one row
      RK_CHECK(position == num_positions_ && !pieces_.empty() && !pieces_.back().info.stored);
      Piece& last = pieces_.back();
      ++last.info.row_end;
      ++num_positions_;
      const int32_t count =
          (last.info.row_end - last.first_row + page_rows_ - 1) / page_rows_ + last.base;
      if (count > num_entries()) {
        for (Head& head : heads_) {
          head.pages.resize(static_cast<size_t>(count), kNoPage);
          head.own.resize(static_cast<size_t>(count), 0);
        }
      }
    }
    Piece& piece = pieces_[static_cast<size_t>(piece_at(position))];
    const int32_t row = position - piece.info.offset;
    const int32_t page_end =
        std::min(row / page_rows_ * page_rows_ + page_rows_, piece.info.row_end);
    size_t j = i + 1;  // positions[i, j) fall on the same page
    while (j < positions.size() && positions[j] - piece.info.offset < page_end) ++j;
    const bool whole = row % page_rows_ == 0 && static_cast<int32_t>(j - i) == page_end - row;
    const auto index = static_cast<size_t>(piece.base + (row - piece.first_row) / page_rows_);
    const bool stored = piece.info.stored;
    const size_t writer = stored ? first_writer_ : 0;
    if (writer < heads_.size() && heads_[writer].own[index] == 0) {
      wanted.push_back({index, stored && !whole, stored});
    }
    i = j;
  }
  RK_RETURN_IF_ERROR(make_writable(wanted));
  for (const int32_t position : positions) {
    Piece& piece = pieces_[static_cast<size_t>(piece_at(position))];
    piece.info.overlaid = piece.info.stored;
    piece.written = std::max(piece.written, position - piece.info.offset + 1);
  }
  if (!positions.empty()) refresh_runs();
  return {};
}

void SequenceKv::slots(int layer, std::span<const int32_t> positions, int64_t* out) const {
  const size_t first_head = static_cast<size_t>(layer) * static_cast<size_t>(num_kv_heads_);
  const Head* heads = &heads_[first_head];
  const uint8_t* keeps = keeps_stored_.empty() ? nullptr : &keeps_stored_[first_head];
  int index = positions.empty() ? 0 : piece_at(positions[0]);
  for (const int32_t position : positions) {
    while (position >= pieces_[static_cast<size_t>(index)].info.offset +
                           pieces_[static_cast<size_t>(index)].info.row_end) {
      ++index;
    }
    const Piece& piece = pieces_[static_cast<size_t>(index)];
    const int32_t row = position - piece.info.offset;
    const auto page = static_cast<size_t>(piece.base + (row - piece.first_row) / page_rows_);
    for (int g = 0; g < num_kv_heads_; ++g) {
      if (keeps != nullptr && piece.info.stored && keeps[g] != 0) {
        *out++ = -1;
        continue;
      }
      *out++ = int64_t{heads[g].pages[page]} * page_rows_ + row % page_rows_;
    }
  }
}

void SequenceKv::note_change(size_t index) { changed_.push_back(static_cast<int32_t>(index)); }

void SequenceKv::entries(std::span<const int32_t> positions, int32_t* index, int32_t* slot) const {
  for (const int32_t position : positions) {
    const Piece& piece = pieces_[static_cast<size_t>(piece_at(position))];
    const int32_t row = position - piece.info.offset;
    *index++ = piece.base + (row - piece.first_row) / page_rows_;
    *slot++ = row % page_rows_;
  }
}

void SequenceKv::in_stored(std::span<const int32_t> positions, uint8_t* out) const {
  for (const int32_t position : positions) {
    *out++ = pieces_[static_cast<size_t>(piece_at(position))].info.stored ? 1 : 0;
  }
}

int32_t SequenceKv::entry(int32_t position) const {
  int32_t index = 0, slot = 0;
  entries({&position, 1}, &index, &slot);
  return index;
}

std::vector<kernels::Run> SequenceKv::runs() const {
  std::vector<kernels::Run> out;
  for (const Piece& piece : pieces_) {
    out.push_back({piece.base, piece.info.row_begin, piece.info.row_end, piece.info.offset});
  }
  if (!out.empty() && !pieces_.back().info.stored) out.back().row_end = kOpenEnd;
  return out;
}

void SequenceKv::row_indices(std::span<const int32_t> positions, int32_t* out) const {
  for (const int32_t position : positions) {
    *out++ = position - pieces_[static_cast<size_t>(piece_at(position))].info.offset;
  }
}

kernels::HeadRows SequenceKv::head_rows(int layer, int kv_head) const {
  if (!runs_known_) {
    for (Head& head : heads_) rebuild_runs(head, pieces_);
    runs_known_ = true;
  }
  const auto h = static_cast<size_t>(layer) * static_cast<size_t>(num_kv_heads_) +
                 static_cast<size_t>(kv_head);
  return {heads_[h].runs, heads_[h].pages, visible_[h].sink, visible_[h].window};
}

// Runs of a head: per piece, the maximal stretches of pages that exist.
void SequenceKv::rebuild_runs(Head& head, const std::vector<Piece>& pieces) const {
  head.runs.clear();
  for (const Piece& piece : pieces) {
    const int32_t end = piece.written;
    for (int32_t row = piece.info.row_begin; row < end;) {
      const int32_t page_row = row / page_rows_ * page_rows_;
      const auto page = static_cast<size_t>(piece.base + (page_row - piece.first_row) / page_rows_);
      const int32_t next = std::min(page_row + page_rows_, end);
      if (head.pages[page] != kNoPage) {
        if (!head.runs.empty() && head.runs.back().offset == piece.info.offset &&
            head.runs.back().row_end == row && head.runs.back().first_page >= piece.base) {
          head.runs.back().row_end = next;
        } else {
          head.runs.push_back({static_cast<int32_t>(page), row, next, piece.info.offset});
        }
      }
      row = next;
    }
  }
}

// The common case, a decode step inside a page, only moves the last run's end. Otherwise runs are
// made when a host kernel asks for them; a card's never do.
void SequenceKv::refresh_runs() {
  if (!runs_known_) return;
  const Piece& last = pieces_.back();
  for (Head& head : heads_) {
    if (!last.info.stored && !head.runs.empty()) {
      kernels::Run& run = head.runs.back();
      const bool same_piece = run.first_page >= last.base && run.offset == last.info.offset;
      if (same_piece && run.row_end <= last.written && last.written - run.row_end <= 1) {
        run.row_end = last.written;
        continue;
      }
    }
    runs_known_ = false;
    return;
  }
}

void SequenceKv::trim(int32_t next_position) {
  if (keeps_all_rows_) return;
  for (size_t h = 0; h < heads_.size(); ++h) {
    const Visible& see = visible_[h];
    if (see.window < 0) continue;
    Head& head = heads_[h];
    bool changed = false;
    for (const Piece& piece : pieces_) {
      if (piece.info.stored) continue;
      // Whole pages strictly between the sink and the window of the next query.
      const int32_t first_dead = std::max(see.sink - piece.info.offset, piece.info.row_begin);
      const int32_t live = next_position - see.window + 1 - piece.info.offset;
      const int32_t end = std::min(live, piece.written);
      int32_t page_row =
          (std::max(first_dead, piece.first_row) + page_rows_ - 1) / page_rows_ * page_rows_;
      if (first_dead <= piece.info.row_begin) page_row = piece.first_row;
      for (; page_row + page_rows_ <= end; page_row += page_rows_) {
        const auto page =
            static_cast<size_t>(piece.base + (page_row - piece.first_row) / page_rows_);
        if (head.own[page] == 0 || head.pages[page] == kNoPage) continue;
        pool_.release(head.pages[page]);
        head.pages[page] = kNoPage;
        --num_own_pages_;
        changed = true;
      }
    }
    if (changed) runs_known_ = false;
  }
}

std::shared_ptr<const FrameRows> SequenceKv::freeze(int index, int32_t row_begin,
                                                    int32_t row_end) const {
  const Piece& piece = pieces_[static_cast<size_t>(index)];
  RK_CHECK(piece.info.row_begin <= row_begin && row_begin < row_end && row_end <= piece.written);
  const int32_t first_row = row_begin / page_rows_ * page_rows_;
  const int32_t skip = piece.base + (first_row - piece.first_row) / page_rows_;
  const int32_t count = (row_end - first_row + page_rows_ - 1) / page_rows_;
  std::vector<std::vector<PageId>> pages(heads_.size());
  for (size_t h = 0; h < heads_.size(); ++h) {
    pages[h].assign(heads_[h].pages.begin() + skip, heads_[h].pages.begin() + skip + count);
    for (const PageId page : pages[h]) {
      RK_CHECK(page != kNoPage);
      pool_.retain(page);
    }
  }
  return std::make_shared<FrameRows>(pool_, row_begin, row_end, std::move(pages));
}

}  // namespace rk::kv
