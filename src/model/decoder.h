// The decoder: weights, and one forward pass over the active rows of a step, for every family
// (model/family.h) and every mode: which rows are active and what each head sees was decided above,
// in kv. One implementation per kind of device (decoder_cpu.cc, decoder_cuda.cc). Engine thread
// only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "kernels/rope/rope.h"
#include "kernels/sample/sample_cuda.h"
#include "kv/sequence_kv.h"
#include "model/config.h"
#include "model/family.h"
#include "model/sparse_ffn.h"
#include "model/weight_files.h"
#include "tensor/buffer.h"
#include "tensor/device.h"

namespace rk::model {

/// The active rows of one sequence in a step.
struct StepSequence {
  /// Rows at `positions` were prepared. One of fewer layers than the model's runs the first of them
  /// only, for their K and V: a step of such sequences has no logits.
  kv::SequenceKv* kv = nullptr;
  std::span<const int32_t> tokens;     ///< [T_b]
  std::span<const int32_t> positions;  ///< [T_b] ascending, gaps allowed
};

/// A token for every row with logits, chosen on the device: nothing else comes back.
struct StepSampling {
  std::span<const kernels::SampleRow> rows;  ///< [logits_rows.size()]
  std::span<const kernels::SampleAdjust> adjust;
  int32_t* tokens = nullptr;  ///< [logits_rows.size()] out, host memory; -1: no logit is finite
};

/// Where a step leaves how much its later rows looked at each row (kernels/attn_mass): the sum of
/// attention weights over those rows, all layers and all heads, by position of the only sequence.
struct ScoreSink {
  int32_t first_query = 0;  ///< rows at this position and later count
  std::span<double> mass;   ///< added to; covers every position of the sequence
};

struct StepInput {
  std::span<const StepSequence> sequences;
  /// Rows (of the concatenated active rows, ascending) whose logits are wanted.
  std::span<const int32_t> logits_rows;
  View logits;  ///< [logits_rows.size(), vocab] f32 out, in host memory; empty with `sampling`
  const StepSampling* sampling = nullptr;  ///< only where can_sample()
  const ScoreSink* scores = nullptr;       ///< null: not wanted, and costs nothing
  const SparseFfn* ffn = nullptr;          ///< null: every row runs every FFN; of one sequence
};

/// How a card keeps the layers' matrices. kAuto: as the file has them, quantised ones in the least
/// form that loses nothing.
enum class CardWeights : uint8_t { kAuto, kBf16, kFp8 };
/// Whether a layer's products may be in fp8: asked for, or (kAuto) as the files have it.
bool takes_fp8(const WeightFiles* files, CardWeights weights);

/// Bytes of the linear layers' weights as they lie in memory: what one forward pass reads.
struct MatrixBytes {
  double qkv = 0;   ///< of all layers
  double rest = 0;  ///< O, gate, up and down of all layers but the last
  double last = 0;  ///< ... of the last, whose rows without logits stop behind K and V
  double output = 0;
};

class Decoder {
 public:
  struct Options {
    int max_step_rows = 512;     ///< active rows one forward pass takes
    int64_t context_tokens = 0;  ///< positions RoPE tables cover; 0 = the model's
    Device device;
    int max_sequences = 1;     ///< sequences of one step; a card keeps a page table for each
    int max_list_pages = 0;    ///< entries of one head's page list; 0: what the context needs
    uint64_t random_seed = 0;  ///< of random()
    CardWeights card_weights = CardWeights::kAuto;
  };
  /// Loads all weights in the form the device computes with. Errors: those of the files and the
  /// device; kUnimplemented for unknown families.
  static Result<std::unique_ptr<Decoder>> load(const WeightFiles& files, const ModelConfig& config,
                                               const Options& options, kernels::Context& ctx);
  /// The same shapes with random weights made on the device from options.random_seed, for speed.
  /// Errors: kUnimplemented on the CPU.
  static Result<std::unique_ptr<Decoder>> random(const ModelConfig& config, const Options& options);
  virtual ~Decoder() = default;
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// One forward pass: writes K and V of every active row into its sequence, fills the logits,
  /// counts its work in ctx.work.
  /// Errors: kInvalidArgument for a token id outside the vocabulary or too many rows, or scores of
  /// several sequences; kInternal where a card failed: nothing it computes afterwards may be used.
  virtual Status forward(const StepInput& step, kernels::Context& ctx) = 0;

