#include "rag/measured_card.h"

#include <algorithm>
#include <set>

#include "engine/gate.h"
#include "rag/mode_spec.h"
#include "rag/tasks.h"

namespace rk::rag {
namespace {

constexpr int kLeastDocuments = 2;

std::string field(const Fields& fields, const char* name) {
  for (const auto& [key, value] : fields) {
    if (key == name) return value;
  }
  return "";
}

// A measurement speaks for easier prompts too: shorter ones down to the next length that the same
// kind of data was measured at (half of the least), and fewer documents. Divergence grows with both
// (docs/bench-rag.md). Data without planted facts can only forbid (engine/gate.h), so it speaks as
// far as the next entry with facts does.
void cover_easier(engine::Card& card) {
  const std::vector<engine::CardEntry> measured = card.entries;
  for (engine::CardEntry& e : card.entries) {
    const bool facts = e.needle_n > 0;
    int64_t shorter = 0;
    const engine::CardEntry* next = nullptr;
    for (const engine::CardEntry& other : measured) {
      if (engine::setting_of(e) != engine::setting_of(other)) continue;
      const bool speaks = other.needle_n > 0;
      if (speaks == facts && other.max_tokens < e.min_tokens) {
        shorter = std::max(shorter, other.max_tokens);
      }
      if (speaks && other.max_tokens >= e.max_tokens &&
          (next == nullptr || other.max_tokens < next->max_tokens)) {
        next = &other;
      }
    }
    if (!facts && next != nullptr) {
      e.max_tokens = next->max_tokens;
      e.max_documents = std::max(e.max_documents, next->max_documents);
    }
    e.min_tokens = shorter > 0 ? shorter + 1 : e.min_tokens / 2;
    e.min_documents = std::min(e.min_documents, kLeastDocuments);
  }
}

// The range that the group's samples cover.
void set_range(const std::vector<const SampleResult*>& results, const Group& g,
               engine::CardEntry& entry) {
  bool first = true;
  std::set<std::string> tasks;
  for (const SampleResult* r : results) {
    if (r->length_tokens != g.length_tokens) continue;
    if (g.task == kAllTasks ? r->task == kDataTask : r->task != g.task) continue;
    if (r->find(g.mode) == nullptr) continue;
    const auto documents = static_cast<int>(r->num_documents);
    entry.min_tokens = first ? r->prompt_tokens : std::min(entry.min_tokens, r->prompt_tokens);
    entry.max_tokens = std::max(entry.max_tokens, r->prompt_tokens);
    entry.min_documents = first ? documents : std::min(entry.min_documents, documents);
    entry.max_documents = std::max(entry.max_documents, documents);
    tasks.insert(r->task);
    first = false;
  }
  for (const std::string& task : tasks) entry.data += cat(entry.data.empty() ? "" : ", ", task);
  if (g.num_samples < kPublishedSamples) entry.data += " (exploratory)";
}

double ratio(double part, double whole, double otherwise) {
  return whole > 0 ? part / whole : otherwise;
}

}  // namespace

engine::Card measured_card(const Summary& summary, const std::vector<const SampleResult*>& results,
                           const engine::CardIdentity& identity, engine::Fit fit) {
  engine::Card card;
  card.model = field(summary.configuration.fields, "model");
  card.weights = identity.weights;
  card.plan = identity.plan;
  card.kv_dtype = identity.kv_dtype;
  card.provenance = cat("commit ", field(summary.configuration.fields, "commit"), "; ",
                        field(summary.provenance, "command"));
  std::set<int64_t> several_tasks;  // lengths with a group over all generated tasks
  for (const Group& g : summary.groups) {
    if (g.task == kAllTasks) several_tasks.insert(g.length_tokens);
  }
  for (const Group& g : summary.groups) {
    const auto spec = parse_mode_spec(g.mode);
    const bool whole =
        g.task == kAllTasks || g.task == kDataTask || several_tasks.count(g.length_tokens) == 0;
    if (!whole || !spec.ok() || !g.kl) continue;
    engine::Request request;
    spec->apply(request);
    const bool exact =
        request.mode == engine::Mode::kDense || request.mode == engine::Mode::kPrefix;
    if (exact || !engine::fits_on_card(request.mode)) continue;
    engine::CardEntry e;
    const engine::Setting measured = engine::setting_of(request);
    e.mode = measured.mode;
    e.ratio = measured.ratio;
    e.boundary_rows = measured.boundary_rows;
    e.select = measured.select;
    e.fit = fit;
    e.low_precision = identity.low_precision;
    set_range(results, g, e);
    e.n = g.num_samples;
    e.mode_score = g.score.value;
    e.dense_score = std::clamp(g.score.value - g.score_diff.value, 0.0, 1.0);
    e.retained_low =
        std::max(0.0, ratio(e.dense_score + g.score_diff.interval.low, e.dense_score, 1));
    e.retained_high = std::max(e.retained_low,
                               ratio(e.dense_score + g.score_diff.interval.high, e.dense_score, 1));
    e.mean_kl = g.kl->value;
    e.kl_high = std::max(g.kl->value, g.kl->interval.high);
    e.p95_kl = g.kl_p95.value_or(e.kl_high);
    e.top1 = g.same_top1.value_or(0);
    e.agreement = g.same_answer;
    e.needle_n = g.needle_found;
    e.needle_lost = g.needle_lost;
    e.needle_loss_high = g.needle_loss_bound.value_or(1);
    e.length_ratio = g.length_ratio.value_or(1);
    e.ttft_ratio = ratio(1, g.speedup.value, 1);
    card.entries.push_back(std::move(e));
  }
  cover_easier(card);
  return card;
}

}  // namespace rk::rag
