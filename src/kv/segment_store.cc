#include "kv/segment_store.h"

#include <algorithm>

namespace rk::kv {

std::shared_ptr<const Segment> SegmentStore::find(const Digest& key,
                                                  std::span<const int32_t> tokens) {
  const auto it = index_.find(key);
  if (it == index_.end()) return nullptr;
  const auto& segment = it->second->segment;
  if (!std::equal(tokens.begin(), tokens.end(), segment->tokens.begin(), segment->tokens.end())) {
    return nullptr;
  }
  entries_.splice(entries_.begin(), entries_, it->second);
  return segment;
}

void SegmentStore::insert(const Digest& key, std::shared_ptr<const Segment> segment) {
  if (const auto it = index_.find(key); it != index_.end()) {
    num_tokens_ -= static_cast<int64_t>(it->second->segment->tokens.size());
    entries_.erase(it->second);
    index_.erase(it);
  }
  num_tokens_ += static_cast<int64_t>(segment->tokens.size());
  entries_.push_front({key, std::move(segment)});
  index_[key] = entries_.begin();
}

bool SegmentStore::evict_one() {
  for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
    if (it->segment.use_count() > 1) continue;
    num_tokens_ -= static_cast<int64_t>(it->segment->tokens.size());
    index_.erase(it->key);
    entries_.erase(std::next(it).base());
    return true;
  }
  return false;
}

}  // namespace rk::kv