  struct PageRows {
    std::vector<float> k, v;  ///< [pages, P, D]
  };
  /// What pages hold, on the host; waits for the device.
  virtual Result<PageRows> read_pages(const kv::PagePool& pool,
                                      std::span<const kv::PageId> ids) const;
  /// The rotation that K is stored with, tables in kv_memory(): positions that ran are readable.
  virtual kernels::RopeView rope() const = 0;
  /// Of a card: what forward() puts its work on. Null on the CPU.
  virtual Stream stream() const { return nullptr; }
  /// Carries out what `pool` noted for the next step: before anything but a step touches its pages.
  virtual Status run_noted(kv::PagePool& pool) {
    (void)pool;
    return {};
  }

  virtual bool can_sample() const { return false; }
  const ModelConfig& config() const { return config_; }
  int max_step_rows() const { return options_.max_step_rows; }
  /// Rows with logits that one forward pass takes.
  virtual int max_logits_rows() const { return options_.max_step_rows; }
  /// Where the pool of the sequences' pages must lie.
  Memory kv_memory() const { return options_.device.is_cuda() ? Memory::kCard : Memory::kHost; }
  int64_t weight_bytes() const { return weight_bytes_; }
  virtual MatrixBytes matrix_bytes() const = 0;
  /// What every row's K has in it before rotation: [num_kv_heads * head_dim], empty where the
  /// family has none (or norms K afterwards).
  std::span<const float> key_bias(int layer) const {
    return key_bias_.empty() ? std::span<const float>() : key_bias_[static_cast<size_t>(layer)];
  }
  virtual int64_t workspace_bytes() const = 0;
  /// What the last forward pass cost beside the card's own work; nothing on the CPU.
  struct HostWork {
    double ms = 0;               ///< until everything was handed to the card
    int64_t uploaded_bytes = 0;  ///< rows, plans and changed page tables
    int64_t table_bytes = 0;     ///< page tables of the step's sequences, on the card
  };
  virtual HostWork host_work() const { return {}; }

 protected:
  Decoder(const ModelConfig& config, const Options& options, const Family& family);
  /// Flattens the step. Errors: as forward's.
  struct Rows {
    std::vector<int32_t> tokens, positions, row_index, q_begin;  ///< q_begin: [B+1]
    int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  };
  Result<Rows> flatten(const StepInput& step) const;
  /// Layers that the step's sequences hold.
  static int num_layers(const StepInput& step) { return step.sequences[0].kv->num_layers(); }
  int64_t context_tokens() const {
    return options_.context_tokens > 0 ? options_.context_tokens : config_.context_tokens;
  }
  int64_t q_width() const { return int64_t{config_.num_heads} * config_.head_dim; }
  int64_t kv_width() const { return int64_t{config_.num_kv_heads} * config_.head_dim; }

  ModelConfig config_;
  Options options_;
  const Family& family_;
  int64_t weight_bytes_ = 0;

 private:
  Status read_key_bias(const WeightFiles& files);
  std::vector<std::vector<float>> key_bias_;  ///< per layer; empty: none
};

/// What a card will hold before the KV pool, by the numbers alone.
struct CardMemory {
  int64_t weight_bytes = 0, workspace_bytes = 0;
  int64_t table_bytes = 0;  ///< page tables of options.max_sequences sequences
  int64_t total() const { return weight_bytes + workspace_bytes + table_bytes; }
};
/// `files` may be null (random weights: bf16). `multiplies_fp8`: the card has products for fp8 as
/// files have it (Hopper); else such matrices become bf16. Pure but for reading the files'
/// directory.
CardMemory card_memory(const WeightFiles* files, const ModelConfig& config,
                       const Decoder::Options& options, bool multiplies_fp8 = true);

/// Bytes the weights will take once packed, and the workspace, before anything is loaded.
int64_t estimate_memory_bytes(const WeightFiles& files, const ModelConfig& config,
                              const Decoder::Options& options);

}  // namespace rk::model
