// Which stored variant of a document a prompt takes, and which variants are worth making (spec A3).
// Pure bookkeeping: knows no rows, runs no model.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/assembly.h"
#include "engine/card.h"
#include "kv/identity.h"
#include "kv/segment_store.h"

namespace rk::engine {

/// Where a document stands in a prompt, by content, as SegmentContext names it.
struct DocumentPlace {
  kv::Digest before;       ///< all ids before it
  kv::Digest predecessor;  ///< from the preceding document's first id to it; zero for the first one
  bool can_be_exact = true;  ///< false where the plan's rows would see less than stored ones did
};

struct VariantChoice {
  int index = -1;        ///< into what was given; -1: nothing fits
  Fit fit = Fit::kLead;  ///< a full match that is not exact counts as kPredecessor
  bool whole = false;    ///< its context is all that stands before the document
  bool exact = false;    ///< whole, and its rows are what dense computes there
};

/// The best fit, in spec A3's order: the whole context; the same preceding document; a mean over
/// companies; one company; the lead alone. The first of equal ones is taken, so give the newest
/// first. All of `stored` share the document's ids, namespace and lead.
VariantChoice choose_variant(std::span<const kv::SegmentContext> stored,
                             const DocumentPlace& place);

/// What one company's context is called in SegmentContext::before.
kv::Digest context_digest(std::span<const int32_t> ids);
/// ... and the ordered list of several.
kv::Digest mean_digest(std::span<const kv::Digest> contexts);

/// Ids from the first one of the document before span `index` to that span; empty where there is
/// none.
std::span<const int32_t> predecessor_ids(const Prompt& prompt, size_t index);
DocumentPlace place_of(const Prompt& prompt, size_t index, bool can_be_exact);

constexpr int kMaxCompanyPieces = 64;
/// The fit of a document that a request has computed.
Fit asked_fit(const Request& request);
/// The companies that a request wants for a document, at most `room` tokens each (the last ones of
/// each piece, next to the document); none: the lead alone.
std::vector<std::vector<int32_t>> companies_of(const Request& request, int64_t room);

/// A document to be computed behind the lead and the document that precedes it.
struct VariantJob {
  std::string cache_namespace;
  std::vector<int32_t> lead, company, document;
};

/// Remembers which document stood before which, and what to compute once that recurs.
class PredecessorQueue {
 public:
  /// A prompt had this pair, and no variant for it. The second time it is queued.
  void seen(VariantJob job);
  std::optional<VariantJob> next();
  bool empty() const { return jobs_.empty(); }
  void clear();

 private:
  struct Queued {
    kv::Digest pair;
    VariantJob job;
  };
  std::unordered_map<kv::Digest, int> counts_;
  std::deque<kv::Digest> order_;  ///< of counts_, oldest first
  std::deque<Queued> jobs_;
};

}  // namespace rk::engine
