// Fixed pool of KV pages, reserved once at start-up (paper §4.3, fig. 6), in host memory or on a
// card.
//
// A page holds `page_rows` rows of K and of V for ONE (layer, KV head): two contiguous row-major
// blocks [page_rows, head_dim] under one id. The pool knows neither sequences nor head classes; it
// hands out ids and counts their shares. Memory is reserved whole and touched page by page; the
// page freed last is handed out first. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace rk::kv {

/// Index of a page in its pool; int32 because kernels take page lists as they are.
using PageId = int32_t;
inline constexpr PageId kNoPage = -1;

class PagePool {
 public:
  struct Options {
    int64_t capacity_bytes = 0;  ///< bytes for all pages, K and V together
    int page_rows = 16;          ///< rows per page
    int head_dim = 128;          ///< elements per row
    DType dtype = DType::kF16;   ///< kF16, kBf16 or kF32
    Memory memory = Memory::kHost;
  };
  /// Pages read as zeros until written. Errors: kInvalidArgument for bad options or a capacity
  /// below one page; kExhausted if the system refuses the memory.
  static Result<std::unique_ptr<PagePool>> create(const Options& options);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;
  /// Requires: every share was released; page lists die before their pool.
  ~PagePool();

  /// Appends `num_pages` ids, one share each, to `out`; contents unspecified. O(num_pages).
  /// Errors: kExhausted when too few are free; kInvalidArgument below 0; `out` is unchanged.
  Status allocate(int64_t num_pages, std::vector<PageId>& out);
  /// One share more, or less; a page without shares is free again. Requires: id is in use.
  void retain(PageId id);
  void release(PageId id);
  /// Shares of a page; 0 is free. Requires: id in [0, num_pages()).
  int32_t refcount(PageId id) const;

  int64_t num_pages() const { return num_pages_; }
  int64_t num_free() const { return num_pages_ - num_used_; }
  int64_t num_used() const { return num_used_; }
  /// K and V of one page.
  int64_t page_bytes() const { return page_bytes(options_); }
  static int64_t page_bytes(const Options& options);
  int page_rows() const { return options_.page_rows; }
  int head_dim() const { return options_.head_dim; }
  DType dtype() const { return options_.dtype; }
  Memory memory() const { return options_.memory; }

  /// [num_pages, page_rows, head_dim] in dtype(); valid while the pool lives.
  const View& k_pages() const { return k_view_; }
  const View& v_pages() const { return v_view_; }
  /// [page_rows, head_dim] of one page. Requires: id in [0, num_pages()).
  View k(PageId id) const;
  View v(PageId id) const;
  /// Copies K and V rows of page `from` to `to`. On a card the copy is only noted: the next step
  /// carries it out before it writes or reads a row (take_copies).
  void copy_page(PageId from, PageId to);
  struct Copy {
    PageId from, to;
  };
  /// The copies noted since the last call. Sources keep their shares until then: they are pages of
  /// stored rows, which the sequence holds.
  std::vector<Copy> take_copies() { return std::exchange(copies_, {}); }
  /// Rows of page `to` become the mean of those of pages `from`, K and V, summed in f32 in that
  /// order. On a card noted as a copy is. Requires: what was noted for the sources is done, as it
  /// is once a step has written to them.
  void mean_page(std::span<const PageId> from, PageId to);
  /// Targets of as many sources each.
  struct Means {
    size_t num_from = 0;
    std::vector<PageId> from, to;  ///< from: [to.size(), num_from]
  };
  /// The means noted since the last call, to be carried out in this order and before the copies: a
  /// source may be free by now, and a copy's target; a copy's source may be a mean.
  std::vector<Means> take_means() { return std::exchange(means_, {}); }

 private:
  PagePool(const Options& options, int64_t num_pages, Buffer k, Buffer v);
  bool in_use(PageId id) const;

  Options options_;
  int64_t num_pages_ = 0, num_used_ = 0;
  Buffer k_, v_;
  View k_view_, v_view_;
  std::vector<int32_t> shares_;  ///< of the pages handed out so far; ids beyond were never used
  std::vector<Copy> copies_;     ///< on a card: noted, not yet done
  std::vector<Means> means_;     ///< the same
  std::vector<PageId> free_;     ///< pages given back, the last one first out
};

/// Shares of pages in row order, given back by the destructor. Entries may be kNoPage: rows that
/// are no longer kept. Move-only; engine thread only; dies before its pool.
class PageList {
 public:
  PageList() = default;
  explicit PageList(PagePool& pool) : pool_(&pool) {}
  ~PageList() { clear(); }
  PageList(PageList&& other) noexcept { swap(other); }
  PageList& operator=(PageList&& other) noexcept;
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  /// Appends fresh pages, all or none. Errors: kExhausted; the list is unchanged.
  Status grow(int64_t num_pages);
  /// Appends one page: takes over a share of the caller's, or takes a new one; kNoPage is allowed.
  void push_owned(PageId id);
  void push_shared(PageId id);
  /// Entry i becomes `id` (takes over a share; kNoPage allowed); the old share is given back.
  void replace(size_t i, PageId id);
  /// Gives entry i back; it reads kNoPage afterwards.
  void drop(size_t i) { replace(i, kNoPage); }
  /// Gives the first `num` entries, or those from `size` on, back and removes them.
  void pop_front(size_t num);
  void truncate(size_t size);
  void clear() { truncate(0); }

  std::span<const PageId> ids() const { return ids_; }
  PageId operator[](size_t i) const { return ids_[i]; }
  size_t size() const { return ids_.size(); }
  bool empty() const { return ids_.empty(); }
  /// Entries that hold a page.
  int64_t num_held() const { return num_held_; }
  /// True where somebody else holds a share too: copy before writing.
  bool is_shared(size_t i) const;
  PagePool* pool() const { return pool_; }

 private:
  void swap(PageList& other) noexcept;
  PagePool* pool_ = nullptr;
  std::vector<PageId> ids_;
  int64_t num_held_ = 0;
};

}  // namespace rk::kv
