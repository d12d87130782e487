// Documents behind their contexts (spec A3): which stored variant a prompt takes, how a missing one
// is computed, what is kept of prompts that ran exactly, and what is computed while nobody waits.
#include <algorithm>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine.h"
#include "kv/mean_rows.h"

namespace rk::engine {
namespace {

std::vector<int32_t> joined(std::span<const int32_t> a, std::span<const int32_t> b) {
  std::vector<int32_t> out(a.begin(), a.end());
  out.insert(out.end(), b.begin(), b.end());
  return out;
}

void add_pieces(const std::vector<kv::PrefixTree::Piece>& pieces, kv::SequenceKv& kv) {
  for (const auto& piece : pieces) {
    kv.add_stored(std::static_pointer_cast<const kv::FrameRows>(piece.rows), piece.begin,
                  piece.end);
  }
}

std::vector<int32_t> positions(int32_t begin, int32_t end) {
  std::vector<int32_t> out;
  for (int32_t p = begin; p < end; ++p) out.push_back(p);
  return out;
}

}  // namespace

// Contexts are computed with all heads seeing everything. Where requests compute so too, the rows
// before a document and the prefix of a prompt are the same and share one tree.
std::string Engine::context_root(const Request& request) const {
  return reusing(Mode::kPrefix) ? root_of(request) : root_of(request) + "/contexts";
}

kv::Digest Engine::document_key(const Request& request, std::span<const int32_t> lead,
                                std::span<const int32_t> tokens) const {
  kv::IdentityBuilder key("document");
  key.add("rows", identity_).add("policy", "dense").add("namespace", request.cache_namespace);
  key.add("lead", lead).add("tokens", tokens);
  return key.finish();
}

Result<const Engine::ContextRows*> Engine::context_rows(const Request& request,
                                                        std::span<const int32_t> ids,
                                                        const CancelFn& cancelled, Run& run) {
  for (const ContextRows& known : run.contexts) {
    if (std::ranges::equal(known.ids, ids)) return &known;
  }
  // Their pages are held; those of documents in another company come back from the tree.
  if (run.contexts.size() >= static_cast<size_t>(request.company_pieces)) run.contexts.pop_front();
  ContextRows rows{{ids.begin(), ids.end()}, {}};
  const auto size = static_cast<int32_t>(ids.size());
  int32_t from = 0;
  if (request.cache_read && size > 0) {
    kv::PrefixTree::Match match = prefixes_.match(context_root(request), ids);
    rows.pieces = std::move(match.pieces);
    from = static_cast<int32_t>(match.num_tokens);
  }
  if (from < size) {
    auto kv = new_sequence(true);
    add_pieces(rows.pieces, *kv);
    kv->add_fresh(from, size - from);
    RK_RETURN_IF_ERROR(make_room(pages_for(size - from + 2 * pool_->page_rows())));
    const auto active = positions(from, size);
    std::vector<float> no_logits;
    RK_RETURN_IF_ERROR(run_rows(*kv, ids, active, active.size(), cancelled, no_logits));
    run.layout.ingested.push_back({from, size});
    rows.pieces.push_back({kv->freeze(kv->num_pieces() - 1, from, size), from, size});
    if (request.cache_write) {
      RK_CHECK(prefixes_.insert(context_root(request), ids, rows.pieces).ok());
    }
  }
  run.contexts.push_back(std::move(rows));
  return &run.contexts.back();
}

Result<std::shared_ptr<const kv::FrameRows>> Engine::rows_behind(const Request& request,
                                                                 std::span<const int32_t> context,
                                                                 std::span<const int32_t> document,
                                                                 const CancelFn& cancelled,
                                                                 Run& run) {
  RK_TRY(const ContextRows* before, context_rows(request, context, cancelled, run));
  const std::vector<int32_t> tokens = joined(context, document);
  const auto begin = static_cast<int32_t>(context.size());
  const auto end = static_cast<int32_t>(tokens.size());
  auto kv = new_sequence(true);
  add_pieces(before->pieces, *kv);
  kv->add_fresh(0, end - begin);
  RK_RETURN_IF_ERROR(make_room(pages_for(end - begin + 2 * pool_->page_rows())));
  const auto active = positions(begin, end);
  std::vector<float> no_logits;
  RK_RETURN_IF_ERROR(run_rows(*kv, tokens, active, active.size(), cancelled, no_logits));
  run.layout.ingested.push_back({begin, end});
  return kv->freeze(kv->num_pieces() - 1, 0, end - begin);
}

Result<std::shared_ptr<const kv::Segment>> Engine::ingest(
    const Request& request, const Prompt::Span& span,
    const std::vector<std::vector<int32_t>>& companies, const CancelFn& cancelled, Run& run) {
  const auto lead = run.prompt.ids(0, run.prompt.lead_tokens());
  const auto document = run.prompt.ids(span.begin, span.end);
  std::vector<std::vector<int32_t>> contexts;
  for (const auto& company : companies) contexts.push_back(joined(lead, company));
  if (contexts.empty()) contexts.emplace_back(lead.begin(), lead.end());
  std::vector<std::shared_ptr<const kv::FrameRows>> rows;
  std::vector<kv::Digest> names;
  for (const auto& context : contexts) {
    RK_TRY(auto one, rows_behind(request, context, document, cancelled, run));
    rows.push_back(std::move(one));
    names.push_back(context_digest(context));
  }
  auto segment = std::make_shared<kv::Segment>();
  segment->tokens.assign(document.begin(), document.end());
  segment->computed_at = static_cast<int32_t>(contexts.back().size());
  const bool mean = rows.size() > 1;
  segment->context = {
      mean ? mean_digest(names) : names[0], {}, static_cast<int>(companies.size()), !mean};
  if (mean) {
    RK_RETURN_IF_ERROR(make_room(rows[0]->num_pages()));
    RK_TRY(segment->rows, kv::mean_rows(*pool_, rows));
  } else {
    segment->rows = rows[0];
  }
  return as_stored(std::move(segment));
}

// Fills what `available` says of span `index`, a document: nothing where it is to be computed with
// the request's own rows.
Status Engine::find_segment(const Request& request, size_t index, const CancelFn& cancelled,
                            Run& run, Available& available) {
  const Prompt& prompt = run.prompt;
  const Prompt::Span& span = prompt.spans[index];
  const int32_t lead = prompt.lead_tokens();
  const auto tokens = prompt.ids(span.begin, span.end);
  const kv::Digest key = document_key(request, prompt.ids(0, lead), tokens);
  std::vector<kv::SegmentStore::Variant> variants;
  if (request.cache_read) variants = segments_.find(key, tokens);
  const size_t num_stored = variants.size();
  std::vector<const kv::Segment*> made_now;  // for this request, of this very document
  for (size_t j = 0; j < index; ++j) {
    const auto& other = available.segments[j];
    if (!available.ingested_now[j] || !std::ranges::equal(other->tokens, tokens)) continue;
    made_now.push_back(other.get());
    const auto stored = variants.begin() + static_cast<std::ptrdiff_t>(num_stored);
    if (std::find(variants.begin(), stored, other) == stored) variants.push_back(other);
  }
  // Under local heads the prompt's own rows would see less than stored ones did: none is exact.
  DocumentPlace place{{}, {}, plan_.all_global()};
  if (const auto ids = predecessor_ids(prompt, index); !ids.empty()) {
    place.predecessor = context_digest(ids);
  }
  const auto name_whole_context = [&](const kv::Segment& candidate) {  // long: only where it counts
    if (candidate.computed_at != span.begin || place.before != kv::Digest()) return;
    place.before = context_digest(prompt.ids(0, span.begin));
  };
  for (const auto& variant : variants) name_whole_context(*variant);
  std::vector<kv::SegmentContext> contexts;
  for (const auto& variant : variants) contexts.push_back(variant->context);
  VariantChoice choice = choose_variant(contexts, place);
  const bool splicing = splices(run.mode), first = span.begin == lead;
  if (!splicing && !choice.exact) return {};
  std::vector<std::vector<int32_t>> companies;
  if (!first) {  // what really stands before the first document is the lead alone
    companies = companies_of(request, context_tokens_ - lead - (span.end - span.begin));
  }
  // A first document is not computed again where it is stored as well as the others are.
  const Fit wanted = companies.empty() && !first ? Fit::kLead : asked_fit(request);
  std::shared_ptr<const kv::Segment> segment;
  if (choice.index >= 0 && (choice.whole || choice.fit <= wanted)) {
    segment = variants[static_cast<size_t>(choice.index)];
    segments_.mark_used(key, segment.get());
    available.ingested_now[index] =
        std::find(made_now.begin(), made_now.end(), segment.get()) != made_now.end();
  } else {
    if (request.stored_only) return unavailable("document ", index, " is not stored");
    const double begin_ms = now_ms();
    RK_TRY(segment, ingest(request, span, companies, cancelled, run));
    run.ingest_ms += now_ms() - begin_ms;
    if (request.cache_write) store(key, segment);
    available.ingested_now[index] = true;
    name_whole_context(*segment);
    choice = choose_variant({&segment->context, 1}, place);
  }
  for (size_t j = 0; j < index; ++j) {  // twice in one prompt
    if (available.segments[j] == segment) available.rows[index] = available.rows[j];
  }
  if (available.rows[index] == nullptr) {
    RK_TRY(available.rows[index], rows_of(key, *segment, run));
  }
  available.segments[index] = std::move(segment);
  available.exact[index] = choice.exact;
  available.fit[index] = choice.fit;
  return {};
}

// Rows that dense computes for this document at this place: later prompts may take them.
void Engine::keep_segment(const Request& request, const Prompt& prompt, size_t index,
                          std::shared_ptr<const kv::FrameRows> rows) {
  const Prompt::Span& span = prompt.spans[index];
  const int32_t lead = prompt.lead_tokens();
  const auto tokens = prompt.ids(span.begin, span.end);
  const kv::Digest key = document_key(request, prompt.ids(0, lead), tokens);
  const DocumentPlace place = place_of(prompt, index, true);
  for (const auto& variant : segments_.find(key, tokens)) {
    if (variant->context.before == place.before) return;
  }
  auto segment = std::make_shared<kv::Segment>();
  segment->tokens.assign(tokens.begin(), tokens.end());
  segment->rows = std::move(rows);
  segment->computed_at = span.begin;
  segment->context = {place.before, place.predecessor, span.begin == lead ? 0 : 1, true};
  auto stored = as_stored(std::move(segment));
  if (!stored.ok()) return log::info("engine: document not kept: ", stored.status().message());
  store(key, std::move(stored).value());
}

void Engine::note_pairs(const Request& request, const Run& run) {
  if (!splices(run.mode) || !request.cache_read) return;
  const Prompt& prompt = run.prompt;
  const auto lead = prompt.ids(0, prompt.lead_tokens());
  auto use = run.assembly.stats.documents.begin();
  for (size_t i = 0; i < prompt.spans.size(); ++i) {
    const Prompt::Span& span = prompt.spans[i];
    if (!span.segment) continue;
    const DocumentUse& document = *use++;
    const auto before = predecessor_ids(prompt, i);
    if (document.exact || document.fit == Fit::kPredecessor) continue;
    const auto tokens = prompt.ids(span.begin, span.end);
    pairs_.seen({request.cache_namespace,
                 {lead.begin(), lead.end()},
                 {before.begin(), before.end()},
                 {tokens.begin(), tokens.end()}});
  }
}

bool Engine::idle_work() {
  if (!health().ok()) return false;
  if (idle_ == nullptr && pairs_.empty()) return shadow_work();
  const bool more = variant_work();
  return more || shadow_ != nullptr || !shadow_jobs_.empty();
}

bool Engine::variant_work() {
  Status status;
  if (idle_ == nullptr) {
    std::optional<VariantJob> job = pairs_.next();
    if (!job) return false;
    status = begin_idle(std::move(*job));
  }
  if (status.ok() && idle_ != nullptr) {
    std::unique_ptr<IdleRun> idle = std::move(idle_);  // no eviction may take it meanwhile
    status = step_idle(*idle);
    const bool done = idle->next == static_cast<int32_t>(idle->tokens.size());
    if (status.ok() && !done) idle_ = std::move(idle);
  }
  if (!status.ok()) log::info("engine: variant given up: ", status.message());
  return idle_ != nullptr || !pairs_.empty();
}

Status Engine::begin_idle(VariantJob job) {
  Request request;
  request.cache_namespace = job.cache_namespace;
  const std::vector<int32_t> context = joined(job.lead, job.company);
  auto idle = std::make_unique<IdleRun>();
  idle->tokens = joined(context, job.document);
  idle->begin = static_cast<int32_t>(context.size());
  idle->kv = new_sequence(true);
  const auto lead = static_cast<int32_t>(job.lead.size());
  kv::PrefixTree::Match match = prefixes_.match(context_root(request), context);
  add_pieces(match.pieces, *idle->kv);
  idle->next = static_cast<int32_t>(match.num_tokens);
  if (idle->next == lead && lead < idle->begin) {  // the predecessor's own rows behind the lead
    const kv::Digest alone = context_digest(job.lead);
    for (const auto& v :
         segments_.find(document_key(request, job.lead, job.company), job.company)) {
      if (v->context.before != alone || !v->context.exact) continue;
      idle->kv->add_stored(v->rows, 0, v->rows->num_rows());
      idle->next = idle->begin;
      break;
    }
  }
  if (idle->next < idle->begin) idle->kv->add_fresh(idle->next, idle->begin - idle->next);
  idle->document_piece = idle->kv->num_pieces();
  idle->kv->add_fresh(0, static_cast<int32_t>(job.document.size()));
  idle->job = std::move(job);
  idle_ = std::move(idle);
  return {};
}

Status Engine::step_idle(IdleRun& idle) {
  const auto end = static_cast<int32_t>(idle.tokens.size());
  const int32_t to = std::min(end, idle.next + decoder_->max_step_rows());
  RK_RETURN_IF_ERROR(make_room(pages_for(to - idle.next + 3 * pool_->page_rows())));
  const auto active = positions(idle.next, to);
  std::vector<float> no_logits;
  RK_RETURN_IF_ERROR(run_rows(*idle.kv, idle.tokens, active, active.size(), {}, no_logits));
  idle.next = to;
  if (to < end) return {};
  Request request;
  request.cache_namespace = idle.job.cache_namespace;
  auto segment = std::make_shared<kv::Segment>();
  segment->rows = idle.kv->freeze(idle.document_piece, 0, end - idle.begin);
  segment->computed_at = idle.begin;
  segment->context.before =
      context_digest(std::span(idle.tokens).first(static_cast<size_t>(idle.begin)));
  segment->context.exact = true;
  if (!idle.job.company.empty()) {  // else a first document, behind the lead alone
    segment->context.predecessor = context_digest(idle.job.company);
    segment->context.num_companies = 1;
  }
  segment->tokens = idle.job.document;
  const kv::Digest key = document_key(request, idle.job.lead, idle.job.document);
  RK_TRY(auto stored, as_stored(std::move(segment)));
  store(key, std::move(stored));
  return {};
}

}  // namespace rk::engine
