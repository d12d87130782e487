// The rows that `selective` recomputes: a probe of the question's rows over the spliced documents,
// then a pure choice (kv/select_rows.h).
#include <algorithm>

#include "base/clock.h"
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

}  // namespace

// A `reuse` pass in a sequence of its own: nothing that it computes is kept.
Result<std::vector<double>> Engine::probe(const Request& request, const Available& available,
                                          const CancelFn& cancelled, const Prompt& prompt) {
  const kv::RowRange query = query_rows(prompt, request.answer_tokens);
  auto kv = new_sequence(false);
  RK_TRY(Assembly assembly, assemble(prompt, {Mode::kReuse}, available, *kv));
  std::vector<int32_t>& active = assembly.active;
  active.erase(std::lower_bound(active.begin(), active.end(), query.end), active.end());
  RK_RETURN_IF_ERROR(make_room(pages_for(active_room(prompt, active.size()))));
  std::vector<double> mass(prompt.tokens.size());
  const model::ScoreSink scores{query.begin, mass};
  std::vector<float> no_logits;
  RK_RETURN_IF_ERROR(
      run_rows(*kv, prompt.tokens, active, active.size(), cancelled, no_logits, nullptr, &scores));
  return mass;
}

Result<Targets> Engine::choose_targets(const Request& request, const Available& available,
                                       const CancelFn& cancelled, Run& run) {
  const std::vector<kv::SelectSpan> spans = candidates(run.prompt, available);
  if (kv::num_candidate_rows(spans) == 0) return Targets(spans.size());
  std::vector<double> scores;
  if (request.selective_ratio > 0 && request.selective_ratio < 1) {
    const double begin_ms = now_ms();
    RK_TRY(scores, probe(request, available, cancelled, run.prompt));
    run.probe_ms = now_ms() - begin_ms;
  }
  return kv::select_rows(spans, scores, request.selective_ratio,
                         request.select_rows ? 1 : kv::kSelectBlockRows);
}

}  // namespace rk::engine
