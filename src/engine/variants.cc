#include "engine/variants.h"

#include <algorithm>

namespace rk::engine {
namespace {

constexpr size_t kMaxPairs = 4096;  // remembered; a pair that does not recur soon is forgotten
constexpr size_t kMaxJobs = 64;
constexpr size_t kCutTokens = 64;

Fit fit_of(const kv::SegmentContext& context, const DocumentPlace& place) {
  if (place.predecessor != kv::Digest() && context.predecessor == place.predecessor) {
    return Fit::kPredecessor;
  }
  if (context.num_companies == 0) return Fit::kLead;
  return context.num_companies == 1 ? Fit::kCompany : Fit::kMean;
}

kv::Digest pair_of(const VariantJob& job) {
  kv::IdentityBuilder pair("pair");
  pair.add("namespace", job.cache_namespace).add("lead", std::span<const int32_t>(job.lead));
  pair.add("company", std::span<const int32_t>(job.company));
  pair.add("document", std::span<const int32_t>(job.document));
  return pair.finish();
}

}  // namespace

VariantChoice choose_variant(std::span<const kv::SegmentContext> stored,
                             const DocumentPlace& place) {
  VariantChoice best;
  for (size_t i = 0; i < stored.size(); ++i) {
    const kv::SegmentContext& context = stored[i];
    VariantChoice one{static_cast<int>(i), fit_of(context, place)};
    one.whole = context.num_companies < 2 && context.before == place.before;
    one.exact = one.whole && context.exact && place.can_be_exact;
    if (one.whole) one.fit = Fit::kPredecessor;
    const auto better = [&] {
      if (best.index < 0) return true;
      if (one.exact != best.exact) return one.exact;
      if (one.whole != best.whole) return one.whole;
      return one.fit < best.fit;
    };
    if (better()) best = one;
  }
  return best;
}

kv::Digest context_digest(std::span<const int32_t> ids) {
  kv::IdentityBuilder context("context");
  context.add("ids", ids);
  return context.finish();
}

kv::Digest mean_digest(std::span<const kv::Digest> contexts) {
  kv::IdentityBuilder mean("mean of contexts");
  for (const kv::Digest& context : contexts) mean.add("context", context);
  return mean.finish();
}

std::span<const int32_t> predecessor_ids(const Prompt& prompt, size_t index) {
  for (size_t i = index; i-- > 0;) {
    if (prompt.spans[i].segment)
      return prompt.ids(prompt.spans[i].begin, prompt.spans[index].begin);
  }
  return {};
}

DocumentPlace place_of(const Prompt& prompt, size_t index, bool can_be_exact) {
  DocumentPlace place;
  place.before = context_digest(prompt.ids(0, prompt.spans[index].begin));
  const auto predecessor = predecessor_ids(prompt, index);
  if (!predecessor.empty()) place.predecessor = context_digest(predecessor);
  place.can_be_exact = can_be_exact;
  return place;
}

Fit asked_fit(const Request& request) {
  if (request.company.empty()) return Fit::kLead;
  return request.company_pieces > 1 ? Fit::kMean : Fit::kCompany;
}

std::vector<std::vector<int32_t>> companies_of(const Request& request, int64_t room) {
  const auto pieces = static_cast<size_t>(std::max(1, request.company_pieces));
  const size_t length = request.company.size() / pieces;
  auto taken = std::min(length, static_cast<size_t>(std::max<int64_t>(room, 0)));
  // Documents of about the same length shall share one company.
  if (taken < length && taken > kCutTokens) taken -= taken % kCutTokens;
  std::vector<std::vector<int32_t>> out;
  for (size_t i = 0; i < pieces && taken > 0; ++i) {
    const auto end = request.company.begin() + static_cast<std::ptrdiff_t>((i + 1) * length);
    out.emplace_back(end - static_cast<std::ptrdiff_t>(taken), end);
  }
  return out;
}

void PredecessorQueue::seen(VariantJob job) {
  const kv::Digest pair = pair_of(job);
  const auto [it, first] = counts_.try_emplace(pair, 0);
  if (first) {
    order_.push_back(pair);
    if (order_.size() > kMaxPairs) {
      counts_.erase(order_.front());
      order_.pop_front();
    }
  }
  if (++it->second < 2) return;
  const auto same = [&](const Queued& queued) { return queued.pair == pair; };
  if (std::any_of(jobs_.begin(), jobs_.end(), same)) return;
  jobs_.push_back({pair, std::move(job)});
  if (jobs_.size() > kMaxJobs) jobs_.pop_front();
}

std::optional<VariantJob> PredecessorQueue::next() {
  if (jobs_.empty()) return std::nullopt;
  VariantJob job = std::move(jobs_.front().job);
  jobs_.pop_front();
  return job;
}

void PredecessorQueue::clear() {
  counts_.clear();
  order_.clear();
  jobs_.clear();
}

}  // namespace rk::engine
