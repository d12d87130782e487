// The engine: one model, one KV pool, requests in turn. A request is assembled from stored and
// fresh rows, its active rows run through the decoder in steps, and decode continues on exactly
// that KV: there is one path, and it is the one that answers (spec A5). Engine thread only, except
// check(), health() and the getters.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "engine/assembly.h"
#include "engine/card.h"
#include "engine/cost.h"
#include "engine/document_ffn.h"
#include "engine/gate.h"
#include "engine/request.h"
#include "engine/service.h"
#include "engine/shadow.h"
#include "engine/variants.h"
#include "kv/head_plan.h"
#include "kv/identity.h"
#include "kv/page_pool.h"
#include "kv/prefix_tree.h"
#include "kv/quant_rows.h"
#include "kv/segment_store.h"
#include "model/decoder.h"

namespace rk::engine {

/// What else steps are given or asked for; null: nothing.
struct StepExtras {
  model::StepSampling* sampling = nullptr;
  const model::ScoreSink* scores = nullptr;
  DocumentFfn* ffn = nullptr;
};

class Engine : public Runner {
 public:
  struct Options {
    std::string model;      ///< GGUF file or Hugging Face folder
    std::string plan;       ///< head plan file; empty: all global
    std::string plan_json;  ///< the same as text; wins over `plan`
    std::string card;       ///< card file (engine/card.h); empty: those of `card_folders`
    std::vector<std::string> card_folders;  ///< without a card no approximate mode passes
    std::string cache_dir;           ///< remembers digests of weight files; empty: nothing is kept
    int threads = 0;                 ///< 0: all usable cores
    kernels::ForcedVariants forced;  ///< --kernel OP=VARIANT
    Device device;                   ///< where the model runs
    DType kv_dtype = DType::kF16;    ///< of stored rows: f16, bf16, f32; a card keeps bf16
    int64_t context_tokens = 0;      ///< 0: what the model was trained for
    int64_t kv_bytes = 0;            ///< pool; 0: room for four contexts, at most half of memory
                                     ///< (of a card: of what the weights leave)
    model::CardWeights card_weights = model::CardWeights::kAuto;
    bool fit = false;  ///< on a card: a shorter context where the model's does not fit
    /// Told before anything is put on a card what will lie there: one line.
    std::function<void(const std::string&)> on_memory_plan;
    /// Instead of `model`: random weights of this shape on a card, for speed.
    std::optional<model::ModelConfig> random_shape;
    kv::RowFormat store_format = kv::RowFormat::kAsComputed;  ///< of documents at rest
    int64_t store_bytes = 0;  ///< of documents at rest in fewer bits, at most; 0: as many as the
                              ///< pool's, at most half of the memory that is left
    int max_variants = 4;     ///< per document and lead, the lead-alone one not counted; at least 1
    int max_step_rows = 0;    ///< active rows per forward pass; 0: 256, on a card 4096
    ShadowOptions shadow;     ///< which approximate answers are checked beside dense in idle work
  };
  /// Errors: those of model and plan files; kExhausted with both numbers before anything is loaded
  /// where the model cannot fit into memory.
  static Result<std::unique_ptr<Engine>> create(const Options& options);
  ~Engine() override;

  /// Fails every request with kUnavailable after a card's failure: nothing it would answer could be
  /// trusted.
  void run(const Request& request, double queue_ms, Listener& listener) override;
  Status check(const Request& request) const override;
  int64_t context_tokens() const override { return context_tokens_; }
  int64_t vocab_size() const override { return decoder_->config().vocab_size; }
  Status health() const override;
  /// One step of what pays later: a document behind the one that keeps preceding it, then shadow
  /// checks. May push stored rows out, never those of a request.
  bool idle_work() override;
  ShadowTracker::Stats shadow_stats() const override { return shadows_->stats(); }

  /// Logits of the last `num_rows` prompt rows (< 0: all), [rows, vocab], from the path that
  /// answers. Errors: kInvalidArgument for rows that the mode never runs.
  Status evaluate(const Request& request, int64_t num_rows, std::vector<float>& logits,
                  RequestStats* stats);

  /// What a card must name to be this engine's. Reads the weight files once.
  Result<CardIdentity> card_identity() const;
  const model::ModelConfig& config() const { return decoder_->config(); }
  const kv::HeadPlan& plan() const { return plan_; }
  const kv::PagePool& pool() const { return *pool_; }
  const kv::SegmentStore& segments() const { return segments_; }
  int64_t weight_bytes() const { return decoder_->weight_bytes(); }
  /// For engine/cost.h: what this engine's requests would cost.
  const CostShape& cost_shape() const { return cost_shape_; }
  /// Forgets every stored row.
  void clear_cache();
  /// Gives back the pages that documents at rest were expanded into: the next prompt pays for it
  /// again. For measurements.
  void drop_expanded() { segments_.drop_expanded(); }

