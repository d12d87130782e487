#include "model/sparse_ffn.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rk::model {

std::vector<int32_t> select_ffn_rows(std::span<const double> importance, double threshold,
                                     int64_t num_recent) {
  const auto size = static_cast<int64_t>(importance.size());
  std::vector<int32_t> rows(importance.size());
  std::iota(rows.begin(), rows.end(), 0);
  const double sum = std::accumulate(importance.begin(), importance.end(), 0.0);
  if (threshold >= 1 || !(sum > 0) || !std::isfinite(sum)) return rows;
  std::ranges::stable_sort(rows, std::greater(),
                           [&](int32_t i) { return importance[static_cast<size_t>(i)]; });
  size_t taken = 0;
  for (double mass = 0; taken < rows.size() && mass / sum < threshold; ++taken) {
    mass += importance[static_cast<size_t>(rows[taken])];
  }
  rows.resize(taken);
  const auto recent = static_cast<int32_t>(std::max<int64_t>(0, size - num_recent));
  std::erase_if(rows, [&](int32_t i) { return i >= recent; });
  std::ranges::sort(rows);
  for (int32_t i = recent; i < size; ++i) rows.push_back(i);
  return rows;
}

std::vector<int32_t> ffn_rows(const SparseFfn& sparse, std::span<const double> importance) {
  std::vector<int32_t> out;
  int32_t at = 0;
  const auto all_up_to = [&](int32_t end) {
    for (; at < end; ++at) out.push_back(at);
  };
  for (const FfnStretch& s : sparse.stretches) {
    all_up_to(s.begin);
    const auto part =
        importance.subspan(static_cast<size_t>(s.begin), static_cast<size_t>(s.end - s.begin));
    for (const int32_t i : select_ffn_rows(part, sparse.threshold, s.end - s.kept_begin)) {
      out.push_back(s.begin + i);
    }
    at = s.end;
  }
  all_up_to(static_cast<int32_t>(importance.size()));
  return out;
}

}  // namespace rk::model
