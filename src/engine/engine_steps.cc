// Active rows through the decoder, in steps of what it takes at once.
#include <algorithm>

#include "engine/engine.h"

namespace rk::engine {

Status Engine::note_failure(Status status) {
  if (status.code() != Code::kInternal) return status;
  const std::lock_guard lock(failure_mutex_);
  failure_ = unavailable("the engine stopped after a failure of its device: ", status.message());
  return status;
}

Status Engine::run_rows(kv::SequenceKv& kv, std::span<const int32_t> tokens,
                        std::span<const int32_t> active, size_t first_logits,
                        const CancelFn& cancelled, std::vector<float>& logits,
                        const StepExtras& extras) {
  const auto step_rows = static_cast<size_t>(decoder_->max_step_rows());
  std::vector<int32_t> ids, wanted;
  const auto logits_rows = static_cast<size_t>(decoder_->max_logits_rows());
  for (size_t begin = 0, end = 0; begin < active.size(); begin = end) {
    if (cancelled && cancelled()) return rk::cancelled("request cancelled");
    end = std::min(begin + step_rows, active.size());
    if (extras.ffn != nullptr) end = extras.ffn->cut(active, begin, end);
    if (end > first_logits) end = std::min(end, std::max(begin, first_logits) + logits_rows);
    const auto rows = active.subspan(begin, end - begin);
    ids.clear();
    wanted.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      ids.push_back(tokens[static_cast<size_t>(rows[i])]);
      if (begin + i >= first_logits) wanted.push_back(static_cast<int32_t>(i));
    }
    RK_RETURN_IF_ERROR(kv.prepare(rows));
    const size_t vocab = static_cast<size_t>(vocab_size()), old = logits.size();
    const model::StepSequence sequence{&kv, ids, rows};
    model::StepInput step{{&sequence, 1}, wanted, View(), nullptr};
    if (extras.sampling != nullptr && !wanted.empty()) {
      step.sampling = extras.sampling;
    } else {
      logits.resize(old + wanted.size() * vocab);
      step.logits = View(logits.data() + old, DType::kF32,
                         {static_cast<int64_t>(wanted.size()), vocab_size()});
    }
    if (extras.scores != nullptr && rows.back() >= extras.scores->first_query) {
      step.scores = extras.scores;
    }
    model::SparseFfn ffn;
    if (extras.ffn != nullptr && extras.ffn->in_step(rows, ffn)) step.ffn = &ffn;
    RK_RETURN_IF_ERROR(note_failure(decoder_->forward(step, ctx_)));
    kv.trim(rows.back() + 1);
  }
  return {};
}

Status Engine::run_to_next(const Request& request, Run& run, std::span<const int32_t> active,
                           size_t num_prompt, int64_t draw, const CancelFn& cancelled, Next& next) {
  next.logits.clear();
  next.token = -1;
  // Log-probabilities and forbidden stop tokens need the logits here.
  const bool on_device = decoder_->can_sample() && request.num_logprobs < 0 &&
                         !request.give_logits && draw >= request.min_tokens;
  if (!on_device) {
    return run_rows(*run.kv, run.prompt.tokens, active, active.size() - 1, cancelled, next.logits,
                    {.ffn = run.sparse_ffn()});
  }
  const std::span<const int32_t> all(run.prompt.tokens);
  std::vector<kernels::SampleAdjust> adjust;
  const kernels::SampleRow row =
      kernels::make_sample_row(request.sampling, {all.first(num_prompt), all.subspan(num_prompt)},
                               static_cast<uint64_t>(draw), vocab_size(), adjust);
  model::StepSampling sampling{{&row, 1}, adjust, &next.token};
  RK_RETURN_IF_ERROR(run_rows(*run.kv, run.prompt.tokens, active, active.size() - 1, cancelled,
                              next.logits, {.sampling = &sampling, .ffn = run.sparse_ffn()}));
  return next.token >= 0 ? Status() : internal("sampling: no logit is finite");
}

}  // namespace rk::engine
