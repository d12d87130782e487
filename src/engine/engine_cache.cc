// What the engine stores and splices: exact prefixes, documents, and the room they take.
#include <algorithm>

#include "base/check.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "kv/frame_rows.h"

namespace rk::engine {

std::unique_ptr<kv::SequenceKv> Engine::new_sequence(bool all_global) const {
  const auto& c = decoder_->config();
  return std::make_unique<kv::SequenceKv>(*pool_, c.num_layers, c.num_kv_heads,
                                          all_global ? dense_visible_ : visible_);
}

std::string Engine::root_of(const Request& request) const {
  return identity_ + "/" + request.cache_namespace;
}

kv::Digest Engine::segment_key(const Request& request, std::span<const int32_t> context,
                               std::span<const int32_t> tokens) const {
  kv::IdentityBuilder key("segment");
  key.add("rows", identity_).add("policy", "dense").add("namespace", request.cache_namespace);
  key.add("context", context).add("tokens", tokens);
  return key.finish();
}

// Rows of a sequence whose heads forget rows are no dense rows, so only dense plans share prefixes;
// and our dense baseline neither takes nor leaves any.
bool Engine::reusing(const Request& request, Mode mode) const {
  (void)request;
  return mode != Mode::kDense && plan_.all_global() && decoder_->config().sliding_window == 0;
}

void Engine::clear_cache() {
  prefixes_.clear();
  segments_ = {};
}

Status Engine::make_room(int64_t num_pages) {
  const int64_t heads = pages_for(1);
  while (pool_->num_free() < num_pages) {
    const int64_t missing_pages = (num_pages - pool_->num_free() + heads - 1) / heads;
    const bool dropped_prefix = prefixes_.evict(missing_pages * pool_->page_rows()) > 0;
    if (pool_->num_free() >= num_pages) break;
    if (!dropped_prefix && !segments_.evict_one()) {
      return exhausted("KV pool: ", num_pages, " pages wanted, ", pool_->num_free(), " of ",
                       pool_->num_pages(), " free and none can be evicted");
    }
  }
  return {};
}

Result<std::shared_ptr<const kv::Segment>> Engine::ingest(const Request& request,
                                                          const Prompt& prompt,
                                                          const Prompt::Span& span, bool in_company,
                                                          const CancelFn& cancelled) {
  // Lead, company, document: the lead's rows come from the prefix tree where they are known.
  const int32_t lead = prompt.lead_tokens(), length = span.end - span.begin;
  Prompt context;
  const auto ids = prompt.ids(0, lead), document = prompt.ids(span.begin, span.end);
  context.tokens.assign(ids.begin(), ids.end());
  if (in_company) {
    context.tokens.insert(context.tokens.end(), request.company.begin(), request.company.end());
  }
  const auto start = static_cast<int32_t>(context.tokens.size());
  context.tokens.insert(context.tokens.end(), document.begin(), document.end());
  if (context.num_tokens() > context_tokens_) {
    return invalid_argument("document: ", length, " tokens behind a context of ", start,
                            ", the model's context holds ", context_tokens_);
  }
  auto kv = new_sequence(true);
  std::vector<int32_t> active;
  int32_t from = 0;
  if (reusing(request, Mode::kPrefix) && request.cache_read && lead > 0) {
    const auto match = prefixes_.match(root_of(request), prompt.ids(0, lead));
    for (const auto& piece : match.pieces) {
      kv->add_stored(std::static_pointer_cast<const kv::FrameRows>(piece.rows), piece.begin,
                     piece.end);
    }
    from = static_cast<int32_t>(match.num_tokens);
  }
  RK_RETURN_IF_ERROR(make_room(pages_for(context.num_tokens() - from + 3 * pool_->page_rows())));
  if (from < start) kv->add_fresh(from, start - from);
  const int document_piece = kv->num_pieces();
  kv->add_fresh(0, length);
  for (int32_t p = from; p < context.num_tokens(); ++p) active.push_back(p);
  std::vector<float> no_logits;
  RK_RETURN_IF_ERROR(run_rows(*kv, context.tokens, active, active.size(), cancelled, no_logits));
  auto segment = std::make_shared<kv::Segment>();
  segment->tokens.assign(document.begin(), document.end());
  segment->rows = kv->freeze(document_piece, 0, length);
  segment->computed_at = start;
  return std::shared_ptr<const kv::Segment>(std::move(segment));
}

Status Engine::find_segments(const Request& request, const CancelFn& cancelled, Run& run,
                             Available& available) {
  const Prompt& prompt = run.prompt;
  const int32_t lead = prompt.lead_tokens();
  const bool splicing = splices(run.mode);
  const auto lead_ids = prompt.ids(0, lead);
  const std::vector<int32_t> alone(lead_ids.begin(), lead_ids.end());
  std::vector<int32_t> company = alone;
  company.insert(company.end(), request.company.begin(), request.company.end());
  for (size_t i = 0; i < prompt.spans.size(); ++i) {
    const Prompt::Span& span = prompt.spans[i];
    const bool covered = available.prefix.num_tokens > span.begin;
    // The prompt's last row must run, for its logits: a document that ends it is computed.
    if (!span.segment || covered || span.end == prompt.num_tokens()) continue;
    // Behind nothing but the lead the lead-alone variant is exact: unless the plan's own rows would
    // see less than a segment's, which all heads computed globally.
    const bool first = span.begin == lead, exact = first && plan_.all_global();
    if (!exact && !splicing) continue;
    const bool in_company = !first && !request.company.empty();
    const auto tokens = prompt.ids(span.begin, span.end);
    const kv::Digest key = segment_key(request, in_company ? company : alone, tokens);
    std::shared_ptr<const kv::Segment> segment;
    if (request.cache_read) segment = segments_.find(key, tokens);
    if (segment == nullptr) {
      for (size_t j = 0; j < i && splicing; ++j) {  // the same document earlier in this prompt
        if (available.ingested_now[j] && available.exact[j] == exact &&
            std::ranges::equal(available.segments[j]->tokens, tokens)) {
          segment = available.segments[j];
        }
      }
      available.ingested_now[i] = splicing;
    }
    if (segment == nullptr && splicing) {
      const double begin_ms = now_ms();
      RK_TRY(segment, ingest(request, prompt, span, in_company, cancelled));
      run.ingest_ms += now_ms() - begin_ms;
      if (request.cache_write) segments_.insert(key, segment);
    }
    available.segments[i] = segment;
    available.exact[i] = exact;
  }
  return {};
}

Status Engine::start(const Request& request, const CancelFn& cancelled, Run& run) {
  run.prompt = flatten(request.spans);
  run.mode = effective_mode(request.mode, run.prompt, request.answer_tokens);
  const Prompt& prompt = run.prompt;
  const bool splicing = splices(run.mode);
  const int32_t lead = prompt.lead_tokens();
  Available available;
  available.segments.resize(prompt.spans.size());
  available.exact.resize(prompt.spans.size());
  available.ingested_now.resize(prompt.spans.size());
  const auto match_prefix = [&] {
    if (!reusing(request, run.mode) || !request.cache_read) return;
    available.prefix = prefixes_.match(root_of(request), prompt.ids(0, prompt.num_tokens() - 1));
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
  const bool keeps = reusing(request, run.mode) && request.cache_read && request.cache_write;
  if (splicing && keeps && available.prefix.num_tokens < lead) {
    // Every document needs the lead's rows: compute and keep them once.
    Run lead_run;
    lead_run.prompt = run.prompt;
    lead_run.prompt.tokens.resize(static_cast<size_t>(lead));
    std::erase_if(lead_run.prompt.spans, [&](const Prompt::Span& s) { return s.begin >= lead; });
    Available none;
    none.prefix = available.prefix;
    none.segments.resize(lead_run.prompt.spans.size());
    none.exact.resize(lead_run.prompt.spans.size());
    none.ingested_now.resize(lead_run.prompt.spans.size());
    lead_run.kv = new_sequence(true);
    RK_RETURN_IF_ERROR(make_room(pages_for(lead + 2 * pool_->page_rows())));
    RK_TRY(lead_run.assembly, assemble(lead_run.prompt, {Mode::kPrefix}, none, *lead_run.kv));
    std::vector<float> no_logits;
    const auto& active = lead_run.assembly.active;
    RK_RETURN_IF_ERROR(run_rows(*lead_run.kv, lead_run.prompt.tokens, active, active.size(),
                                cancelled, no_logits));
    keep_exact_rows(request, lead_run);
    lead_run.kv.reset();
    const int64_t known = available.prefix.num_tokens;
    match_prefix();
    run.assembly.stats.fresh = available.prefix.num_tokens - known;  // computed now, not cached
  }
  const int64_t lead_now = run.assembly.stats.fresh;
  if (run.mode != Mode::kDense) {
    RK_RETURN_IF_ERROR(find_segments(request, cancelled, run, available));
  }
  Recovery recovery{run.mode, request.boundary_rows};
  if (run.mode == Mode::kSelective) {
    RK_TRY(recovery.targets, choose_targets(request, available, cancelled, run));
  }
  run.kv = new_sequence(false);
  RK_TRY(run.assembly, assemble(prompt, recovery, available, *run.kv));
  run.assembly.stats.probe_ms = run.probe_ms;
  run.assembly.stats.prefix_cached -= lead_now;
  run.assembly.stats.fresh += lead_now;
  return make_room(pages_for(active_room(prompt, run.assembly.active.size())));
}

void Engine::keep_exact_rows(const Request& request, Run& run) {
  if (!reusing(request, run.mode) || !request.cache_write) return;
  // Exact to the end: what was generated is exact too.
  const bool whole =
      run.assembly.exact_tokens > 0 && run.assembly.exact_tokens == run.prompt.spans.back().end;
  const int32_t exact = whole ? run.kv->num_positions() : run.assembly.exact_tokens;
  std::vector<kv::PrefixTree::Piece> pieces;
  int32_t at = 0;
  for (int i = 0; i < run.kv->num_pieces() && at < exact; ++i) {
    const auto& piece = run.kv->piece(i);
    const int32_t rows = std::min(piece.row_end - piece.row_begin, exact - at);
    auto kept =
        piece.stored ? piece.rows : run.kv->freeze(i, piece.row_begin, piece.row_begin + rows);
    pieces.push_back({std::move(kept), piece.row_begin, piece.row_begin + rows});
    at += rows;
  }
  if (at == 0) return;
  const auto inserted = prefixes_.insert(root_of(request), run.prompt.ids(0, at), pieces);
  RK_CHECK(inserted.ok());
}

}  // namespace rk::engine
