#include "kv/segment_store.h"

#include <algorithm>

#include "base/check.h"

namespace rk::kv {
namespace {

bool lead_alone(const Segment& segment) { return segment.context.num_companies == 0; }

}  // namespace

std::vector<SegmentStore::Variant> SegmentStore::find(const Digest& document,
                                                      std::span<const int32_t> tokens) const {
  std::vector<Variant> out;
  const auto it = index_.find(document);
  if (it == index_.end()) return out;
  for (size_t i = it->second.size(); i-- > 0;) {
    const Variant& segment = it->second[i]->segment;
    if (std::ranges::equal(tokens, segment->tokens)) out.push_back(segment);
  }
  return out;
}

SegmentStore::Entries::iterator SegmentStore::entry_of(const Digest& document,
                                                       const Segment* segment) const {
  const auto it = index_.find(document);
  if (it == index_.end()) return entries_.end();
  for (const auto entry : it->second) {
    if (entry->segment.get() == segment) return entry;
  }
  return entries_.end();
}

void SegmentStore::mark_used(const Digest& document, const Segment* segment) {
  const auto entry = entry_of(document, segment);
  if (entry != entries_.end()) entries_.splice(entries_.begin(), entries_, entry);
}

std::shared_ptr<const FrameRows> SegmentStore::expanded(const Digest& document,
                                                        const Segment* segment) const {
  const auto entry = entry_of(document, segment);
  return entry == entries_.end() ? nullptr : entry->expanded;
}

void SegmentStore::keep_expanded(const Digest& document, const Segment* segment,
                                 std::shared_ptr<const FrameRows> rows) {
  const auto entry = entry_of(document, segment);
  if (entry != entries_.end()) entry->expanded = std::move(rows);
}

bool SegmentStore::drop_one_expanded() {
  for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
    if (it->expanded == nullptr || it->expanded.use_count() > 1) continue;
    it->expanded.reset();
    return true;
  }
  return false;
}

void SegmentStore::drop_expanded() {
  while (drop_one_expanded()) {
  }
}

void SegmentStore::erase(Entries::iterator entry) {
  const auto it = index_.find(entry->document);
  RK_CHECK(it != index_.end());
  std::erase(it->second, entry);
  if (it->second.empty()) index_.erase(it);
  num_tokens_ -= static_cast<int64_t>(entry->segment->tokens.size());
  num_bytes_ -= entry->segment->num_bytes;
  entries_.erase(entry);
}

bool SegmentStore::insert(const Digest& document, Variant segment) {
  if (const auto it = index_.find(document); it != index_.end()) {
    for (const auto entry : std::vector(it->second)) {
      const Segment& old = *entry->segment;
      if (old.context.before == segment->context.before || old.tokens != segment->tokens) {
        erase(entry);
      }
    }
  }
  num_tokens_ += static_cast<int64_t>(segment->tokens.size());
  num_bytes_ += segment->num_bytes;
  const Segment* added = segment.get();
  entries_.push_front({document, std::move(segment)});
  auto& variants = index_[document];
  variants.push_back(entries_.begin());
  const auto counted = std::count_if(variants.begin(), variants.end(),
                                     [](const auto entry) { return !lead_alone(*entry->segment); });
  for (auto entry = std::prev(entries_.end()); counted > max_variants_ && entry != entries_.begin();
       --entry) {
    if (entry->document != document || lead_alone(*entry->segment)) continue;
    erase(entry);
    break;
  }
  while (num_bytes_ > max_bytes_ && evict_one_but(added)) {
  }
  if (num_bytes_ <= max_bytes_) return true;
  erase(entries_.begin());
  return false;
}

bool SegmentStore::evict_one() { return evict_one_but(nullptr); }

bool SegmentStore::evict_one_but(const Segment* kept_one) {
  for (const bool last_resort : {false, true}) {
    for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
      if (it->segment.use_count() > 1 || it->segment.get() == kept_one) continue;
      const bool kept = lead_alone(*it->segment) && index_.at(it->document).size() > 1;
      if (kept && !last_resort) continue;
      erase(std::next(it).base());
      return true;
    }
  }
  return false;
}

}  // namespace rk::kv
