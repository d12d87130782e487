// The decoder: weights, and one forward pass over the active rows of a step. One layer loop serves
// every family (model/family.h) and every mode: which rows are active and what each head sees was
// decided above, in kv. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "kernels/gemm/gemm.h"
#include "kernels/rope/rope.h"
#include "kv/sequence_kv.h"
#include "model/config.h"
#include "model/family.h"
#include "model/weight_files.h"
#include "tensor/buffer.h"

namespace rk::model {

/// The active rows of one sequence in a step.
struct StepSequence {
  kv::SequenceKv* kv = nullptr;        ///< rows at `positions` were prepared
  std::span<const int32_t> tokens;     ///< [T_b]
  std::span<const int32_t> positions;  ///< [T_b] ascending, gaps allowed
};

struct StepInput {
  std::span<const StepSequence> sequences;
  /// Rows (of the concatenated active rows, ascending) whose logits are wanted.
  std::span<const int32_t> logits_rows;
  View logits;  ///< [logits_rows.size(), vocab] f32 out
};

class Decoder {
 public:
  struct Options {
    int max_step_rows = 512;     ///< active rows one forward pass takes
    int64_t context_tokens = 0;  ///< positions RoPE tables cover; 0 = the model's
  };
  /// Loads and packs all weights. Errors: those of the files; kUnimplemented for unknown families.
  static Result<std::unique_ptr<Decoder>> load(const WeightFiles& files, const ModelConfig& config,
                                               const Options& options, kernels::Context& ctx);

  /// One forward pass: writes K and V of every active row into its sequence, fills the logits.
  /// Errors: kInvalidArgument for a token id outside the vocabulary or too many rows.
  Status forward(const StepInput& step, kernels::Context& ctx);

  const ModelConfig& config() const { return config_; }
  int max_step_rows() const { return max_step_rows_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  int64_t workspace_bytes() const { return workspace_.num_bytes(); }

 private:
  struct Layer {
    std::unique_ptr<kernels::PackedWeight> qkv, o, gate_up, down;
    std::vector<float> attn_norm, ffn_norm, qkv_bias, o_bias, q_norm, k_norm;
  };
  struct Rows;  // the step's rows, flattened

  Decoder() = default;
  Status load_layer(const WeightFiles& files, int index, kernels::Context& ctx);
  Result<std::unique_ptr<kernels::PackedWeight>> pack(const WeightFiles& files,
                                                      std::span<const View> parts,
                                                      kernels::Context& ctx);
  Status carve_workspace();
  Status embed(const Rows& rows);
  Status run_layer(int index, const Rows& rows, int64_t& num_rows, const StepInput& step,
                   kernels::Context& ctx);

  ModelConfig config_;
  const Family* family_ = nullptr;
  int max_step_rows_ = 0;
  int64_t weight_bytes_ = 0;
  std::vector<Layer> layers_;
  std::vector<float> output_norm_;
  std::unique_ptr<kernels::PackedWeight> embedding_;  ///< also the head of tied models
  std::unique_ptr<kernels::PackedWeight> output_;     ///< null where tied
  std::unique_ptr<kernels::RopeTable> rope_;
  Buffer workspace_;
  View x_, normed_, qkv_, attended_, gate_up_;  // [max_step_rows, ...] f32
  std::vector<int64_t> slots_;
  std::vector<kernels::HeadRows> heads_;
};

/// Bytes the weights will take once packed, and the workspace, before anything is loaded.
int64_t estimate_memory_bytes(const WeightFiles& files, const ModelConfig& config,
                              const Decoder::Options& options);

}  // namespace rk::model
