// Loading, and the life of one request. What is stored and spliced is in engine_cache.cc.
#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/guardian.h"
#include "kernels/gemm/gemm.h"
#include "kv/select_rows.h"
#include "tensor/buffer.h"

namespace rk::engine {
namespace {

constexpr int kPageRows = 16;
constexpr int64_t kCardReserveBytes = int64_t{1} << 30;  // cuBLASLt, the driver, graphs
constexpr int64_t kLeastContext = 1024;
// What was decided before the prompt was laid out. A mode that had nothing to splice and ran
// exactly passes, whatever was asked.
void keep_what_was_said(const RequestStats& said, RequestStats& stats) {
  stats.gate_reason = said.gate_reason;
  stats.document_order = said.document_order;
  if (stats.mode == Mode::kDense || stats.mode == Mode::kPrefix) return;
  stats.gate = said.gate;
  stats.quality_used = said.quality_used;
}

// What cards do not tell apart is as it was measured.
void set_as_measured(Request& request) {
  const Request plain;
  request.ffn_dense_layers = plain.ffn_dense_layers;
  request.ffn_recent_rows = plain.ffn_recent_rows;
}
bool as_measured(const Request& request) {
  const Request plain;
  return request.mode != Mode::kRedknot || (request.ffn_dense_layers == plain.ffn_dense_layers &&
                                            request.ffn_recent_rows == plain.ffn_recent_rows);
}

constexpr int kHostStepRows = 128, kCardStepRows = 4096;

}  // namespace

Engine::~Engine() { clear_cache(); }

Result<std::unique_ptr<Engine>> Engine::create(const Options& options) {
  std::unique_ptr<Engine> engine(new Engine());
  RK_RETURN_IF_ERROR(engine->load(options));
  return engine;
}

Status Engine::load_decoder(const Options& options, kv::IdentityBuilder& identity) {
  threads_ = std::make_unique<ThreadPool>(options.threads);
  forced_ = options.forced;
  ctx_ = {threads_.get(), &forced_};
  std::optional<model::WeightFiles> files;
  model::ModelConfig config;
  if (options.random_shape) {
    config = *options.random_shape;
  } else {
    RK_TRY(files, model::WeightFiles::open(options.model));
    RK_TRY(config, model::read_config(options.model));
  }
  context_tokens_ = options.context_tokens > 0
                        ? std::min<int64_t>(options.context_tokens, config.context_tokens)
                        : config.context_tokens;
  model::Decoder::Options decoder;
  decoder.device = options.device;
  const int default_rows = options.device.is_cuda() ? kCardStepRows : kHostStepRows;
  decoder.max_step_rows = options.max_step_rows > 0 ? options.max_step_rows : default_rows;
  decoder.context_tokens = context_tokens_;
  decoder.card_weights = options.card_weights;
  if (options.device.is_cuda()) {
    RK_RETURN_IF_ERROR(plan_card(options, files ? &*files : nullptr, config, decoder));
  }
  identity.add("model", options.model).add("device", options.device.is_cuda() ? "cuda" : "cpu");
  if (options.random_shape) {
    RK_TRY(decoder_, model::Decoder::random(config, decoder));
    return {};
  }
  identity.add("bytes", files->num_bytes());
  const int64_t need = model::estimate_memory_bytes(*files, config, decoder);
  if (const int64_t have = available_memory_bytes(); !options.device.is_cuda() && need > have) {
    return exhausted(options.model, ": ", need >> 20, " MiB wanted for weights and workspace, ",
                     have >> 20, " MiB of memory free");
  }
  RK_TRY(decoder_, model::Decoder::load(*files, config, decoder, ctx_));
  return {};
}

Status Engine::load_plan(const Options& options) {
  const model::ModelConfig& config = decoder_->config();
  const kv::KvShape shape{config.num_layers, config.num_kv_heads, config.head_dim};
  const kv::HeadPlan dense = kv::HeadPlan::all_global(config.num_layers, config.num_kv_heads);
  plan_ = dense;
  if (!options.plan_json.empty()) {
    RK_TRY(plan_, kv::HeadPlan::parse(options.plan_json, "plan", shape));
  } else if (!options.plan.empty()) {
    RK_TRY(plan_, kv::HeadPlan::load(options.plan, shape));
  }
  for (int l = 0; l < config.num_layers; ++l) {
    for (int g = 0; g < config.num_kv_heads; ++g) {
      visible_.push_back(kv::visible(plan_, l, g, config.sliding_window));
      dense_visible_.push_back(kv::visible(dense, l, g, config.sliding_window));
      if (visible_.back().limit >= 0) {
        return unimplemented("head plan: layer ", l, " head ", g,
                             ": sinks outside the model's own sliding window of ",
                             config.sliding_window);
      }
    }
  }
  return {};
}

Status Engine::load(const Options& options) {
  kv::IdentityBuilder identity("engine rows");
  RK_RETURN_IF_ERROR(load_decoder(options, identity));
  RK_RETURN_IF_ERROR(load_plan(options));
  RK_RETURN_IF_ERROR(create_pool(options));
  RK_RETURN_IF_ERROR(check_shadow_share(options.shadow.share));
  shadow_share_ = options.shadow.share;
  shadows_ = std::make_unique<ShadowTracker>(options.shadow);
  if (options.max_variants < 1) {
    return invalid_argument("max_variants: ", options.max_variants, ", at least 1 wanted");
  }
  RK_RETURN_IF_ERROR(create_store(options));
  model_path_ = options.model;
  cache_dir_ = options.cache_dir;
  if (!options.card.empty()) {
    RK_TRY(card_, Card::load(options.card));
    RK_TRY(const CardIdentity ours, card_identity());
    RK_RETURN_IF_ERROR(check_card(*card_, ours, options.card));
  } else if (!options.random_shape) {
    RK_TRY(card_, find_cards(options.card_folders, [this] { return card_identity(); }));
  }
  if (card_ && keeps_codes()) {  // whatever it says
    for (CardEntry& e : card_->entries) e.low_precision = true;
  }
  cost_shape_ = engine::cost_shape(*decoder_, pool_->dtype(), visible_, dense_visible_);
  identity.add("kv dtype", dtype_name(pool_->dtype())).add("row format", 1);
  identity.add("store format", kv::row_format_name(store_format_));
  for (const double f : model::rope_inv_freq(config().rope)) identity.add("rope", f);
  identity.add("gemm", ctx_.forced_variant("gemm")).add("plan", plan_.digest());
  identity_ = identity.finish().hex();
  log::info("engine: ", config().family, " on ", options.device.name(), ", weights ",
            decoder_->weight_bytes() >> 20, " MiB, KV pool ",
            pool_->num_pages() * pool_->page_bytes() >> 20, " MiB, context ", context_tokens_,
            " tokens");
  return {};
}

// Says what will lie on the card before anything is put there, and chooses the pool; with `fit` the
// context too.
Status Engine::plan_card(const Options& options, const model::WeightFiles* files,
                         const model::ModelConfig& config, model::Decoder::Options& decoder) {
  RK_TRY(const CardInfo card, open_card(options.device.index));
  const int64_t column =
      kv::PagePool::page_bytes({.head_dim = config.head_dim, .dtype = DType::kBf16}) *
      config.num_layers * config.num_kv_heads;
  const auto kv_bytes = [&](int64_t tokens) {
    return (tokens + 2 * kPageRows) / kPageRows * column;
  };
  const bool hopper = card.major >= 9;
  model::CardMemory memory = model::card_memory(files, config, decoder, hopper);
  const auto room = [&] { return card.free_bytes - memory.total() - kCardReserveBytes; };
  while (options.fit && context_tokens_ > kLeastContext && room() < kv_bytes(context_tokens_)) {
    context_tokens_ = std::max(kLeastContext, context_tokens_ - context_tokens_ / 8);
    decoder.context_tokens = context_tokens_;
    memory = model::card_memory(files, config, decoder, hopper);
  }
  const bool codes = options.store_format != kv::RowFormat::kAsComputed;
  const int64_t usable = room() * 9 / 10, one = kv_bytes(context_tokens_);
  pool_bytes_ = options.kv_bytes > 0 ? options.kv_bytes
                : codes ? std::min(std::max(usable / 2, one), std::min(4 * one, usable))
                        : std::min(4 * one, usable);
  if (codes) {
    store_bytes_ = options.store_bytes > 0
                       ? options.store_bytes
                       : std::clamp<int64_t>(usable - pool_bytes_, 0, pool_bytes_);
  }
  if (pool_bytes_ < column || store_bytes_ > room() || pool_bytes_ > room() - store_bytes_) {
    return exhausted(options.device.name(), ": ", memory.total() >> 20, " MiB for weights (",
                     memory.weight_bytes >> 20, "), workspace and tables and ",
                     (std::max(pool_bytes_, column) >> 20) + (store_bytes_ >> 20),
                     " MiB for KV wanted, ", card_room(card.free_bytes, card.total_bytes),
                     "; try --fit or --card-weights fp8");
  }
  const std::string plan =
      cat(card.name, ", ", card.free_bytes >> 20, " MiB free: weights ", memory.weight_bytes >> 20,
          ", workspace ", memory.workspace_bytes >> 20, ", page tables ", memory.table_bytes >> 20,
          ", KV ", pool_bytes_ >> 20, " MiB (", pool_bytes_ / column * kPageRows, " tokens)",
          codes ? cat(", documents at rest ", store_bytes_ >> 20, " MiB") : "", ", context ",
          context_tokens_);
  log::info("engine: ", plan);
  if (options.on_memory_plan) options.on_memory_plan(plan);
  return {};
}

Status Engine::create_pool(const Options& options) {
  kv::PagePool::Options pool;
  pool.page_rows = kPageRows;
  pool.head_dim = decoder_->config().head_dim;
  pool.memory = decoder_->kv_memory();
  pool.dtype = options.device.is_cuda() ? DType::kBf16 : options.kv_dtype;
  const int64_t context_bytes =
      pages_for(context_tokens_ + kPageRows) * kv::PagePool::page_bytes(pool);
  pool.capacity_bytes = options.kv_bytes > 0
                            ? options.kv_bytes
                            : std::min(4 * context_bytes, available_memory_bytes() / 2);
  if (options.device.is_cuda()) pool.capacity_bytes = pool_bytes_;
  RK_TRY(pool_, kv::PagePool::create(pool));
  return {};
}

Result<CardIdentity> Engine::card_identity() const {
  RK_TRY(const kv::Digest weights, kv::weights_digest(model_path_, cache_dir_));
  std::string dtype = dtype_name(pool_->dtype());
  if (keeps_codes()) dtype += cat("+", kv::row_format_name(store_format_));
  return CardIdentity{weights.hex(), plan_.digest(), std::move(dtype), keeps_codes()};
}

Request Engine::through_gate(const Request& request, RequestStats& said) const {
  Request out = request;
  if (request.mode == Mode::kDense || request.mode == Mode::kPrefix) return out;
  GateQuestion question{request.quality};
  for (const PromptSpan& span : request.spans) {
    question.prompt_tokens += static_cast<int64_t>(span.tokens.size());
    question.num_documents += span.segment && !span.tokens.empty();
  }
  question.fit = asked_fit(request);
  question.off = shadows_->off_at(question.prompt_tokens);
  const Card* card = card_ ? &*card_ : nullptr;
  if (request.mode == Mode::kAuto) {
    const GateAnswer answer = choose_mode(card, question);
    out.mode = answer.mode;
    set_as_measured(out);
    set_mode_share(out, answer.ratio);
    out.select = answer.select;
    out.boundary_rows = answer.mode == Mode::kBoundary ? answer.boundary_rows : out.boundary_rows;
    said.gate_reason = answer.reason;
    said.quality_used = answer.level;
    return out;
  }
  const Setting asked = setting_of(request);
  said.quality_used = as_measured(request) ? level_of_mode(card, question, asked) : Level::kNone;
  if (said.quality_used == Level::kNone) {
    said.gate = "bypassed";
    said.gate_reason =
        card == nullptr ? "named by hand, no card" : "named by hand, no card allows it";
    for (const SwitchedOff& off : question.off) {
      if (off.setting == asked) said.gate_reason = cat("named by hand; ", describe(off));
    }
  }
  return out;
}

Status Engine::health() const {
  const std::lock_guard lock(failure_mutex_);
  return failure_;
}

int64_t Engine::pages_for(int64_t rows) const {
  const auto& c = decoder_->config();
  return (rows + kPageRows - 1) / kPageRows * c.num_layers * c.num_kv_heads;
}

Status Engine::check(const Request& request) const {
  int64_t total = 0;
  for (const PromptSpan& span : request.spans) {
    const bool left_out = span.segment && request.mode == Mode::kNone;
    total += left_out ? 0 : static_cast<int64_t>(span.tokens.size());
    for (const int32_t id : span.tokens) {
      if (id < 0 || id >= vocab_size()) {
        return invalid_argument("prompt: token id ", id, ", the vocabulary has ", vocab_size());
      }
    }
  }
  if (total == 0) {
    const char* where = request.mode == Mode::kNone ? " besides its documents" : "";
    return invalid_argument("prompt: no tokens", where);
  }
  if (total >= context_tokens_) {
    return invalid_argument("prompt: ", total, " tokens, the context holds ", context_tokens_,
                            " with at least one generated");
  }
  for (const int32_t id : request.company) {
    if (id < 0 || id >= vocab_size()) {
      return invalid_argument("company: token id ", id, ", the vocabulary has ", vocab_size());
    }
  }
  if (request.company_pieces < 1 || request.company_pieces > kMaxCompanyPieces) {
    return invalid_argument("company: the mean over ", request.company_pieces, " pieces, 1 to ",
                            kMaxCompanyPieces, " possible");
  }
  if (request.max_tokens < 0) {
    return invalid_argument("max_tokens: ", request.max_tokens, " is negative");
  }
  if (request.boundary_rows < 0) {
    return invalid_argument("boundary: k is ", request.boundary_rows, ", at least 0 wanted");
  }
  RK_RETURN_IF_ERROR(kv::check_ratio(request.selective_ratio));
  RK_RETURN_IF_ERROR(check_select(request.mode, request.select));
  if (request.answer_tokens < 0 || request.answer_tokens > total) {
    return invalid_argument("answer_tokens: ", request.answer_tokens, " of a prompt of ", total);
  }
  RK_RETURN_IF_ERROR(check_ffn_threshold(request.ffn_threshold));
  if (request.ffn_dense_layers < 0 || request.ffn_recent_rows < 0) {
    return invalid_argument("redknot: ", request.ffn_dense_layers, " dense layers and ",
                            request.ffn_recent_rows, " recent rows, at least 0 wanted");
  }
  return kernels::check_sample_options(request.sampling, vocab_size());
}

Status Engine::evaluate(const Request& asked, int64_t num_rows, std::vector<float>& logits,
                        RequestStats* stats) {
  RK_RETURN_IF_ERROR(health());
  RK_RETURN_IF_ERROR(check(asked));
  RequestStats said;
  Request request = through_gate(asked, said);
  if (request.any_order) said.document_order = order_documents(request);
  Run run;
  const kernels::Work work_before = ctx_.work;
  RK_RETURN_IF_ERROR(start(request, {}, run));
  const auto& active = run.assembly.active;
  const int32_t total = run.prompt.num_tokens();
  const auto wanted =
      static_cast<int32_t>(num_rows < 0 ? total : std::min<int64_t>(num_rows, total));
  const auto first = std::lower_bound(active.begin(), active.end(), total - wanted);
  if (active.end() - first != wanted) {
    return invalid_argument("logits: ", wanted, " last rows wanted, mode ", mode_name(run.mode),
                            " runs ", active.end() - first, " of them");
  }
  logits.clear();
  RK_RETURN_IF_ERROR(run_rows(*run.kv, run.prompt.tokens, active,
                              static_cast<size_t>(first - active.begin()), {}, logits,
                              {.ffn = run.sparse_ffn()}));
  run.assembly.stats.ffn_skipped = run.layout.ffn_skipped = run.ffn.num_skipped;
  if (stats) {
    *stats = run.assembly.stats;
    keep_what_was_said(said, *stats);
    stats->work = ctx_.work - work_before;
    run.layout.logits_rows = wanted;
    stats->predicted_work = cost_of(cost_shape_, run.layout);
  }
  keep_exact_rows(request, run);
  return {};
}

void Engine::run(const Request& asked, double queue_ms, Listener& listener) {
  const double start_ms = now_ms();
  Outcome outcome;
  outcome.stats.queue_ms = queue_ms;
  RequestStats said;
  Request request = through_gate(asked, said);
  if (request.any_order) said.document_order = order_documents(request);
  const auto serve = [&]() -> Status {
    RK_RETURN_IF_ERROR(health());
    RK_RETURN_IF_ERROR(check(request));
    Run run;
    const kernels::Work work_before = ctx_.work;
    RK_RETURN_IF_ERROR(start(
        request, [&] { return listener.cancelled(); }, run));
    outcome.stats = run.assembly.stats;
    keep_what_was_said(said, outcome.stats);
    outcome.stats.queue_ms = queue_ms;
    outcome.stats.ingest_ms = run.ingest_ms;
    outcome.stats.expand_ms = run.expand_ms;
    Next next;
    RK_RETURN_IF_ERROR(run_to_next(
        request, run, run.assembly.active, run.prompt.tokens.size(), 0,
        [&] { return listener.cancelled(); }, next));
    const kernels::Work work_now = ctx_.work;
    outcome.stats.ffn_skipped = run.layout.ffn_skipped = run.ffn.num_skipped;
    const Status status = decode(request, run, next, start_ms, listener, outcome);
    outcome.stats.work = work_now - work_before;
    outcome.stats.decode_work = ctx_.work - work_now;
    outcome.stats.predicted_work = cost_of(cost_shape_, run.layout);
    outcome.stats.kv_bytes = run.kv->num_own_pages() * pool_->page_bytes();
    if (status.ok() || status.code() == Code::kCancelled) keep_exact_rows(request, run);
    outcome.stats.store_bytes = segments_.num_bytes();
    if (status.ok()) note_shadow(request, run, outcome.stats);
    return status;
  };
  outcome.status = serve();
  if (!outcome.status.ok()) {
    outcome.finish =
        outcome.status.code() == Code::kCancelled ? FinishReason::kCancelled : FinishReason::kError;
    if (outcome.finish == FinishReason::kCancelled) outcome.status = {};
  }
  outcome.stats.total_ms = queue_ms + now_ms() - start_ms;
  listener.on_done(outcome);
}

Status Engine::decode(const Request& request, Run& run, Next& next, double start_ms,
                      Listener& listener, Outcome& outcome) {
  const auto is_stop = [&](int32_t id) {
    return std::find(request.stop_tokens.begin(), request.stop_tokens.end(), id) !=
           request.stop_tokens.end();
  };
  RequestStats& stats = outcome.stats;
  const size_t num_prompt = run.prompt.tokens.size();
  std::vector<int32_t>& tokens = run.prompt.tokens;  // grows by what is generated
  outcome.finish = FinishReason::kLength;
  std::vector<float>& logits = next.logits;
  Guardian guardian;
  while (stats.generated < request.max_tokens) {
    int32_t token = next.token;
    if (token < 0 && stats.generated < request.min_tokens) {
      for (const int32_t id : request.stop_tokens) {
        if (id < 0 || id >= vocab_size()) continue;
        logits[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
      }
    }
    if (token < 0) {
      const std::span<const int32_t> all(tokens);
      RK_TRY(token, kernels::sample(logits, request.sampling,
                                    {all.first(num_prompt), all.subspan(num_prompt)},
                                    static_cast<uint64_t>(stats.generated)));
    }
    if (stats.generated == 0) stats.ttft_ms = stats.queue_ms + now_ms() - start_ms;
    if (is_stop(token)) {
      outcome.finish = FinishReason::kStop;
      return {};
    }
    TokenEvent event{token, {}, {}};
    if (request.give_logits) event.logits = logits;
    if (request.num_logprobs >= 0) {
      event.logprobs = kernels::logprobs(logits, token, request.num_logprobs);
    }
    ++stats.generated;
    if (!listener.on_token(event)) return rk::cancelled("request cancelled");
    if (stats.generated == request.max_tokens ||
        static_cast<int64_t>(tokens.size()) + 1 >= context_tokens_) {
      return {};
    }
    if (request.guardian && guardian.stop_after(token)) {
      outcome.finish = FinishReason::kGuardian;
      return {};
    }
    tokens.push_back(token);
    const int32_t position[] = {static_cast<int32_t>(tokens.size()) - 1};
    if (Status status = make_room(pages_for(1)); !status.ok()) return status;
    RK_RETURN_IF_ERROR(run_to_next(
        request, run, position, num_prompt, stats.generated, [&] { return listener.cancelled(); },
        next));
  }
  return {};
}

}  // namespace rk::engine
