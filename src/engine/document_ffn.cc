#include "engine/document_ffn.h"

#include <algorithm>

namespace rk::engine {

size_t DocumentFfn::cut(std::span<const int32_t> active, size_t begin, size_t end) const {
  if (end >= active.size()) return end;
  for (const kv::RowRange& document : documents) {
    if (document.begin >= active[end] || document.end <= active[end]) continue;
    const auto first = static_cast<size_t>(
        std::lower_bound(active.begin(), active.end(), document.begin) - active.begin());
    return first > begin ? first : end;
  }
  return end;
}

bool DocumentFfn::in_step(std::span<const int32_t> positions, model::SparseFfn& out) {
  const auto row_of = [&](int32_t position) {
    return static_cast<int32_t>(std::lower_bound(positions.begin(), positions.end(), position) -
                                positions.begin());
  };
  out = {threshold, dense_layers, {}, &num_skipped};
  for (const kv::RowRange& document : documents) {
    const int32_t begin = row_of(document.begin), end = row_of(document.end);
    if (begin == end) continue;
    out.stretches.push_back(
        {begin, end,
         std::max(begin, row_of(std::max(document.begin, document.end - recent_rows)))});
  }
  return !out.stretches.empty();
}

}  // namespace rk::engine
