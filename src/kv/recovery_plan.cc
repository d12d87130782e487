#include "kv/recovery_plan.h"

#include <algorithm>
#include <limits>

namespace rk::kv {
namespace {

Status check_targets(const PlanSpan& span, size_t i) {
  int32_t last = 0;
  for (const RowRange& t : span.targets) {
    if (t.begin < last || t.end <= t.begin || t.end > span.num_rows) {
      return invalid_argument("recovery plan: span ", i, ": target rows [", t.begin, ", ", t.end,
                              ") after ", last, ", span has ", span.num_rows, " rows");
    }
    last = t.end;
  }
  return {};
}

Status check(std::span<const PlanSpan> spans, RecoveryMode mode, int boundary_rows) {
  if (mode == RecoveryMode::kBoundary && boundary_rows < 0) {
    return invalid_argument("recovery plan: boundary of ", boundary_rows, " rows");
  }
  int64_t num_rows = 0;
  bool whole = true;  // every span so far lies in the prefix cache as a whole
  for (size_t i = 0; i < spans.size(); ++i) {
    const PlanSpan& s = spans[i];
    if (s.num_rows < 0 || s.prefix_rows < 0 || s.prefix_rows > s.num_rows) {
      return invalid_argument("recovery plan: span ", i, " has ", s.num_rows, " rows, ",
                              s.prefix_rows, " of them in the prefix cache");
    }
    if (s.prefix_rows > 0 && !whole) {
      return invalid_argument("recovery plan: span ", i, " has ", s.prefix_rows,
                              " prefix rows behind rows that are not in the prefix cache");
    }
    whole = whole && s.prefix_rows == s.num_rows;
    RK_RETURN_IF_ERROR(check_targets(s, i));
    num_rows += s.num_rows;
    if (num_rows > std::numeric_limits<int32_t>::max()) {
      return invalid_argument("recovery plan: ", num_rows, " rows, at most ",
                              std::numeric_limits<int32_t>::max());
    }
  }
  if (num_rows == 0) return invalid_argument("recovery plan: a prompt of 0 rows");
  return {};
}

/// Appends [begin, end), joined to the last range where they touch.
void add(std::vector<RowRange>& ranges, int32_t begin, int32_t end) {
  if (begin >= end) return;
  if (!ranges.empty() && ranges.back().end == begin) {
    ranges.back().end = end;
  } else {
    ranges.push_back({begin, end});
  }
}

std::vector<RowRange> active_rows(const PlanSpan& s, RecoveryMode mode, int boundary_rows) {
  std::vector<RowRange> out;
  if (mode == RecoveryMode::kDense) {
    add(out, 0, s.num_rows);
  } else if (!s.segment || (mode == RecoveryMode::kPrefix && !s.exact)) {
    add(out, s.prefix_rows, s.num_rows);
  } else if (s.exact) {
    return out;
  } else if (mode == RecoveryMode::kBoundary) {
    add(out, s.prefix_rows, std::min(boundary_rows, s.num_rows));
  } else if (mode == RecoveryMode::kTargets) {
    for (const RowRange& t : s.targets) add(out, std::max(t.begin, s.prefix_rows), t.end);
  }
  return out;
}

void count(const PlanSpan& s, RecoveryMode mode, const std::vector<RowRange>& active,
           RecoveryPlan& plan) {
  int64_t num_active = 0, prefix = s.prefix_rows;
  for (const RowRange& r : active) {
    num_active += r.num_rows();
    prefix -= std::max(0, std::min(r.end, s.prefix_rows) - r.begin);
  }
  plan.num_active += num_active;
  RecoveryCounts& c = plan.counts;
  c.prefix_cached += prefix;
  const int64_t stored = s.num_rows - num_active - prefix;  // rows of the segment itself
  (s.ingested ? c.fresh : c.document_cached) += stored;
  if (s.relocated && !s.ingested) c.relocated += stored;
  // Rows the prefix cache held are no segment's, even where one is computed for its logits.
  const int64_t again = s.prefix_rows - prefix;
  const bool segment_used =
      s.segment && (s.exact || mode != RecoveryMode::kPrefix) && mode != RecoveryMode::kDense;
  c.recomputed += segment_used ? num_active - again : 0;
  c.fresh += segment_used ? again : num_active;
}

}  // namespace

std::vector<int32_t> RecoveryPlan::positions() const {
  std::vector<int32_t> out;
  out.reserve(static_cast<size_t>(num_active));
  for (const Span& s : spans) {
    for (const RowRange& r : s.active) {
      for (int32_t row = r.begin; row < r.end; ++row) out.push_back(s.offset + row);
    }
  }
  return out;
}

Result<RecoveryPlan> plan_recovery(std::span<const PlanSpan> spans, RecoveryMode mode,
                                   int boundary_rows) {
  RK_RETURN_IF_ERROR(check(spans, mode, boundary_rows));
  size_t last = spans.size();  // one past the last span that has rows
  while (spans[last - 1].num_rows == 0) --last;
  RecoveryPlan plan;
  int32_t offset = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    const PlanSpan& s = spans[i];
    std::vector<RowRange> active = active_rows(s, mode, boundary_rows);
    if (i + 1 == last && (active.empty() || active.back().end < s.num_rows)) {
      add(active, s.num_rows - 1, s.num_rows);
    }
    count(s, mode, active, plan);
    plan.spans.push_back({offset, std::move(active)});
    offset += s.num_rows;
  }
  return plan;
}

}  // namespace rk::kv
