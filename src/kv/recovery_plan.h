// Recovery plan: which rows of one request are computed and which keep stored K and V (spec A5),
// and how they are counted (A9). One set of targets serves all layers. Pure; knows no pages, no
// heads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kv/visible.h"

namespace rk::kv {

enum class RecoveryMode {
  kDense,     ///< every row is active; nothing stored is used
  kPrefix,    ///< exact rows are stored, every other row is fresh
  kReuse,     ///< segments keep their stored rows
  kBoundary,  ///< ... but the first k rows of each non-exact segment are active
  kTargets,   ///< ... but the rows given per segment are active (a probe's choice)
};

/// One span of a prompt, in prompt order.
struct PlanSpan {
  int32_t num_rows = 0;
  bool segment = false;     ///< a document with stored rows
  bool exact = false;       ///< those rows are exact: never targets (A3)
  bool ingested = false;    ///< computed for this very request: rows it keeps count as fresh (A3)
  bool relocated = false;   ///< stored at another offset than the one it has here
  int32_t prefix_rows = 0;  ///< first rows held by the prefix cache; only a whole span may precede
  std::span<const RowRange> targets;  ///< kTargets: ascending, disjoint; prefix and exact rows in
                                      ///< them are left out
};

/// Disjoint; the first four sum up to the prompt's tokens.
struct RecoveryCounts {
  int64_t prefix_cached = 0, document_cached = 0, recomputed = 0, fresh = 0;
  int64_t relocated = 0;  ///< within document_cached
  bool operator==(const RecoveryCounts&) const = default;
};

struct RecoveryPlan {
  struct Span {
    int32_t offset = 0;            ///< position of the span's row 0
    std::vector<RowRange> active;  ///< rows of the span to compute: ascending, apart, not empty
  };
  std::vector<Span> spans;  ///< one per span given
  RecoveryCounts counts;
  int64_t num_active = 0;

  /// Positions of all active rows, ascending.
  std::vector<int32_t> positions() const;
};

/// The last row of the prompt is always active, for its logits: where the mode alone would keep it
/// stored, it is computed again (a segment's counts as recomputed, a prefix row as fresh).
/// In kDense and kPrefix computed document rows count as fresh: no segment is recomputed there.
/// `boundary_rows` is kBoundary's k. O(spans + targets).
/// Errors: kInvalidArgument for no rows, negative numbers, a prefix with a hole, bad targets.
Result<RecoveryPlan> plan_recovery(std::span<const PlanSpan> spans, RecoveryMode mode,
                                   int boundary_rows = 0);

}  // namespace rk::kv
