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

Prompt flatten(const std::vector<PromptSpan>& spans) {
  Prompt prompt;
  for (const PromptSpan& span : spans) {
    if (span.tokens.empty()) continue;
    const int32_t begin = prompt.num_tokens();
    prompt.tokens.insert(prompt.tokens.end(), span.tokens.begin(), span.tokens.end());
    prompt.spans.push_back({begin, prompt.num_tokens(), span.segment});
  }
  return prompt;
}

Mode effective_mode(Mode asked, const Prompt& prompt) {
  if (asked == Mode::kDense || asked == Mode::kPrefix) return asked;
  const bool has_segment = std::any_of(prompt.spans.begin(), prompt.spans.end(),
                                       [](const Prompt::Span& s) { return s.segment; });
  // Without question rows after the last document nothing could be answered from the splice.
  if (!has_segment || prompt.spans.back().segment) return Mode::kPrefix;
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

void add_positions(std::vector<int32_t>& out, int32_t begin, int32_t end) {
  for (int32_t p = begin; p < end; ++p) out.push_back(p);
}

}  // namespace

Assembly assemble(const Prompt& prompt, Mode mode, int boundary_rows, const Available& available,
                  kv::SequenceKv& seq) {
  Assembly out;
  RequestStats& stats = out.stats;
  stats.mode = mode;
  stats.prompt_tokens = prompt.num_tokens();
  const auto matched = static_cast<int32_t>(available.prefix.num_tokens);
  bool all_exact = true;  // so far: rows before this one are exact
  for (size_t i = 0; i < prompt.spans.size(); ++i) {
    const Prompt::Span& span = prompt.spans[i];
    const int32_t length = span.end - span.begin;
    const int32_t from_prefix = std::clamp(matched - span.begin, 0, length);
    if (from_prefix > 0) add_prefix(available.prefix, span.begin, span.begin + from_prefix, seq);
    const auto& segment = available.segments[i];
    const bool spliced = segment != nullptr && from_prefix == 0;
    const bool exact = !spliced || available.exact[i];
    if (spliced) {
      seq.add_stored(segment->rows, 0, length);
      const int32_t targets =
          !exact && mode == Mode::kBoundary ? std::min(length, boundary_rows) : 0;
      add_positions(out.active, span.begin, span.begin + targets);
      const bool fresh = available.ingested_now[i];
      stats.recomputed += targets;
      (fresh ? stats.fresh : stats.document_cached) += length - targets;
      if (!fresh && segment->computed_at != span.begin) stats.relocated += length - targets;
    } else {
      if (from_prefix < length) seq.add_fresh(from_prefix, length - from_prefix);
      add_positions(out.active, span.begin + from_prefix, span.end);
      stats.prefix_cached += from_prefix;
      stats.fresh += length - from_prefix;
    }
    if (span.segment) {
      const bool hit = spliced ? !available.ingested_now[i] : from_prefix == length;
      stats.documents.push_back(
          {hit ? DocumentState::kHit : DocumentState::kMiss, all_exact && exact, length});
    }
    all_exact = all_exact && exact;
    if (all_exact) out.exact_tokens = span.end;
  }
  return out;
}

}  // namespace rk::engine
