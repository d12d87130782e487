// Documents computed earlier, by content: immutable rows under a 256-bit identity (spec A3). A
// document may be stored several times, computed behind different contexts: its variants. Which of
// them a prompt takes is decided above. The least recently used are forgotten first.
//
// Rows lie in pages, or at rest in fewer bits (kv/quant_rows.h); then the pages that a prompt
// expanded them into are kept here as long as there is room. Engine thread only.
#pragma once

#include <cstdint>
#include <limits>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/frame_rows.h"
#include "kv/identity.h"
#include "kv/quant_rows.h"

namespace rk::kv {

/// What a document was computed behind, by content. Lead and namespace are part of the document's
/// key.
struct SegmentContext {
  Digest before;       ///< all ids before the document; of a mean: those of every company, in order
  Digest predecessor;  ///< ids from the preceding document's first one on; zero where there is
                       ///< none, or a text that is no document
  int num_companies = 0;  ///< 0: the lead alone; several: the mean over so many
  bool exact = false;     ///< its rows are those of a dense pass over `before` and the document
};

/// One document behind one context.
struct Segment {
  std::vector<int32_t> tokens;
  /// Row i belongs to tokens[i]; null where the rows are at rest.
  std::shared_ptr<const FrameRows> rows;
  std::shared_ptr<const QuantRows> at_rest;  ///< the rows where `rows` is null
  int64_t num_bytes = 0;                     ///< of the rows, as they are kept
  int32_t computed_at = 0;                   ///< position of row 0 when it was computed
  SegmentContext context;
};

class SegmentStore {
 public:
  using Variant = std::shared_ptr<const Segment>;
  /// `max_variants`: per document, the lead-alone one not counted; `max_bytes`: of all rows, what a
  /// prompt expanded not counted. Requires: at least 1 each.
  explicit SegmentStore(int max_variants = 4,
                        int64_t max_bytes = std::numeric_limits<int64_t>::max())
      : max_variants_(max_variants), max_bytes_(max_bytes) {}

  /// The document's variants, the newest first; none where the stored ids differ.
  std::vector<Variant> find(const Digest& document, std::span<const int32_t> tokens) const;
  /// That variant is used now. Nothing where it was forgotten.
  void mark_used(const Digest& document, const Segment* segment);
  /// Replaces the variant of an equal context. Beyond the budget the document's least recently used
  /// other variant is forgotten, never the lead-alone one. Beyond `max_bytes` as evict_one() does;
  /// what has no room beside those that requests hold is not kept: false.
  bool insert(const Digest& document, Variant segment);
  /// Forgets the least recently used variant that no request holds; the lead-alone one of a
  /// document only when it is the last that may go. False if there is none.
  bool evict_one();

  /// Pages of rows at rest, kept from an earlier prompt; null where there are none.
  std::shared_ptr<const FrameRows> expanded(const Digest& document, const Segment* segment) const;
  /// Keeps them with that variant. Nothing where it was forgotten.
  void keep_expanded(const Digest& document, const Segment* segment,
                     std::shared_ptr<const FrameRows> rows);
  /// Drops those of the least recently used variant that no request reads; all such. False if there
  /// is none. Nothing is lost: they are made again from the rows at rest.
  bool drop_one_expanded();
  void drop_expanded();

  int64_t num_segments() const { return static_cast<int64_t>(entries_.size()); }
  int64_t num_documents() const { return static_cast<int64_t>(index_.size()); }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_bytes() const { return num_bytes_; }
  int64_t max_bytes() const { return max_bytes_; }

 private:
  struct Entry {
    Digest document;
    Variant segment;
    std::shared_ptr<const FrameRows> expanded = nullptr;
  };
  using Entries = std::list<Entry>;
  void erase(Entries::iterator entry);
  Entries::iterator entry_of(const Digest& document, const Segment* segment) const;
  bool evict_one_but(const Segment* kept);

  int max_variants_;
  int64_t max_bytes_;
  mutable Entries entries_;                                           ///< most recently used first
  std::unordered_map<Digest, std::vector<Entries::iterator>> index_;  ///< oldest first
  int64_t num_tokens_ = 0, num_bytes_ = 0;
};

}  // namespace rk::kv
