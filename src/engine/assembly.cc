#include "engine/assembly.h"

#include <algorithm>

#include "base/check.h"
#include "kv/frame_rows.h"

namespace rk::engine {

int32_t Prompt::lead_tokens() const {
  for (const Span& span : spans) {
    if (span.segment) return span.begin;
  }
  return num_tokens();
}

Prompt flatten(const std::vector<PromptSpan>& spans, bool with_documents) {
  Prompt prompt;
  for (const PromptSpan& span : spans) {
    if (span.tokens.empty() || (span.segment && !with_documents)) continue;
    const int32_t begin = prompt.num_tokens();
    prompt.tokens.insert(prompt.tokens.end(), span.tokens.begin(), span.tokens.end());
    prompt.spans.push_back({begin, prompt.num_tokens(), span.segment});
  }
  return prompt;
}

kv::RowRange query_rows(const Prompt& prompt, int answer_tokens) {
  const int32_t end = std::max(0, prompt.num_tokens() - answer_tokens);
  for (size_t i = prompt.spans.size(); i-- > 0;) {
    if (prompt.spans[i].segment) return {std::min(prompt.spans[i].end, end), end};
  }
  return {end, end};
}

bool splices(Mode mode) {
  return mode == Mode::kReuse || mode == Mode::kBoundary || mode == Mode::kRedknot ||
         takes_ratio(mode);
}

Mode effective_mode(Mode asked, const Prompt& prompt, int answer_tokens) {
  if (!splices(asked)) return asked;
  const bool has_segment = std::any_of(prompt.spans.begin(), prompt.spans.end(),
                                       [](const Prompt::Span& s) { return s.segment; });
  // Without question rows after the last document nothing could be answered from the splice.
  if (!has_segment || prompt.spans.back().segment) return Mode::kPrefix;
  if (asked == Mode::kSelective && query_rows(prompt, answer_tokens).num_rows() == 0) {
    return Mode::kPrefix;
  }
  return asked;
}

namespace {

// Appends the part of `prefix` that covers positions [begin, end) to `seq`.
void add_prefix(const kv::PrefixTree::Match& prefix, int32_t begin, int32_t end,
                kv::SequenceKv& seq) {
  int32_t at = 0;
  for (const auto& piece : prefix.pieces) {
    const int32_t piece_end = at + piece.num_rows();
    const int32_t from = std::max(begin, at), to = std::min(end, piece_end);
    if (from < to) {
      auto rows = std::static_pointer_cast<const kv::FrameRows>(piece.rows);
      seq.add_stored(std::move(rows), piece.begin + from - at, piece.begin + to - at);
    }
    at = piece_end;
  }
}

kv::RecoveryMode recovery_mode(Mode mode) {
  switch (mode) {
    case Mode::kDense:
    case Mode::kNone:
      return kv::RecoveryMode::kDense;
    case Mode::kReuse:
      return kv::RecoveryMode::kReuse;
    case Mode::kBoundary:
      return kv::RecoveryMode::kBoundary;
    case Mode::kSelective:
    case Mode::kRandom:
    case Mode::kCacheblend:
    case Mode::kRedknot:
      return kv::RecoveryMode::kTargets;
    default:
      return kv::RecoveryMode::kPrefix;
  }
}

}  // namespace

Result<Assembly> assemble(const Prompt& prompt, const Recovery& recovery,
                          const Available& available, kv::SequenceKv& seq) {
  Assembly out;
  out.stats.mode = recovery.mode;
  const auto matched = static_cast<int32_t>(available.prefix.num_tokens);
  std::vector<kv::PlanSpan> spans;
  bool all_exact = true;  // so far: rows before this one are exact
  for (size_t i = 0; i < prompt.spans.size(); ++i) {
    const Prompt::Span& span = prompt.spans[i];
    const int32_t length = span.end - span.begin;
    const int32_t from_prefix = std::clamp(matched - span.begin, 0, length);
    if (from_prefix > 0) add_prefix(available.prefix, span.begin, span.begin + from_prefix, seq);
    const auto& segment = available.segments[i];
    const bool spliced = segment != nullptr && from_prefix == 0;
    const bool exact = !spliced || available.exact[i];
    const bool ingested = spliced && available.ingested_now[i];
    if (spliced) {
      seq.add_stored(available.rows[i], 0, length);
    } else if (from_prefix < length) {
      seq.add_fresh(from_prefix, length - from_prefix);
    }
    spans.push_back({.num_rows = length,
                     .segment = spliced,
                     .exact = spliced && exact,
                     .ingested = ingested,
                     .relocated = spliced && segment->computed_at != span.begin,
                     .prefix_rows = from_prefix,
                     .targets = {}});
    if (!recovery.targets.empty()) spans.back().targets = recovery.targets[i];
    all_exact = all_exact && exact;
    if (span.segment) {
      const bool hit = spliced ? !ingested : from_prefix == length;
      out.stats.documents.push_back({hit ? DocumentState::kHit : DocumentState::kMiss,
                                     spliced ? exact : all_exact, length, available.fit[i]});
    }
    if (all_exact) out.exact_tokens = span.end;
  }
  RK_TRY(const kv::RecoveryPlan plan,
         kv::plan_recovery(spans, recovery_mode(recovery.mode), recovery.boundary_rows));
  out.active = plan.positions();
  for (size_t i = 0; i < spans.size(); ++i) {
    if (!spans[i].segment || recovery.mode == Mode::kDense) continue;
    for (const kv::RowRange& r : plan.spans[i].active) {
      const int32_t offset = plan.spans[i].offset;
      out.stats.recomputed_rows.push_back({offset + r.begin, offset + r.end});
    }
  }
  out.stats.prompt_tokens = prompt.num_tokens();
  out.stats.prefix_cached = plan.counts.prefix_cached;
  out.stats.document_cached = plan.counts.document_cached;
  out.stats.recomputed = plan.counts.recomputed;
  out.stats.fresh = plan.counts.fresh;
  out.stats.relocated = plan.counts.relocated;
  return out;
}

}  // namespace rk::engine