 private:
  /// Rows of a lead and the company behind it, in one frame.
  struct ContextRows {
    std::vector<int32_t> ids;
    std::vector<kv::PrefixTree::Piece> pieces;
  };
  /// A running request.
  struct Run {
    std::deque<ContextRows> contexts;  ///< computed or found for its documents
    Prompt prompt;
    Mode mode = Mode::kDense;
    std::unique_ptr<kv::SequenceKv> kv;
    Assembly assembly;
    double ingest_ms = 0, probe_ms = 0, expand_ms = 0;
    CostLayout layout;  ///< for the cost model
    DocumentFfn ffn;    ///< kRedknot
    DocumentFfn* sparse_ffn() { return ffn.threshold < 1 ? &ffn : nullptr; }
  };
  /// Asked between steps; true stops with kCancelled.
  using CancelFn = std::function<bool()>;

  Engine() = default;
  Status load(const Options& options);
  Status load_decoder(const Options& options, kv::IdentityBuilder& identity);
  Status load_plan(const Options& options);
  Status plan_card(const Options& options, const model::WeightFiles* files,
                   const model::ModelConfig& config, model::Decoder::Options& decoder);
  Status create_pool(const Options& options);
  // In engine_store.cc, with as_stored() and rows_of().
  Status create_store(const Options& options);
  Status load_key_bias();
  bool keeps_codes() const { return store_format_ != kv::RowFormat::kAsComputed; }
  int64_t pool_bytes_ = 0;  ///< planned
  /// Of the first `num_layers` layers; 0: of all.
  std::unique_ptr<kv::SequenceKv> new_sequence(bool all_global, int num_layers = 0) const;
  std::string root_of(const Request& request) const;
  std::string context_root(const Request& request) const;
  kv::Digest document_key(const Request& request, std::span<const int32_t> lead,
                          std::span<const int32_t> tokens) const;
  bool reusing(Mode mode) const;

  /// The request with the mode that the gate lets through, and what it says about it.
  Request through_gate(const Request& request, RequestStats& said) const;
  class OrderFits;
  /// Puts the documents into the best order and says which it is.
  std::vector<int> order_documents(Request& request) const;
  Status start(const Request& request, const CancelFn& cancelled, Run& run);
  static void note_layout(const Request& request, const Available& available, Run& run);
  Status find_segments(const Request& request, const CancelFn& cancelled, Run& run,
                       Available& available);
  // What follows is in engine_variants.cc.
  Result<const ContextRows*> context_rows(const Request& request, std::span<const int32_t> ids,
                                          const CancelFn& cancelled, Run& run);
  Result<std::shared_ptr<const kv::FrameRows>> rows_behind(const Request& request,
                                                           std::span<const int32_t> context,
                                                           std::span<const int32_t> document,
                                                           const CancelFn& cancelled, Run& run);
  /// Computes a document behind its lead and each company (none: the lead alone).
  Result<std::shared_ptr<const kv::Segment>> ingest(
      const Request& request, const Prompt::Span& span,
      const std::vector<std::vector<int32_t>>& companies, const CancelFn& cancelled, Run& run);
  Status find_segment(const Request& request, size_t index, const CancelFn& cancelled, Run& run,
                      Available& available);
  /// The segment as the store keeps it: with its rows, or at rest in fewer bits and then not exact.
  Result<std::shared_ptr<const kv::Segment>> as_stored(std::shared_ptr<kv::Segment> segment);
  /// Keeps it for later prompts, where there is room.
  void store(const kv::Digest& document, std::shared_ptr<const kv::Segment> segment);
  /// Pages of a document, expanded where it is at rest.
  Result<std::shared_ptr<const kv::FrameRows>> rows_of(const kv::Digest& document,
                                                       const kv::Segment& segment, Run& run);
  void keep_segment(const Request& request, const Prompt& prompt, size_t index,
                    std::shared_ptr<const kv::FrameRows> rows);
  void note_pairs(const Request& request, const Run& run);
  /// A document being computed behind its predecessor, between two steps.
  struct IdleRun {
    VariantJob job;
    std::unique_ptr<kv::SequenceKv> kv;
    std::vector<int32_t> tokens;  ///< context and document
    int32_t begin = 0, next = 0;  ///< of the document; the next row to run
    int document_piece = 0;
  };
  Status begin_idle(VariantJob job);
  Status step_idle(IdleRun& idle);
  bool variant_work();
  // What follows is in engine_shadow.cc.
  /// An answer to be checked.
  struct ShadowJob {
    Request led;  ///< with the answer's tokens but the last
    Setting setting;
    int64_t prompt_tokens = 0;
    Level claimed = Level::kNone;
    size_t num_rows = 0;  ///< last rows of `led` whose logits are compared
  };
  /// One that is being followed: by its mode, then by dense.
  struct ShadowRun {
    ShadowJob job;
    std::unique_ptr<Run> run;
    size_t next = 0;                  ///< of run->assembly.active
    std::vector<float> logits, mode;  ///< [num_rows, vocab] of this pass, of the first one
  };
  void note_shadow(const Request& request, const Run& run, const RequestStats& stats);
  void drop_shadow();
  Status begin_shadow_pass(ShadowRun& shadow, Mode mode);
  Status step_shadow(ShadowRun& shadow, bool& done);
  bool shadow_work();

