// Stored rows: K and V of consecutive rows of one span, every head of every layer, immutable. Row i
// holds K rotated at index i of its span's frame (spec A3), so the rows serve any position without
// being touched. Segments, and the payload of the prefix tree, are made of these.
//
// Shares pool pages by reference count and gives them back in its destructor. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kv/page_pool.h"
#include "kv/prefix_tree.h"

namespace rk::kv {

class FrameRows : public PrefixRows {
 public:
  /// Takes over one share of each page. `pages` is [num_layers * num_kv_heads] lists; entry i of a
  /// list holds rows [first_row + i*P, first_row + (i+1)*P) where first_row is row_begin rounded
  /// down to a page.
  FrameRows(PagePool& pool, int32_t row_begin, int32_t row_end,
            std::vector<std::vector<PageId>> pages)
      : pool_(pool), row_begin_(row_begin), row_end_(row_end), pages_(std::move(pages)) {}
  ~FrameRows() override;
  FrameRows(const FrameRows&) = delete;
  FrameRows& operator=(const FrameRows&) = delete;

  int32_t row_begin() const { return row_begin_; }
  int32_t row_end() const { return row_end_; }
  int32_t num_rows() const { return row_end_ - row_begin_; }
  /// Pages of head index l * num_kv_heads + g.
  const std::vector<PageId>& pages(int head) const { return pages_[static_cast<size_t>(head)]; }
  int num_heads() const { return static_cast<int>(pages_.size()); }
  int64_t num_pages() const;

 private:
  PagePool& pool_;
  int32_t row_begin_, row_end_;
  std::vector<std::vector<PageId>> pages_;
};

}  // namespace rk::kv
