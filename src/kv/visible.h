// Head classes become positions, once: which rows a head's queries may see, and so which rows are
// worth keeping (spec A1). Nothing below this can name a head class. Pure functions.
//
// Positions count from the start of the prompt; a span's row i stands at position offset + i.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kv/head_plan.h"
#include "tensor/dtype.h"

namespace rk::kv {

/// A query at position p sees key position j <= p where (j < sink or j > p - window), and j > p -
/// limit. window < 0 or limit < 0: no such bound.
struct Visible {
  int32_t sink = 0;
  int32_t window = -1;
  /// The model's own sliding window where sinks outlive the plan's window but not the model's;
  /// -1 in every other case (an equal or smaller model window has become `window`).
  int32_t limit = -1;
  bool operator==(const Visible&) const = default;
  bool everything() const { return window < 0 && limit < 0; }
};

/// What head `head` of `layer` sees under `plan`, in a layer whose own sliding window is
/// `model_window` positions (<= 0: none).
Visible visible(const HeadPlan& plan, int layer, int head, int32_t model_window = -1);

bool sees(const Visible& v, int64_t q_pos, int64_t key_pos);

/// Rows [begin, end).
struct RowRange {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t num_rows() const { return end - begin; }
  bool operator==(const RowRange&) const = default;
};

/// At most two ascending ranges that neither touch nor are empty.
class RowRanges {
 public:
  using value_type = RowRange;
  using const_iterator = const RowRange*;
  /// Ignores an empty range; joins one that touches the last. Requires: ascending order.
  void add(int64_t begin, int64_t end);
  const RowRange* begin() const { return ranges_.data(); }
  const RowRange* end() const { return ranges_.data() + size_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const RowRange& operator[](size_t i) const { return ranges_[i]; }
  int64_t num_rows() const;
  bool contains(int64_t row) const;

 private:
  std::array<RowRange, 2> ranges_{};
  size_t size_ = 0;
};

/// Rows of a span (offset, num_rows) that some query at position >= next_q_pos can still see; the
/// others may be forgotten. Requires: num_rows >= 0.
RowRanges kept_ranges(const Visible& v, int64_t offset, int64_t num_rows, int64_t next_q_pos);

/// Pages that hold those rows, the span's rows lying page_rows to a page from row 0.
int64_t kept_pages(const Visible& v, int64_t offset, int64_t num_rows, int64_t next_q_pos,
                   int page_rows);

/// Rows a head holds once a prompt of `num_tokens` has run: min(num_tokens, sink + window).
int64_t rows_stored(const Visible& v, int64_t num_tokens);

/// KV bytes of one sequence, dense beside head-aware.
struct Footprint {
  int64_t dense_bytes = 0;       ///< whole pages
  int64_t head_aware_bytes = 0;  ///< whole pages
  int64_t dense_rows = 0;        ///< rows of all heads, without page rounding
  int64_t head_aware_rows = 0;
};

/// `layer_windows`: the model's sliding window per layer (<= 0 none), or empty for none at all;
/// dense keeps every row regardless. Requires: page_rows > 0, context_tokens >= 0.
Footprint footprint(const HeadPlan& plan, int64_t context_tokens, int head_dim, DType dtype,
                    int page_rows, std::span<const int32_t> layer_windows = {});

}  // namespace rk::kv
