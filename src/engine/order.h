// In which order documents fit best what is stored (`order: any`). Pure: knows no store, only how
// well a document would fit behind others.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace rk::engine {

enum class PlaceFit { kNone, kPredecessor, kExact };
/// How document `next` would fit directly behind the documents `before`, in that order.
using PlaceFitFn = std::function<PlaceFit(std::span<const int> before, int next)>;

constexpr size_t kMaxOrderedDocuments = 256;  ///< more keep their order

/// The order in which most rows are exact or fit their predecessor, then most are exact, then the
/// given one. `num_rows`: of each document. From every first document on (beyond 32: from the best
/// fitting one) the best fitting next one is taken. Equal fits keep the given order, so nothing
/// stored changes nothing.
std::vector<int> best_order(std::span<const int32_t> num_rows, const PlaceFitFn& fit);

}  // namespace rk::engine
