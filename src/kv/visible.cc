#include "kv/visible.h"

#include <algorithm>

#include "base/check.h"

namespace rk::kv {

Visible visible(const HeadPlan& plan, int layer, int head, int32_t model_window) {
  const HeadPolicy& p = plan.at(layer, head);
  Visible v;
  switch (p.cls) {
    case HeadClass::kLocal:
      v = {.sink = p.sink, .window = p.window};
      break;
    case HeadClass::kGlobal:
    case HeadClass::kDense:
    case HeadClass::kRetrieval:  // restricting it to the top-p rows is not built
      break;
  }
  if (model_window <= 0) return v;
  if (v.window < 0 || v.window >= model_window) return {.sink = 0, .window = model_window};
  if (v.sink > 0) v.limit = model_window;
  return v;
}

bool sees(const Visible& v, int64_t q_pos, int64_t key_pos) {
  if (key_pos < 0 || key_pos > q_pos) return false;
  if (v.limit >= 0 && key_pos <= q_pos - v.limit) return false;
  return v.window < 0 || key_pos < v.sink || key_pos > q_pos - v.window;
}

void RowRanges::add(int64_t begin, int64_t end) {
  if (begin >= end) return;
  const RowRange range{static_cast<int32_t>(begin), static_cast<int32_t>(end)};
  if (size_ > 0 && range.begin <= ranges_[size_ - 1].end) {
    ranges_[size_ - 1].end = std::max(ranges_[size_ - 1].end, range.end);
    return;
  }
  RK_CHECK(size_ < ranges_.size());
  ranges_[size_++] = range;
}

int64_t RowRanges::num_rows() const {
  int64_t sum = 0;
  for (const RowRange& r : *this) sum += r.num_rows();
  return sum;
}

bool RowRanges::contains(int64_t row) const {
  return std::any_of(begin(), end(),
                     [row](const RowRange& r) { return r.begin <= row && row < r.end; });
}

RowRanges kept_ranges(const Visible& v, int64_t offset, int64_t num_rows, int64_t next_q_pos) {
  RowRanges kept;
  // The lowest position the window, and the model's own, leave to any query from here on.
  const int64_t limit_begin = v.limit < 0 ? 0 : next_q_pos - v.limit + 1 - offset;
  const int64_t first = std::max<int64_t>(0, limit_begin);
  if (v.window < 0) {
    kept.add(first, num_rows);
    return kept;
  }
  kept.add(first, std::min(num_rows, v.sink - offset));
  // A window of no rows shows none, not even rows after next_q_pos.
  if (v.window > 0) kept.add(std::max(first, next_q_pos - v.window + 1 - offset), num_rows);
  return kept;
}

int64_t kept_pages(const Visible& v, int64_t offset, int64_t num_rows, int64_t next_q_pos,
                   int page_rows) {
  int64_t pages = 0, next_page = 0;
  for (const RowRange& r : kept_ranges(v, offset, num_rows, next_q_pos)) {
    const int64_t first = std::max<int64_t>(next_page, r.begin / page_rows);
    const int64_t end = (int64_t{r.end} + page_rows - 1) / page_rows;
    pages += end - first;
    next_page = end;
  }
  return pages;
}

int64_t rows_stored(const Visible& v, int64_t num_tokens) {
  if (num_tokens <= 0) return 0;
  return kept_ranges(v, 0, num_tokens, num_tokens - 1).num_rows();
}

Footprint footprint(const HeadPlan& plan, int64_t context_tokens, int head_dim, DType dtype,
                    int page_rows, std::span<const int32_t> layer_windows) {
  RK_CHECK(page_rows > 0 && context_tokens >= 0);
  RK_CHECK(layer_windows.empty() || static_cast<int>(layer_windows.size()) == plan.num_layers());
  const int64_t page_bytes = 2 * dtype_bytes(dtype, int64_t{page_rows} * head_dim);
  const int64_t dense_pages = (context_tokens + page_rows - 1) / page_rows;
  Footprint out;
  for (int layer = 0; layer < plan.num_layers(); ++layer) {
    const int32_t window = layer_windows.empty() ? -1 : layer_windows[static_cast<size_t>(layer)];
    for (int head = 0; head < plan.num_kv_heads(); ++head) {
      const Visible v = visible(plan, layer, head, window);
      const int64_t last = std::max<int64_t>(0, context_tokens - 1);
      out.dense_rows += context_tokens;
      out.dense_bytes += dense_pages * page_bytes;
      out.head_aware_rows += rows_stored(v, context_tokens);
      out.head_aware_bytes += kept_pages(v, 0, context_tokens, last, page_rows) * page_bytes;
    }
  }
  return out;
}

}  // namespace rk::kv