  // Scores of the prompt's rows, by position; engine_select.cc.
  /// How much the question looks at each row (spec A5).
  Result<std::vector<double>> probe(const Request& request, const Available& available,
                                    const CancelFn& cancelled, const Prompt& prompt);
  /// How far each document row's K and V of the second layer are from those computed again.
  Result<std::vector<double>> deviation(const Available& available, const CancelFn& cancelled,
                                        const Prompt& prompt);
  Result<std::vector<double>> score_rows(const Request& request, const Available& available,
                                         const CancelFn& cancelled, const Prompt& prompt);
  /// kRedknot: heads keep the documents' stored rows, rows leave out FFNs.
  void prepare_redknot(const Request& request, const Available& available, Run& run) const;
  Result<Targets> choose_targets(const Request& request, const Available& available,
                                 const CancelFn& cancelled, Run& run);
  /// Makes room for the pages that these rows will be written to.
  Status make_room_for(const kv::SequenceKv& kv, std::span<const int32_t> active) {
    return make_room(pages_for(int64_t{kv.num_pages_to_write(active)} * pool_->page_rows()));
  }
  /// What the last active row gives: its token where the device chooses, else its logits.
  struct Next {
    std::vector<float> logits;
    int32_t token = -1;
  };
  /// Passes it on. Behind kInternal, a failure of the device, the engine never answers again.
  Status note_failure(Status status);
  /// Runs the active rows; logits of the rows of `active` from index `first_logits` on are
  /// appended.
  Status run_rows(kv::SequenceKv& kv, std::span<const int32_t> tokens,
                  std::span<const int32_t> active, size_t first_logits, const CancelFn& cancelled,
                  std::vector<float>& logits, const StepExtras& extras = {});
  /// Runs the active rows for the next token of the answer.
  Status run_to_next(const Request& request, Run& run, std::span<const int32_t> active,
                     size_t num_prompt, int64_t draw, const CancelFn& cancelled, Next& next);
  Status decode(const Request& request, Run& run, Next& next, double start_ms, Listener& listener,
                Outcome& outcome);
  void keep_exact_rows(const Request& request, Run& run);
  Status make_room(int64_t num_pages);
  int64_t pages_for(int64_t rows) const;

  ThreadPool& threads() { return *threads_; }

  std::unique_ptr<ThreadPool> threads_;
  kernels::ForcedVariants forced_;
  kernels::Context ctx_;
  std::unique_ptr<model::Decoder> decoder_;
  kv::HeadPlan plan_;
  std::vector<kv::Visible> visible_, dense_visible_;
  Status failure_;  ///< of the card; once set the engine never answers again
  mutable std::mutex failure_mutex_;
  std::optional<Card> card_;
  CostShape cost_shape_;
  std::string model_path_, cache_dir_;
  std::string identity_;  ///< what shaped every row of this engine
  int64_t context_tokens_ = 0;
  std::unique_ptr<kv::PagePool> pool_;  ///< outlives everything that shares its pages
  kv::PrefixTree prefixes_;
  kv::RowFormat store_format_ = kv::RowFormat::kAsComputed;
  Buffer key_bias_;  ///< the decoder's, of all layers, where the pool lies; empty: none
  kv::RowCoder coder_;
  int max_variants_ = 4;
  int64_t store_bytes_ = 0;
  kv::SegmentStore segments_;
  PredecessorQueue pairs_;
  std::unique_ptr<IdleRun> idle_;  ///< holds pages between steps
  double shadow_share_ = 0;
  std::unique_ptr<ShadowTracker> shadows_ = std::make_unique<ShadowTracker>();
  std::deque<ShadowJob> shadow_jobs_;
  std::unique_ptr<ShadowRun> shadow_;  ///< holds pages between steps
};

}  // namespace rk::engine
