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

void SegmentStore::mark_used(const Digest& document, const Segment* segment) {
  const auto it = index_.find(document);
  if (it == index_.end()) return;
  for (const auto entry : it->second) {
    if (entry->segment.get() == segment) entries_.splice(entries_.begin(), entries_, entry);
  }
}

void SegmentStore::erase(Entries::iterator entry) {
  const auto it = index_.find(entry->document);
  RK_CHECK(it != index_.end());
  std::erase(it->second, entry);
  if (it->second.empty()) index_.erase(it);
  num_tokens_ -= static_cast<int64_t>(entry->segment->tokens.size());
  entries_.erase(entry);
}

void SegmentStore::insert(const Digest& document, Variant segment) {
  if (const auto it = index_.find(document); it != index_.end()) {
    for (const auto entry : std::vector(it->second)) {
      const Segment& old = *entry->segment;
      if (old.context.before == segment->context.before || old.tokens != segment->tokens) {
        erase(entry);
      }
    }
  }
  num_tokens_ += static_cast<int64_t>(segment->tokens.size());
  entries_.push_front({document, std::move(segment)});
  auto& variants = index_[document];
  variants.push_back(entries_.begin());
  const auto counted = std::count_if(variants.begin(), variants.end(),
                                     [](const auto entry) { return !lead_alone(*entry->segment); });
  if (counted <= max_variants_) return;
  for (auto entry = std::prev(entries_.end()); entry != entries_.begin(); --entry) {
    if (entry->document != document || lead_alone(*entry->segment)) continue;
    return erase(entry);
  }
}

bool SegmentStore::evict_one() {
  for (const bool last_resort : {false, true}) {
    for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
      if (it->segment.use_count() > 1) continue;
      const bool kept = lead_alone(*it->segment) && index_.at(it->document).size() > 1;
      if (kept && !last_resort) continue;
      erase(std::next(it).base());
      return true;
    }
  }
  return false;
}

}  // namespace rk::kv
