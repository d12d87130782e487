#include "kernels/seg_attn/seen_rows.h"

#include <algorithm>

namespace rk::kernels {
namespace {

// Rows at positions below `end`, for ends that ascend.
class RowsBelow {
 public:
  explicit RowsBelow(std::span<const Run> runs) : runs_(runs) {}
  int64_t operator()(int64_t end) {
    while (next_ < runs_.size() && int64_t{runs_[next_].offset} + runs_[next_].row_end <= end) {
      whole_ += std::max(0, runs_[next_].row_end - runs_[next_].row_begin);
      ++next_;
    }
    if (next_ == runs_.size()) return whole_;
    const Run& run = runs_[next_];
    return whole_ + std::max<int64_t>(0, end - run.offset - run.row_begin);
  }

 private:
  std::span<const Run> runs_;
  size_t next_ = 0;
  int64_t whole_ = 0;
};

struct AllRowsBelow {
  int64_t num_rows;
  int64_t operator()(int64_t end) const { return std::clamp<int64_t>(end, 0, num_rows); }
};

// `below` is copied: every use ascends on its own.
template <class Below>
SeenRows count(const Below& below, int64_t sink, int64_t window, std::span<const int32_t> q_pos) {
  SeenRows out;
  if (q_pos.empty()) return out;
  Below to_query = below, to_window = below, to_sink = below, seen_from = below, seen_to = below;
  if (window < 0) {
    for (const int32_t p : q_pos) out.pairs += to_query(int64_t{p} + 1);
    out.rows = seen_to(int64_t{q_pos.back()} + 1);
    return out;
  }
  int64_t seen = 0;  // rows below are counted already, or hidden from all queries
  for (const int32_t p : q_pos) {
    const int64_t end = int64_t{p} + 1, near = std::max<int64_t>(0, end - window);
    out.pairs += to_query(end) - to_window(near) + to_sink(std::min(near, sink));
    seen = std::max({seen, near, sink});
    if (seen < end) {
      out.rows += seen_to(end) - seen_from(seen);
      seen = end;
    }
  }
  Below sinks = below;
  out.rows += sinks(std::min<int64_t>(sink, int64_t{q_pos.back()} + 1));
  return out;
}

}  // namespace

SeenRows count_seen(const HeadRows& head, std::span<const int32_t> q_pos) {
  return count(RowsBelow(head.runs), head.sink, head.window, q_pos);
}

SeenRows count_seen(int32_t sink, int32_t window, std::span<const int32_t> q_pos,
                    int64_t num_rows) {
  return count(AllRowsBelow{num_rows}, sink, window, q_pos);
}

}  // namespace rk::kernels
