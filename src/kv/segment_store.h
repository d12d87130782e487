// Documents computed earlier, by content: immutable rows under a 256-bit identity (spec A3). A
// document may be stored several times, computed behind different contexts: its variants. Which of
// them a prompt takes is decided above. The least recently used are forgotten first. Engine thread
// only.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/frame_rows.h"
#include "kv/identity.h"

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
  std::shared_ptr<const FrameRows> rows;  ///< row i belongs to tokens[i]
  int32_t computed_at = 0;                ///< position of row 0 when it was computed
  SegmentContext context;
};

class SegmentStore {
 public:
  using Variant = std::shared_ptr<const Segment>;
  /// `max_variants`: per document, the lead-alone one not counted. Requires: at least 1.
  explicit SegmentStore(int max_variants = 4) : max_variants_(max_variants) {}

  /// The document's variants, the newest first; none where the stored ids differ.
  std::vector<Variant> find(const Digest& document, std::span<const int32_t> tokens) const;
  /// That variant is used now. Nothing where it was forgotten.
  void mark_used(const Digest& document, const Segment* segment);
  /// Replaces the variant of an equal context. Beyond the budget the document's least recently used
  /// other variant is forgotten, never the lead-alone one.
  void insert(const Digest& document, Variant segment);
  /// Forgets the least recently used variant that no request holds; the lead-alone one of a
  /// document only when it is the last that may go. False if there is none.
  bool evict_one();
  int64_t num_segments() const { return static_cast<int64_t>(entries_.size()); }
  int64_t num_documents() const { return static_cast<int64_t>(index_.size()); }
  int64_t num_tokens() const { return num_tokens_; }

 private:
  struct Entry {
    Digest document;
    Variant segment;
  };
  using Entries = std::list<Entry>;
  void erase(Entries::iterator entry);

  int max_variants_;
  Entries entries_;                                                   ///< most recently used first
  std::unordered_map<Digest, std::vector<Entries::iterator>> index_;  ///< oldest first
  int64_t num_tokens_ = 0;
};

}  // namespace rk::kv
