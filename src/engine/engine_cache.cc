// What the engine stores and splices: exact prefixes, documents, and the room they take.
#include <algorithm>

#include "base/check.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "kv/frame_rows.h"

namespace rk::engine {

std::unique_ptr<kv::SequenceKv> Engine::new_sequence(bool all_global, int num_layers) const {
  const auto& c = decoder_->config();
  if (num_layers == 0) num_layers = c.num_layers;
  const auto& visible = all_global ? dense_visible_ : visible_;
  auto kv = std::make_unique<kv::SequenceKv>(
      *pool_, num_layers, c.num_kv_heads,
      std::vector(visible.begin(), visible.begin() + num_layers * c.num_kv_heads));
  if (all_global) kv->keep_all_rows();
  return kv;
}

std::string Engine::root_of(const Request& request) const {
  return identity_ + "/" + request.cache_namespace;
}

// Rows of a sequence whose heads forget rows are no dense rows, so only dense plans share prefixes;
// and our dense baseline neither takes nor leaves any; `none` is dense over what it leaves.
bool Engine::reusing(Mode mode) const {
  return mode != Mode::kDense && mode != Mode::kNone && plan_.all_global() &&
         decoder_->config().sliding_window == 0;
}

void Engine::clear_cache() {
  idle_.reset();
  shadow_.reset();
  shadow_jobs_.clear();
  pairs_.clear();
  prefixes_.clear();
  segments_ = kv::SegmentStore(max_variants_, store_bytes_);
}

Status Engine::make_room(int64_t num_pages) {
  const int64_t heads = pages_for(1);
  // Rows that a stored document shares come free with it, not with their place in the tree.
  const auto only_here = [](std::span<const kv::PrefixTree::Piece> pieces) {
    return std::ranges::all_of(pieces, [](const auto& p) { return p.rows.use_count() == 1; });
  };
  while (pool_->num_free() < num_pages) {
    const int64_t missing_pages = (num_pages - pool_->num_free() + heads - 1) / heads;
    const int64_t missing_rows = missing_pages * pool_->page_rows();
    // What documents at rest were expanded into costs least to make again; forgetting them would
    // free no page.
    if (segments_.drop_one_expanded() || prefixes_.evict(missing_rows, only_here) > 0 ||
        (!keeps_codes() && segments_.evict_one()) || prefixes_.evict(missing_rows) > 0) {
      continue;
    }
    if (shadow_ != nullptr) {
      drop_shadow();
      continue;
    }
    if (idle_ != nullptr) {
      idle_.reset();
      continue;
    }
    return exhausted("KV pool: ", num_pages, " pages wanted, ", pool_->num_free(), " of ",
                     pool_->num_pages(), " free and none can be evicted");
  }
  return {};
}

// What the cost model needs to know of a prompt that was laid out.
void Engine::note_layout(const Request& request, const Available& available, Run& run) {
  CostLayout& out = run.layout;
  out.mode = run.mode;
  out.boundary_rows = request.boundary_rows;
  out.ratio = request.selective_ratio;
  out.query = query_rows(run.prompt, request.answer_tokens);
  const auto matched = static_cast<int32_t>(available.prefix.num_tokens);
  for (size_t i = 0; i < run.prompt.spans.size(); ++i) {
    const Prompt::Span& span = run.prompt.spans[i];
    const int32_t rows = span.end - span.begin,
                  from_prefix = std::clamp(matched - span.begin, 0, rows);
    const bool spliced = available.segments[i] != nullptr && from_prefix == 0;
    out.spans.push_back({rows, spliced, spliced && available.exact[i], from_prefix});
  }
  out.documents = run.ffn.documents;
  for (const auto& [begin, end] : run.assembly.stats.recomputed_rows) {
    out.chosen.push_back({begin, end});
  }
}

Status Engine::start(const Request& request, const CancelFn& cancelled, Run& run) {
  run.prompt = flatten(request.spans, request.mode != Mode::kNone);
  run.mode = effective_mode(request.mode, run.prompt, request.answer_tokens);
  const Prompt& prompt = run.prompt;
  const bool splicing = splices(run.mode);
  const int32_t lead = prompt.lead_tokens();
  Available available(prompt);
  // Rows whose logits are wanted must run: the last one, and where an answer is followed its too.
  const int32_t may_match = std::max(0, prompt.num_tokens() - 1 - request.answer_tokens);
  const auto match_prefix = [&] {
    if (!reusing(run.mode) || !request.cache_read) return;
    available.prefix = prefixes_.match(root_of(request), prompt.ids(0, may_match));
    if (!splicing) return;
    // A document that is only partly covered is spliced whole.
    for (const Prompt::Span& span : prompt.spans) {
      if (!span.segment || available.prefix.num_tokens <= span.begin ||
          available.prefix.num_tokens >= span.end) {
        continue;
      }
      available.prefix = prefixes_.match(root_of(request), prompt.ids(0, span.begin));
    }
  };
  match_prefix();
  const bool keeps = reusing(run.mode) && request.cache_read && request.cache_write;
  if (splicing && keeps && available.prefix.num_tokens < lead) {
    // Every document needs the lead's rows: compute and keep them once.
    RK_RETURN_IF_ERROR(context_rows(request, prompt.ids(0, lead), cancelled, run).status());
    const int64_t known = available.prefix.num_tokens;
    match_prefix();
    run.assembly.stats.fresh = available.prefix.num_tokens - known;  // computed now, not cached
  }
  const int64_t lead_now = run.assembly.stats.fresh;
  for (size_t i = 0; i < prompt.spans.size() && run.mode != Mode::kDense; ++i) {
    const Prompt::Span& span = prompt.spans[i];
    const bool covered = available.prefix.num_tokens > span.begin;
    // The prompt's last row must run, for its logits: a document that ends it is computed.
    if (!span.segment || covered || span.end == prompt.num_tokens()) continue;
    RK_RETURN_IF_ERROR(find_segment(request, i, cancelled, run, available));
  }
  run.contexts.clear();  // their pages may go
  Recovery recovery{run.mode, request.boundary_rows};
  if (takes_ratio(run.mode) || run.mode == Mode::kRedknot) {
    RK_TRY(recovery.targets, choose_targets(request, available, cancelled, run));
  }
  run.kv = new_sequence(false);
  if (run.mode == Mode::kRedknot) prepare_redknot(request, available, run);
  RK_TRY(run.assembly, assemble(prompt, recovery, available, *run.kv));
  note_layout(request, available, run);
  run.assembly.stats.probe_ms = run.probe_ms;
  run.assembly.stats.prefix_cached -= lead_now;
  run.assembly.stats.fresh += lead_now;
  return make_room_for(*run.kv, run.assembly.active);
}

void Engine::keep_exact_rows(const Request& request, Run& run) {
  if (!request.cache_write) return;
  note_pairs(request, run);
  if (!reusing(run.mode)) return;
  // Exact to the end: what was generated is exact too.
  const Prompt& prompt = run.prompt;
  const bool whole =
      run.assembly.exact_tokens > 0 && run.assembly.exact_tokens == prompt.spans.back().end;
  const int32_t exact = whole ? run.kv->num_positions() : run.assembly.exact_tokens;
  std::vector<kv::PrefixTree::Piece> pieces;
  int32_t at = 0;
  for (int i = 0; i < run.kv->num_pieces() && at < exact; ++i) {
    const auto& piece = run.kv->piece(i);
    const int32_t rows = std::min(piece.row_end - piece.row_begin, exact - at);
    auto kept =
        piece.stored ? piece.rows : run.kv->freeze(i, piece.row_begin, piece.row_begin + rows);
    const auto span = std::ranges::find_if(prompt.spans, [&](const Prompt::Span& s) {
      return s.segment && s.begin == at && s.end == at + rows;
    });
    // A document in one piece serves other prompts too.
    if (span != prompt.spans.end() && kept->row_begin() == 0 && kept->row_end() == rows) {
      keep_segment(request, prompt, static_cast<size_t>(span - prompt.spans.begin()), kept);
    }
    pieces.push_back({std::move(kept), piece.row_begin, piece.row_begin + rows});
    at += rows;
  }
  if (at == 0) return;
  const auto inserted = prefixes_.insert(root_of(request), prompt.ids(0, at), pieces);
  RK_CHECK(inserted.ok());
}

}  // namespace rk::engine
