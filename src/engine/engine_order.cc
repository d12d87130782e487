// `order: any`: documents that stand side by side are put into the order that fits best what is
// stored. The choice is engine/order.h's.
#include <algorithm>
#include <map>
#include <numeric>

#include "engine/engine.h"
#include "engine/order.h"

namespace rk::engine {

// What is stored of the documents of one group, and how each would fit behind others of them.
class Engine::OrderFits {
 public:
  OrderFits(const Engine& engine, const Request& request, std::span<const int32_t> lead,
            std::vector<int32_t> before, std::span<const PromptSpan* const> documents)
      : engine_(engine),
        splicing_(splices(request.mode)),
        all_global_(engine.plan_.all_global()),
        documents_(documents),
        group_begin_(before.size()),
        ids_(std::move(before)) {
    if (engine.reusing(request.mode)) root_ = engine.root_of(request);
    for (const PromptSpan* document : documents) {
      variants_.push_back(engine.segments_.find(
          engine.document_key(request, lead, document->tokens), document->tokens));
      names_.push_back(context_digest(document->tokens));
    }
    covered_ = covers({});
  }

  PlaceFit operator()(std::span<const int> before, int next) {
    follow(before);
    const auto d = static_cast<size_t>(next);
    if (covered_ && covers(documents_[d]->tokens)) return PlaceFit::kExact;
    PlaceFit best = PlaceFit::kNone;
    for (const auto& variant : variants_[d]) {
      const kv::SegmentContext& context = variant->context;
      if (context.num_companies > 1) continue;
      if (all_global_ && context.exact &&
          variant->computed_at == static_cast<int32_t>(ids_.size()) &&
          context.before == whole_context()) {
        return PlaceFit::kExact;
      }
      if (splicing_ && !before.empty() &&
          context.predecessor == names_[static_cast<size_t>(before.back())]) {
        best = PlaceFit::kPredecessor;
      }
    }
    return best;
  }

 private:
  // Chains grow one by one: only what differs from the last one asked about is laid out again.
  void follow(std::span<const int> chain) {
    if (std::ranges::equal(chain, chain_)) return;
    whole_ = {};
    const bool grows = chain.size() == chain_.size() + 1 &&
                       std::equal(chain_.begin(), chain_.end(), chain.begin());
    size_t from = chain_.size();
    if (!grows) {
      ids_.resize(group_begin_);
      covered_ = covers({});
      from = 0;
    }
    for (size_t i = from; i < chain.size(); ++i) {
      const auto& tokens = documents_[static_cast<size_t>(chain[i])]->tokens;
      covered_ = covered_ && covers(tokens);
      ids_.insert(ids_.end(), tokens.begin(), tokens.end());
    }
    chain_.assign(chain.begin(), chain.end());
  }

  // The prefix tree holds everything up to here and `more`.
  bool covers(std::span<const int32_t> more) {
    if (root_.empty()) return false;
    const size_t size = ids_.size();
    ids_.insert(ids_.end(), more.begin(), more.end());
    const auto match = engine_.prefixes_.peek(root_, ids_);
    const bool all = match.num_tokens == static_cast<int64_t>(ids_.size());
    ids_.resize(size);
    return all;
  }

  const kv::Digest& whole_context() {
    if (whole_ == kv::Digest()) whole_ = context_digest(ids_);
    return whole_;
  }

  const Engine& engine_;
  const bool splicing_, all_global_;
  const std::span<const PromptSpan* const> documents_;
  const size_t group_begin_;
  std::string root_;  ///< of the prefix tree; empty where this request takes nothing from it
  std::vector<std::vector<kv::SegmentStore::Variant>> variants_;
  std::vector<kv::Digest> names_;
  std::vector<int32_t> ids_;  ///< all before the group, then the chain
  std::vector<int> chain_;
  kv::Digest whole_;      ///< of ids_, once it was asked for
  bool covered_ = false;  ///< the tree holds all of ids_
};

std::vector<int> Engine::order_documents(Request& request) const {
  std::erase_if(request.spans, [](const PromptSpan& span) { return span.tokens.empty(); });
  const auto& given = request.spans;
  const auto num = std::ranges::count_if(given, [](const PromptSpan& s) { return s.segment; });
  std::vector<int> order(static_cast<size_t>(num));
  std::iota(order.begin(), order.end(), 0);
  const bool reuses = request.mode != Mode::kDense && request.mode != Mode::kNone;
  if (!reuses || !request.cache_read) return order;
  std::vector<int32_t> before, lead;
  std::vector<PromptSpan> spans;
  size_t done = 0;  // documents
  for (size_t i = 0; i < given.size();) {
    if (!given[i].segment) {
      before.insert(before.end(), given[i].tokens.begin(), given[i].tokens.end());
      spans.push_back(given[i++]);
      continue;
    }
    if (done == 0) lead = before;
    std::vector<const PromptSpan*> group;
    std::vector<int32_t> num_rows;
    for (; i < given.size() && given[i].segment; ++i) {
      group.push_back(&given[i]);
      num_rows.push_back(static_cast<int32_t>(given[i].tokens.size()));
    }
    OrderFits fits(*this, request, lead, before, group);
    const std::vector<int> best = best_order(
        num_rows, [&](std::span<const int> chain, int next) { return fits(chain, next); });
    for (size_t k = 0; k < best.size(); ++k) {
      const PromptSpan& span = *group[static_cast<size_t>(best[k])];
      order[done + k] = static_cast<int>(done) + best[k];
      before.insert(before.end(), span.tokens.begin(), span.tokens.end());
      spans.push_back(span);
    }
    done += best.size();
  }
  request.spans = std::move(spans);
  return order;
}

}  // namespace rk::engine
