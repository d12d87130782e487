#include "engine/order.h"

#include <numeric>
#include <tuple>

namespace rk::engine {
namespace {

constexpr size_t kMaxTriedStarts = 32;

struct Chain {
  std::vector<int> order;
  int64_t fitting = 0, exact = 0;  ///< rows
  bool better_than(const Chain& other) const {
    return std::tie(fitting, exact) > std::tie(other.fitting, other.exact);
  }
};

// The best fitting document not taken yet, the first of equal ones.
int next_of(std::span<const int> chain, const std::vector<bool>& taken, const PlaceFitFn& fit) {
  int best = -1;
  PlaceFit best_fit = PlaceFit::kNone;
  for (size_t i = 0; i < taken.size(); ++i) {
    if (taken[i]) continue;
    const PlaceFit one = fit(chain, static_cast<int>(i));
    if (best >= 0 && one <= best_fit) continue;
    best = static_cast<int>(i);
    best_fit = one;
    if (one == PlaceFit::kExact) break;
  }
  return best;
}

Chain chain_from(int first, std::span<const int32_t> num_rows, const PlaceFitFn& fit) {
  Chain chain;
  std::vector<bool> taken(num_rows.size());
  while (chain.order.size() < num_rows.size()) {
    const int next = chain.order.empty() ? first : next_of(chain.order, taken, fit);
    const PlaceFit how = fit(chain.order, next);
    const int64_t rows = num_rows[static_cast<size_t>(next)];
    chain.fitting += how == PlaceFit::kNone ? 0 : rows;
    chain.exact += how == PlaceFit::kExact ? rows : 0;
    taken[static_cast<size_t>(next)] = true;
    chain.order.push_back(next);
  }
  return chain;
}

}  // namespace

std::vector<int> best_order(std::span<const int32_t> num_rows, const PlaceFitFn& fit) {
  const size_t n = num_rows.size();
  Chain best;
  best.order.resize(n);
  std::iota(best.order.begin(), best.order.end(), 0);
  if (n < 2 || n > kMaxOrderedDocuments) return best.order;
  for (size_t i = 0; i < n; ++i) {  // what the given order is worth
    const PlaceFit how = fit(std::span(best.order).first(i), static_cast<int>(i));
    best.fitting += how == PlaceFit::kNone ? 0 : num_rows[i];
    best.exact += how == PlaceFit::kExact ? num_rows[i] : 0;
  }
  if (n > kMaxTriedStarts) {
    Chain one = chain_from(next_of({}, std::vector<bool>(n), fit), num_rows, fit);
    return one.better_than(best) ? one.order : best.order;
  }
  for (size_t first = 0; first < n; ++first) {
    Chain one = chain_from(static_cast<int>(first), num_rows, fit);
    if (one.better_than(best)) best = std::move(one);
  }
  return best.order;
}

}  // namespace rk::engine
