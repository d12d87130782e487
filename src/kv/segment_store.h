// Documents computed earlier, by content: immutable rows under a 256-bit identity (spec A3), the
// least recently used forgotten first. A hit compares the ids too. Engine thread only.
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

/// One document behind one context.
struct Segment {
  std::vector<int32_t> tokens;
  std::shared_ptr<const FrameRows> rows;  ///< row i belongs to tokens[i]
  int32_t computed_at = 0;                ///< position of row 0 when it was computed
};

class SegmentStore {
 public:
  /// Null where absent, or where the stored ids differ. Marks it as used now.
  std::shared_ptr<const Segment> find(const Digest& key, std::span<const int32_t> tokens);
  /// Replaces what the key named before.
  void insert(const Digest& key, std::shared_ptr<const Segment> segment);
  /// Forgets the least recently used segment that no request holds; false if there is none.
  bool evict_one();
  int64_t num_segments() const { return static_cast<int64_t>(index_.size()); }
  int64_t num_tokens() const { return num_tokens_; }

 private:
  struct Entry {
    Digest key;
    std::shared_ptr<const Segment> segment;
  };
  std::list<Entry> entries_;  ///< most recently used first
  std::unordered_map<Digest, std::list<Entry>::iterator> index_;
  int64_t num_tokens_ = 0;
};

}  // namespace rk::kv
