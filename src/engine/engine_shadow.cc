// Shadow checks: sampled approximate answers are followed again, by their mode and by dense, while
// no request waits (engine/shadow.h keeps the figures).
#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "engine/engine.h"

namespace rk::engine {
namespace {

constexpr size_t kMaxShadowJobs = 16;
constexpr size_t kMaxShadowTokens = 32;  // of an answer; both passes' logits are held

// `none` is what dense answers to another prompt.
bool nothing_to_check(const RequestStats& stats) {
  return stats.mode == Mode::kDense || stats.mode == Mode::kPrefix || stats.mode == Mode::kNone ||
         std::ranges::all_of(stats.documents, [](const DocumentUse& use) { return use.exact; });
}

}  // namespace

// Takes an answer of `request`, which ran as it stands, into the sample.
void Engine::note_shadow(const Request& request, const Run& run, const RequestStats& stats) {
  if (shadow_share_ == 0 || stats.generated == 0 || nothing_to_check(stats) || !shadows_->sample())
    return;
  if (shadow_jobs_.size() >= kMaxShadowJobs) return shadows_->drop();
  const std::span<const int32_t> all(run.prompt.tokens);
  const auto emitted = all.subspan(static_cast<size_t>(run.prompt.spans.back().end));
  ShadowJob job;
  job.setting = setting_of(stats.mode, mode_share(request), request.boundary_rows, request.select);
  job.prompt_tokens = stats.prompt_tokens;
  job.claimed = stats.quality_used;
  Request& led = job.led = request;
  // The answer follows the prompt's last row: an empty document behind it must not take it in.
  std::erase_if(led.spans, [](const PromptSpan& span) { return span.tokens.empty(); });
  const auto tail = emitted.first(std::min(emitted.size(), kMaxShadowTokens - 1));
  led.spans.back().tokens.insert(led.spans.back().tokens.end(), tail.begin(), tail.end());
  led.answer_tokens += static_cast<int>(tail.size());
  led.cache_write = led.any_order = false;
  led.stored_only = true;
  job.num_rows = tail.size() + 1;
  shadow_jobs_.push_back(std::move(job));
}

void Engine::drop_shadow() {
  shadow_.reset();
  shadows_->drop();
}

Status Engine::begin_shadow_pass(ShadowRun& shadow, Mode mode) {
  Request led = shadow.job.led;
  led.mode = mode;
  shadow.run = std::make_unique<Run>();
  shadow.next = 0;
  return start(led, {}, *shadow.run);
}

// One step; `done` where the divergence is known.
Status Engine::step_shadow(ShadowRun& shadow, bool& done) {
  if (shadow.run == nullptr) {
    return begin_shadow_pass(shadow, shadow.job.setting.mode);
  }
  const std::span<const int32_t> active(shadow.run->assembly.active);
  if (active.size() < shadow.job.num_rows) return internal("rows of the answer are stored");
  size_t end =
      std::min(active.size(), shadow.next + static_cast<size_t>(decoder_->max_step_rows()));
  DocumentFfn* ffn = shadow.run->sparse_ffn();
  if (ffn != nullptr) end = ffn->cut(active, shadow.next, end);
  const size_t num = end - shadow.next;
  const size_t first_logits = active.size() - shadow.job.num_rows;
  const auto rows = active.subspan(shadow.next, num);
  RK_RETURN_IF_ERROR(make_room_for(*shadow.run->kv, rows));
  RK_RETURN_IF_ERROR(run_rows(*shadow.run->kv, shadow.run->prompt.tokens, rows,
                              first_logits - std::min(first_logits, shadow.next), {}, shadow.logits,
                              {.ffn = ffn}));
  shadow.next += num;
  if (shadow.next < active.size()) return {};
  if (shadow.mode.empty()) {
    shadow.mode.swap(shadow.logits);
    // Exact rows are those that dense computes.
    return begin_shadow_pass(shadow, Mode::kPrefix);
  }
  const auto vocab = static_cast<size_t>(vocab_size());
  double kl = 0;
  for (size_t i = 0; i < shadow.job.num_rows; ++i) {
    kl += logits_divergence(std::span<const float>(shadow.logits).subspan(i * vocab, vocab),
                            std::span<const float>(shadow.mode).subspan(i * vocab, vocab));
  }
  if (!std::isfinite(kl)) return internal("the divergence from dense is not finite");
  shadows_->add(shadow.job.setting, shadow.job.prompt_tokens, shadow.job.claimed,
                kl / static_cast<double>(shadow.job.num_rows));
  done = true;
  return {};
}

bool Engine::shadow_work() {
  if (shadow_ == nullptr) {
    if (shadow_jobs_.empty()) return false;
    shadow_ = std::make_unique<ShadowRun>();
    shadow_->job = std::move(shadow_jobs_.front());
    shadow_jobs_.pop_front();
  }
  std::unique_ptr<ShadowRun> shadow = std::move(shadow_);  // no eviction may take it meanwhile
  bool done = false;
  if (const Status status = step_shadow(*shadow, done); !status.ok()) {
    log::info("engine: shadow check given up: ", status.message());
    drop_shadow();
  } else if (!done) {
    shadow_ = std::move(shadow);
  }
  return shadow_ != nullptr || !shadow_jobs_.empty();
}

}  // namespace rk::engine
