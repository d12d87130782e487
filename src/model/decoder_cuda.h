// The decoder on a card (decoder_cuda.cc: a step; decoder_load_cuda.cc: what is reserved before
// it): bf16 weights and activations, f32 residuals and sums. A step allocates nothing on the card
// and waits for it only where logits or tokens are handed back. Host code: the kernels are behind
// kernels/*_cuda.h. Engine thread only.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "kernels/attn_mass/attn_mass_cuda.h"
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/rope/rope.h"
#include "kernels/seg_attn/seg_attn_cuda.h"
#include "model/card_step.h"
#include "model/decoder_devices.h"

namespace rk::model {

class CudaDecoder : public Decoder {
 public:
  explicit CudaDecoder(const LoadArgs& args) : Decoder(args.config, args.options, args.family) {}
  ~CudaDecoder() override {
    if (stream_ != nullptr) (void)sync_stream(stream_);
  }
  Status load(const WeightFiles* files);
  Status forward(const StepInput& step, kernels::Context& ctx) override;
  Result<PageRows> read_pages(const kv::PagePool& pool,
                              std::span<const kv::PageId> ids) const override;
  int max_logits_rows() const override { return std::min(kMaxCardLogitsRows, max_step_rows()); }
  kernels::RopeView rope() const override { return rope_; }
  Stream stream() const override { return stream_; }
  Status run_noted(kv::PagePool& pool) override;
  bool can_sample() const override { return true; }
  HostWork host_work() const override { return host_work_; }
  int64_t workspace_bytes() const override {
    return workspace_.num_bytes() + parts_.num_bytes() + tables_.num_bytes() + arena_.num_bytes() +
           mass_.num_bytes() + mass_pinned_.num_bytes() + ffn_pinned_.num_bytes();
  }
  MatrixBytes matrix_bytes() const override {
    return sum_matrices(layers_, output_ ? *output_ : *embedding_);
  }

 private:
  using Weight = std::unique_ptr<kernels::CudaWeight>;
  struct Layer {
    Weight qkv, o, gate_up, down;
    Buffer attn_norm, ffn_norm, qkv_bias, o_bias, q_norm, k_norm;  // f32
  };
  /// What a step put on the card.
  struct Step {
    const int32_t *tokens = nullptr, *positions = nullptr, *row_index = nullptr,
                  *sequence = nullptr, *page_index = nullptr, *page_slot = nullptr;
    const uint8_t* in_stored = nullptr;  ///< null: every row is every head's own
    const kernels::DeviceSequence* sequences = nullptr;
    CardPlans plans;
    // The rows with logits: all that is left of the step behind the last layer's K and V.
    int64_t num_logits = 0;
    const int32_t *logits_rows = nullptr, *logits_positions = nullptr;
    const kernels::DeviceSequence* logits_sequences = nullptr;
    CardPlans logits_plan;
    // The rows whose attention is added up: those from first_scored on; none without a sink.
    int64_t first_scored = 0, num_scored = 0;
    const kernels::AttnMassTile* tiles = nullptr;
    int num_tiles = 0;
    int64_t num_keys = 0;  ///< positions of the sequence that is scored
    kernels::Work mass_work;
    View k_pages, v_pages;
    int num_layers = 0;                               ///< that run
    const kernels::SampleRow* sample_rows = nullptr;  // null: the logits go back
    const kernels::SampleAdjust* sample_adjust = nullptr;
    const SparseFfn* ffn = nullptr;
    /// One row of every sequence, all with logits: such a step is recorded and replayed.
    bool is_decode = false;
    /// Everything that a recording depends on.
    std::vector<int64_t> key() const;
  };
  struct Recorded {
    std::vector<int64_t> key;
    CardGraph graph;
    kernels::Work linear;  ///< of the linear layers; attention's is planned anew for every step
  };

  /// Where weights come from: files, or (null) a seed.
  struct Source {
    const WeightFiles* files = nullptr;
    uint64_t seed = 0;
    std::string prefix;  ///< of names
  };
  struct Part {
    const char* name;
    int64_t size;
  };
  using Parts = std::initializer_list<Part>;
  Status load_layer(Source& source, int index);
  /// Matrices [size, k] one below the other; random ones keep the size of what passes through.
  Result<Weight> matrix(Source& source, Parts parts, int64_t k, CardWeights weights);
  /// The same of parts that the files keep in fp8.
  Result<Weight> fp8_matrix(Source& source, Parts parts, int64_t k);
  /// f32 vectors one behind the other; `otherwise` where there are no files.
  Result<Buffer> vector(Source& source, Parts parts, float otherwise);
  Result<Buffer> to_card(std::span<const float> values);
  Status carve_workspace();
  Status stage(const StepInput& input, const Rows& rows, Step& step);
  /// gemm_->run() and gemm_->run_normed(), counted in linear_.
  Status linear(const kernels::GemmCudaArgs& args);
  Status linear_normed(const kernels::NormedGemmArgs& args);
  void count(int64_t num_rows, const kernels::CudaWeight& w, DType y_dtype, bool accumulate);
  /// Adds the FFN of x's rows to them: of all, or of those that this layer's attention chooses.
  Status run_ffn(const Layer& w, const View& x);
  Status run_sparse_ffn(const Layer& w, const View& x, const SparseFfn& ffn);
  Status send_norms(const View& attended);
  Status run_layer(int index, int64_t num_rows, const Step& step);
  Status stage_scores(const StepInput& input, const Rows& rows, const CardSights::Set& set,
                      Step& step);
  Status add_scores(int layer, const View& q, const Step& step);
  Status attend(int layer, const View& q, const View& o, const int32_t* q_pos,
                const kernels::DeviceSequence* sequences, const CardPlans::Plan& plan,
                const Step& step);
  Status run_step(int64_t num_rows, const Step& step);
  Status hand_back(const StepInput& input, const Step& step);
  void note_host_work(double begin_ms, const StepInput& input);
  Status prepare_gemm();
  View rows_of(const View& view, int64_t rows) const { return view.rows(0, rows); }

  Stream stream_ = nullptr;
  HostWork host_work_;
  kernels::Work linear_;  ///< of the step that is being launched
  CardInfo card_;
  std::unique_ptr<kernels::GemmCuda> gemm_;
  std::vector<Layer> layers_;
  Buffer output_norm_;
  Weight embedding_, output_;
  Buffer rope_cos_sin_;
  kernels::RopeView rope_;
  Buffer workspace_, parts_;
  Buffer logits_pinned_;         ///< logits on the host, or tokens, which the card writes there
  Buffer mass_, mass_pinned_;    ///< [G, context] f32; pinned: the same on the host
  Buffer ffn_pinned_;            ///< norms_ and ffn_rows_ on the host
  float* norms_ = nullptr;       ///< [max_step_rows] of attention outputs
  int32_t* ffn_rows_ = nullptr;  ///< [max_step_rows]
  CardEvent norms_sent_;
  View x_, normed_, qkv_, attended_, gate_up_, hidden_, last_x_, last_q_, logits_;
  float *part_o_ = nullptr, *part_lse_ = nullptr, *lse_ = nullptr;  ///< lse: [max_step_rows, H]
  int32_t* next_item_ = nullptr;
  CardArena arena_;
  CardTables tables_;
  CardSights sights_;
  std::vector<Recorded> recorded_;  // the one used last comes last
};

/// An f32 buffer of the card as a vector.
inline View vector_view(const Buffer& buffer) {
  return View(buffer.data(), DType::kF32, {buffer.num_bytes() / 4});
}

}  // namespace rk::model
