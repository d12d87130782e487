// The rows that `selective` and its rivals recompute: each mode scores the documents' rows in its
// own way, then one pure choice is made (kv/select_rows.h).
#include <algorithm>

#include "base/clock.h"
#include "base/split_mix.h"
#include "engine/engine.h"
#include "kv/select_rows.h"

namespace rk::engine {
namespace {

std::vector<kv::SelectSpan> candidates(const Prompt& prompt, const Available& available) {
  std::vector<kv::SelectSpan> spans;
  for (size_t i = 0; i < prompt.spans.size(); ++i) {
    const Prompt::Span& span = prompt.spans[i];
    spans.push_back(
        {span.end - span.begin, available.segments[i] != nullptr && !available.exact[i]});
  }
  return spans;
}

// One number for the rows of a block, made of the seed, where the block stands and what it says.
std::vector<double> random_scores(const Prompt& prompt, uint64_t seed, int32_t block_rows) {
  std::vector<double> out(prompt.tokens.size());
  for (const Prompt::Span& span : prompt.spans) {
    for (int32_t begin = span.begin; begin < span.end; begin += block_rows) {
      const int32_t end = std::min(begin + block_rows, span.end);
      uint64_t hash = split_mix(split_mix(seed) ^ static_cast<uint64_t>(begin));
      for (const int32_t id : prompt.ids(begin, end))
        hash = split_mix(hash ^ static_cast<uint64_t>(id));
      std::fill(out.begin() + begin, out.begin() + end, static_cast<double>(hash >> 11));
    }
  }
  return out;
}

// Of the rows wanted, what blocks make up. A planted fact wants its whole sentence, prose the rows
// that count wherever they stand (docs/fidelity-runs.md).
double block_share(SelectUnits units) {
  if (units == SelectUnits::kBoth) return 0.5;
  return units == SelectUnits::kBlocks ? 1 : 0;
}

}  // namespace

// CacheBlend's score: all rows run through the first layers as dense would run them, in a sequence
// of their own that holds no others. Both sides of the comparison lie in one frame.
Result<std::vector<double>> Engine::deviation(const Available& available, const CancelFn& cancelled,
                                              const Prompt& prompt) {
  const auto& c = decoder_->config();
  const int layer = std::min(kDeviationLayer, c.num_layers - 1);
  const std::vector<kv::SelectSpan> spans = candidates(prompt, available);
  int32_t last = 0;  // one past the last row that is scored
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].candidate) last = prompt.spans[i].end;
  }
  auto kv = new_sequence(false, layer + 1);
  RK_TRY(Assembly assembly, assemble(prompt, {Mode::kPrefix}, available, *kv));
  std::vector<int32_t>& active = assembly.active;
  active.erase(std::lower_bound(active.begin(), active.end(), last), active.end());
  RK_RETURN_IF_ERROR(make_room_for(*kv, active));
  std::vector<float> no_logits;
  RK_RETURN_IF_ERROR(run_rows(*kv, prompt.tokens, active, active.size(), cancelled, no_logits));
  std::vector<double> out(prompt.tokens.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    if (!spans[i].candidate) continue;
    const int32_t begin = prompt.spans[i].begin, first_page = kv->entry(begin);
    for (int g = 0; g < c.num_kv_heads; ++g) {
      const int head = layer * c.num_kv_heads + g;
      const auto& stored = available.rows[i]->pages(head);
      const auto now = kv->pages(static_cast<size_t>(head))
                           .subspan(static_cast<size_t>(first_page), stored.size());
      const auto before = decoder_->read_pages(*pool_, stored);
      RK_RETURN_IF_ERROR(note_failure(before.status()));
      const auto after = decoder_->read_pages(*pool_, now);
      RK_RETURN_IF_ERROR(note_failure(after.status()));
      const auto dim = static_cast<size_t>(c.head_dim);
      for (int32_t row = 0; row < spans[i].num_rows; ++row) {
        double& sum = out[static_cast<size_t>(begin + row)];
        for (size_t d = static_cast<size_t>(row) * dim; d < (static_cast<size_t>(row) + 1) * dim;
             ++d) {
          const double k = after->k[d] - before->k[d], v = after->v[d] - before->v[d];
          sum += k * k + v * v;
        }
      }
    }
  }
  return out;
}

// A `reuse` pass in a sequence of its own: nothing that it computes is kept.
Result<std::vector<double>> Engine::probe(const Request& request, const Available& available,
                                          const CancelFn& cancelled, const Prompt& prompt) {
  const kv::RowRange query = query_rows(prompt, request.answer_tokens);
  auto kv = new_sequence(false);
  RK_TRY(Assembly assembly, assemble(prompt, {Mode::kReuse}, available, *kv));
  std::vector<int32_t>& active = assembly.active;
  active.erase(std::lower_bound(active.begin(), active.end(), query.end), active.end());
  RK_RETURN_IF_ERROR(make_room_for(*kv, active));
  std::vector<double> mass(prompt.tokens.size());
  const model::ScoreSink scores{query.begin, mass};
  std::vector<float> no_logits;
  RK_RETURN_IF_ERROR(run_rows(*kv, prompt.tokens, active, active.size(), cancelled, no_logits,
                              {.scores = &scores}));
  return mass;
}

Result<std::vector<double>> Engine::score_rows(const Request& request, const Available& available,
                                               const CancelFn& cancelled, const Prompt& prompt) {
  switch (request.mode) {
    case Mode::kRandom:
      return random_scores(prompt, request.sampling.seed,
                           request.select == SelectUnits::kRows ? 1 : kv::kSelectBlockRows);
    case Mode::kCacheblend:
      return deviation(available, cancelled, prompt);
    default:
      return probe(request, available, cancelled, prompt);
  }
}

void Engine::prepare_redknot(const Request& request, const Available& available, Run& run) const {
  const auto& c = decoder_->config();
  std::vector<uint8_t> keeps;
  for (int l = 0; l < c.num_layers; ++l) {
    for (int g = 0; g < c.num_kv_heads; ++g) {
      keeps.push_back(plan_.at(l, g).cls == kv::HeadClass::kLocal ? 1 : 0);
    }
  }
  run.kv->keep_stored(std::move(keeps));
  if (request.ffn_threshold >= 1) return;
  run.ffn = {request.ffn_threshold, request.ffn_dense_layers, request.ffn_recent_rows, {}, 0};
  const std::vector<kv::SelectSpan> spans = candidates(run.prompt, available);
  for (size_t i = 0; i < spans.size(); ++i) {
    const Prompt::Span& span = run.prompt.spans[i];
    if (spans[i].candidate) run.ffn.documents.push_back({span.begin, span.end});
  }
}

Result<Targets> Engine::choose_targets(const Request& request, const Available& available,
                                       const CancelFn& cancelled, Run& run) {
  const std::vector<kv::SelectSpan> spans = candidates(run.prompt, available);
  if (kv::num_candidate_rows(spans) == 0) return Targets(spans.size());
  std::vector<double> scores;
  const double ratio = takes_ratio(run.mode) ? request.selective_ratio : 1;
  if (ratio > 0 && ratio < 1) {
    const double begin_ms = now_ms();
    RK_TRY(scores, score_rows(request, available, cancelled, run.prompt));
    run.probe_ms = now_ms() - begin_ms;
  }
  return kv::select_rows(spans, scores, ratio, block_share(request.select));
}

}  // namespace rk::engine
