// The decoder on a card: bf16 weights and activations, f32 residuals and sums. Everything it needs
// is reserved when it is loaded; a step allocates nothing on the card and waits for it only where
// logits are handed back. Host code only: the kernels are behind kernels/*_cuda.h.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/layer/layer_cuda.h"
#include "kernels/rope/rope.h"
#include "kernels/seg_attn/seg_attn_cuda.h"
#include "model/card_step.h"
#include "model/decoder_devices.h"
#include "tensor/quant_block.h"

namespace rk::model {
namespace {

constexpr View kNone;
constexpr size_t kMaxRecorded = 16;
// Decode steps leave room for items, merges and runs to become more.
constexpr int kDecodeGrain = 256;
constexpr size_t kRunGrain = 16, kAdjustGrain = 1024;
constexpr int64_t kArenaBytes = int64_t{16} << 20;

class CudaDecoder : public Decoder {
 public:
  explicit CudaDecoder(const LoadArgs& args) : Decoder(args.config, args.options, args.family) {}
  ~CudaDecoder() override {
    if (stream_ != nullptr) (void)sync_stream(stream_);
  }
  Status load(const WeightFiles* files);
  Status forward(const StepInput& step, kernels::Context& ctx) override;
  int max_logits_rows() const override { return std::min(kMaxCardLogitsRows, max_step_rows()); }
  bool can_sample() const override { return true; }
  double host_ms() const override { return host_ms_; }
  int64_t workspace_bytes() const override {
    return workspace_.num_bytes() + parts_.num_bytes() + tables_.num_bytes() + arena_.num_bytes();
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
    const kernels::DeviceSequence* sequences = nullptr;
    CardPlans plans;
    // The rows with logits: all that is left of the step behind the last layer's K and V.
    int64_t num_logits = 0;
    const int32_t *logits_rows = nullptr, *logits_positions = nullptr;
    const kernels::DeviceSequence* logits_sequences = nullptr;
    CardPlans logits_plan;
    View k_pages, v_pages;
    const kernels::SampleRow* sample_rows = nullptr;  // null: the logits go back
    const kernels::SampleAdjust* sample_adjust = nullptr;
    /// One row of every sequence, all with logits: such a step is recorded and replayed.
    bool is_decode = false;
    /// Everything that a recording depends on.
    std::vector<int64_t> key() const;
  };
  struct Recorded {
    std::vector<int64_t> key;
    CardGraph graph;
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
  /// f32 vectors one behind the other; `otherwise` where there are no files.
  Result<Buffer> vector(Source& source, Parts parts, float otherwise);
  Result<Buffer> to_card(std::span<const float> values);
  Status carve_workspace();
  Status stage(const StepInput& input, const Rows& rows, Step& step);
  Status run_copies(kv::PagePool& pool);
  Status run_layer(int index, int64_t num_rows, const Step& step);
  Status attend(int layer, const View& q, const View& o, const int32_t* q_pos,
                const kernels::DeviceSequence* sequences, const CardPlans::Plan& plan,
                const Step& step);
  Status run_step(int64_t num_rows, const Step& step);
  Status hand_back(const StepInput& input);
  Status prepare_gemm();
  View rows_of(const View& view, int64_t rows) const { return view.rows(0, rows); }

  Stream stream_ = nullptr;
  double host_ms_ = 0;
  CardInfo card_;
  std::unique_ptr<kernels::GemmCuda> gemm_;
  std::vector<Layer> layers_;
  Buffer output_norm_;
  Weight embedding_, output_;
  Buffer rope_cos_sin_;
  kernels::RopeView rope_;
  Buffer workspace_, parts_, logits_pinned_;
  View x_, normed_, qkv_, attended_, gate_up_, hidden_, last_x_, last_q_, logits_;
  float *part_o_ = nullptr, *part_lse_ = nullptr;
  int32_t *next_item_ = nullptr, *tokens_ = nullptr;
  CardArena arena_;
  CardTables tables_;
  CardSights sights_;
  std::vector<Recorded> recorded_;  // the one used last comes last
};

View vector_view(const Buffer& buffer) {
  return View(buffer.data(), DType::kF32, {buffer.num_bytes() / 4});
}

bool quantised(DType dtype) { return dtype_info(dtype).block_elems > 1; }

Result<Buffer> CudaDecoder::to_card(std::span<const float> values) {
  const auto bytes = static_cast<int64_t>(values.size_bytes());
  RK_TRY(Buffer out, Buffer::allocate(bytes, Memory::kCard));
  RK_RETURN_IF_ERROR(copy_to_card(out.data(), values.data(), bytes, stream_));
  RK_RETURN_IF_ERROR(sync_stream(stream_));  // at load only; `values` is not pinned
  return out;
}

Result<Buffer> CudaDecoder::vector(Source& source, Parts parts, float otherwise) {
  std::vector<float> values;
  for (const Part& part : parts) {
    const size_t old = values.size();
    values.resize(old + static_cast<size_t>(part.size), otherwise);
    if (source.files == nullptr) continue;
    RK_TRY(const View view, source.files->tensor(source.prefix + part.name, {part.size}));
    dequantize(view.dtype, view.data, values.data() + old, part.size);
  }
  return to_card(values);
}

Result<CudaDecoder::Weight> CudaDecoder::matrix(Source& source, Parts parts, int64_t k,
                                                CardWeights weights) {
  Weight weight;
  auto form =
      weights == CardWeights::kFp8 ? kernels::CudaWeightForm::kFp8 : kernels::CudaWeightForm::kBf16;
  if (source.files == nullptr) {
    int64_t n = 0;
    for (const Part& part : parts) n += part.size;
    const float deviation = 1.0F / std::sqrt(static_cast<float>(k));
    RK_TRY(weight, gemm_->random(n, k, form, ++source.seed, deviation));
  } else {
    std::vector<View> views;
    for (const Part& part : parts) {
      RK_TRY(const View view, source.files->tensor(source.prefix + part.name, {part.size, k}));
      views.push_back(view);
    }
    // Quantised parts keep the least form that loses nothing.
    if (weights == CardWeights::kAuto &&
        std::ranges::any_of(views, [](const View& v) { return quantised(v.dtype); })) {
      form = kernels::CudaWeightForm::kInt4G32;
    }
    RK_TRY(weight, gemm_->upload(views, form));
    for (const View& view : views) source.files->forget(view);
  }
  weight_bytes_ += weight->num_bytes();
  return weight;
}

Status CudaDecoder::load_layer(Source& source, int index) {
  const ModelConfig& c = config_;
  Layer& layer = layers_[static_cast<size_t>(index)];
  source.prefix = cat("blk.", index, ".");
  const int64_t q = q_width(), kv = kv_width();
  const CardWeights weights = options_.card_weights;
  RK_TRY(layer.qkv,
         matrix(source, {{"attn_q.weight", q}, {"attn_k.weight", kv}, {"attn_v.weight", kv}},
                c.hidden, weights));
  RK_TRY(layer.o, matrix(source, {{"attn_output.weight", c.hidden}}, q, weights));
  RK_TRY(layer.gate_up,
         matrix(source, {{"ffn_gate.weight", c.ffn}, {"ffn_up.weight", c.ffn}}, c.hidden, weights));
  RK_TRY(layer.down, matrix(source, {{"ffn_down.weight", c.hidden}}, c.ffn, weights));
  RK_TRY(layer.attn_norm, vector(source, {{"attn_norm.weight", c.hidden}}, 1));
  RK_TRY(layer.ffn_norm, vector(source, {{"ffn_norm.weight", c.hidden}}, 1));
  if (family_.qkv_bias || c.qkv_bias) {
    RK_TRY(layer.qkv_bias,
           vector(source, {{"attn_q.bias", q}, {"attn_k.bias", kv}, {"attn_v.bias", kv}}, 0));
  }
  if (c.o_bias) {
    RK_TRY(layer.o_bias, vector(source, {{"attn_output.bias", c.hidden}}, 0));
  }
  if (family_.qk_norm) {
    RK_TRY(layer.q_norm, vector(source, {{"attn_q_norm.weight", c.head_dim}}, 1));
    RK_TRY(layer.k_norm, vector(source, {{"attn_k_norm.weight", c.head_dim}}, 1));
  }
  return {};
}

Status CudaDecoder::load(const WeightFiles* files) {
  const ModelConfig& c = config_;
  if (c.head_dim != 64 && c.head_dim != 128 && c.head_dim != 256) {
    return unimplemented("cuda: heads of ", c.head_dim, " elements; known: 64, 128, 256");
  }
  RK_TRY(card_, open_card(options_.device.index));
  RK_TRY(stream_, create_stream());
  kernels::GemmCuda::Options gemm;
  if (files != nullptr) {
    RK_TRY(const View embedding, files->tensor("token_embd.weight", {c.vocab_size, c.hidden}));
    RK_TRY(const View gate, files->tensor("blk.0.ffn_gate.weight", {c.ffn, c.hidden}));
    if (quantised(gate.dtype) || quantised(embedding.dtype)) {
      gemm.expand_elements =
          c.hidden * std::max({c.vocab_size, 2 * c.ffn, q_width() + 2 * kv_width()});
    }
  }
  if (options_.card_weights == CardWeights::kFp8) {
    gemm.fp8_elements = max_step_rows() * std::max({c.hidden, q_width(), c.ffn});
  }
  RK_TRY(gemm_, kernels::GemmCuda::create(gemm, stream_));
  Source source{files, options_.random_seed, ""};
  const bool fp8 = options_.card_weights == CardWeights::kFp8;
  const CardWeights table = fp8 ? CardWeights::kAuto : options_.card_weights;  // the vocabulary's
  RK_TRY(embedding_, matrix(source, {{"token_embd.weight", c.vocab_size}}, c.hidden, table));
  if (files == nullptr ? !c.tied_embeddings : files->has("output.weight") && !c.tied_embeddings) {
    RK_TRY(output_, matrix(source, {{"output.weight", c.vocab_size}}, c.hidden, table));
  }
  RK_TRY(output_norm_, vector(source, {{"output_norm.weight", c.hidden}}, 1));
  layers_.resize(static_cast<size_t>(c.num_layers));
  for (int i = 0; i < c.num_layers; ++i) RK_RETURN_IF_ERROR(load_layer(source, i));

  RK_TRY(const auto rope, kernels::RopeTable::create(rope_inv_freq(c.rope), context_tokens(),
                                                     rope_magnitude(c.rope), c.rope.pairs));
  rope_ = rope.view();
  const auto size = static_cast<size_t>(rope_.num_positions * (rope_.rotary_dim / 2));
  std::vector<float> both(rope_.cos, rope_.cos + size);
  both.insert(both.end(), rope_.sin, rope_.sin + size);
  RK_TRY(rope_cos_sin_, to_card(both));
  rope_.cos = rope_cos_sin_.as<float>();
  rope_.sin = rope_cos_sin_.as<float>() + size;
  RK_RETURN_IF_ERROR(carve_workspace());
  RK_RETURN_IF_ERROR(prepare_gemm());
  log::info("cuda: ", card_.name, ", weights ", weight_bytes_ >> 20, " MiB, workspace ",
            workspace_bytes() >> 20, " MiB");
  return {};
}

Status CudaDecoder::carve_workspace() {
  const ModelConfig& c = config_;
  const int64_t rows = max_step_rows(), last = max_logits_rows(),
                qkv_width = q_width() + 2 * kv_width();
  struct Want {
    View* view;
    DType dtype;
    int64_t rows, width;
  };
  const Want wants[] = {
      {&x_, DType::kF32, rows, c.hidden},          {&normed_, DType::kBf16, rows, c.hidden},
      {&qkv_, DType::kBf16, rows, qkv_width},      {&attended_, DType::kBf16, rows, q_width()},
      {&gate_up_, DType::kBf16, rows, 2 * c.ffn},  {&hidden_, DType::kBf16, rows, c.ffn},
      {&last_x_, DType::kF32, last, c.hidden},     {&last_q_, DType::kBf16, last, q_width()},
      {&logits_, DType::kF32, last, c.vocab_size},
  };
  const auto bytes = [](const Want& w) {
    return (dtype_bytes(w.dtype, w.rows * w.width) + 255) / 256 * 256;
  };
  const int64_t token_bytes = (last * 4 + 255) / 256 * 256;
  int64_t total = 256 + token_bytes;
  for (const Want& w : wants) total += bytes(w);
  RK_TRY(workspace_, Buffer::allocate(total, Memory::kCard));
  auto* next = workspace_.as<std::byte>();
  for (const Want& w : wants) {
    *w.view = View(next, w.dtype, {w.rows, w.width});
    next += bytes(w);
  }
  tokens_ = reinterpret_cast<int32_t*>(next);
  next_item_ = reinterpret_cast<int32_t*>(next + token_bytes);
  RK_RETURN_IF_ERROR(zero_on_card(next_item_, 256, stream_));
  const int64_t part_rows = int64_t{kMaxCardParts} * kernels::kSegAttnTileRows;
  RK_TRY(parts_, Buffer::allocate(part_rows * (c.head_dim + 1) * 4, Memory::kCard));
  part_o_ = parts_.as<float>();
  part_lse_ = part_o_ + part_rows * c.head_dim;
  RK_TRY(logits_pinned_, Buffer::allocate(last * c.vocab_size * 4, Memory::kPinned));
  RK_TRY(arena_, CardArena::create(kArenaBytes, stream_));
  const int list = options_.max_list_pages > 0
                       ? options_.max_list_pages
                       : static_cast<int>(card_list_pages(context_tokens()));
  RK_TRY(tables_, CardTables::create({options_.max_sequences, c.num_layers * c.num_kv_heads, list},
                                     stream_));
  return sync_stream(stream_);
}

Status CudaDecoder::run_copies(kv::PagePool& pool) {
  const auto copies = pool.take_copies();
  if (copies.empty()) return {};
  constexpr size_t kPerLaunch = size_t{1} << 19;
  for (size_t begin = 0; begin < copies.size(); begin += kPerLaunch) {
    std::vector<int32_t> from, to;
    for (size_t i = begin; i < std::min(copies.size(), begin + kPerLaunch); ++i) {
      from.push_back(copies[i].from);
      to.push_back(copies[i].to);
    }
    RK_RETURN_IF_ERROR(arena_.begin());
    RK_TRY(const int32_t* card_from, arena_.add(from));
    RK_TRY(const int32_t* card_to, arena_.add(to));
    RK_RETURN_IF_ERROR(arena_.upload());
    RK_RETURN_IF_ERROR(kernels::copy_pages_cuda(pool.k_pages(), pool.v_pages(), card_from, card_to,
                                                static_cast<int64_t>(from.size()), stream_));
  }
  return {};
}

Status CudaDecoder::stage(const StepInput& input, const Rows& rows, Step& step) {
  const size_t num_sequences = input.sequences.size();
  if (num_sequences > static_cast<size_t>(options_.max_sequences)) {
    return invalid_argument("step: ", num_sequences, " sequences, ", options_.max_sequences,
                            " fit");
  }
  std::vector<const int32_t*> pages;
  std::vector<const CardSights::Set*> sets;
  std::vector<int32_t> num_keys;
  for (const StepSequence& s : input.sequences) {
    RK_RETURN_IF_ERROR(run_copies(s.kv->pool()));
    RK_TRY(const int32_t* table, tables_.update(*s.kv, arena_));
    RK_TRY(const auto* set, sights_.find(s.kv->visible(), config_.num_layers, stream_));
    pages.push_back(table);
    sets.push_back(set);
    num_keys.push_back(s.kv->num_positions());
    step.k_pages = s.kv->k_pages();
    step.v_pages = s.kv->v_pages();
  }
  RK_RETURN_IF_ERROR(arena_.begin());
  const auto num_rows = rows.tokens.size();
  step.is_decode = num_rows == num_sequences && num_rows == input.logits_rows.size() &&
                   std::ranges::all_of(input.sequences, [](const StepSequence& s) {
                     return s.positions.size() == 1;
                   });
  std::vector<int32_t> sequence(num_rows), page_index(num_rows), page_slot(num_rows);
  std::vector<kernels::DeviceSequence> sequences, logits_sequences;
  std::vector<std::span<const int32_t>> q_pos, logits_q_pos;
  std::vector<int32_t> logits_positions;
  for (const int32_t row : input.logits_rows) {
    logits_positions.push_back(rows.positions[static_cast<size_t>(row)]);
  }
  auto logits_row = input.logits_rows.begin();
  for (size_t b = 0; b < num_sequences; ++b) {
    const StepSequence& s = input.sequences[b];
    const auto begin = static_cast<size_t>(rows.q_begin[b]), end = begin + s.positions.size();
    std::fill(sequence.begin() + static_cast<std::ptrdiff_t>(begin),
              sequence.begin() + static_cast<std::ptrdiff_t>(end), static_cast<int32_t>(b));
    s.kv->entries(s.positions, page_index.data() + begin, page_slot.data() + begin);
    kernels::DeviceSequence& on_card = sequences.emplace_back();
    const auto runs = s.kv->runs();
    const size_t grain = step.is_decode ? kRunGrain : 1;
    RK_TRY(on_card.runs, arena_.add_padded(runs, (runs.size() + grain - 1) / grain * grain));
    on_card.num_runs = static_cast<int32_t>(runs.size());
    on_card.q_begin = static_cast<int32_t>(begin);
    on_card.pages = pages[b];
    on_card.page_stride = tables_.page_stride();
    on_card.sight = sets[b]->card.as<kernels::HeadSight>();
    q_pos.push_back(s.positions);
    logits_sequences.push_back(on_card);
    logits_sequences.back().q_begin = static_cast<int32_t>(logits_row - input.logits_rows.begin());
    const auto first = logits_row;
    while (logits_row != input.logits_rows.end() && *logits_row < static_cast<int32_t>(end)) {
      ++logits_row;
    }
    logits_q_pos.push_back(std::span<const int32_t>(logits_positions)
                               .subspan(static_cast<size_t>(first - input.logits_rows.begin()),
                                        static_cast<size_t>(logits_row - first)));
  }
  RK_TRY(step.tokens, arena_.add(rows.tokens));
  RK_TRY(step.positions, arena_.add(rows.positions));
  RK_TRY(step.row_index, arena_.add(rows.row_index));
  RK_TRY(step.sequence, arena_.add(sequence));
  RK_TRY(step.page_index, arena_.add(page_index));
  RK_TRY(step.page_slot, arena_.add(page_slot));
  RK_TRY(step.sequences, arena_.add(sequences));
  step.num_logits = static_cast<int64_t>(input.logits_rows.size());
  RK_TRY(step.logits_rows, arena_.add(input.logits_rows));
  RK_TRY(step.logits_positions, arena_.add(logits_positions));
  RK_TRY(step.logits_sequences, arena_.add(logits_sequences));
  kernels::SegAttnPlanOptions plan;
  plan.num_heads = config_.num_heads;
  plan.num_kv_heads = config_.num_kv_heads;
  plan.num_sms = card_.num_sms;
  plan.max_parts = kMaxCardParts;
  if (input.sampling != nullptr) {
    const auto& sampling = *input.sampling;
    RK_TRY(step.sample_rows, arena_.add(sampling.rows));
    const std::vector<kernels::SampleAdjust> adjust(sampling.adjust.begin(), sampling.adjust.end());
    const size_t room = (adjust.size() + kAdjustGrain - 1) / kAdjustGrain * kAdjustGrain;
    RK_TRY(step.sample_adjust, arena_.add_padded(adjust, room));
  }
  const int last = config_.num_layers - 1, grain = step.is_decode ? kDecodeGrain : 1;
  RK_RETURN_IF_ERROR(plan_layers(sets, q_pos, num_keys, 0, last, plan, grain, arena_, step.plans));
  if (step.num_logits > 0) {
    RK_RETURN_IF_ERROR(plan_layers(sets, logits_q_pos, num_keys, last, last + 1, plan, grain,
                                   arena_, step.logits_plan));
  }
  return arena_.upload();
}

Status CudaDecoder::attend(int layer, const View& q, const View& o, const int32_t* q_pos,
                           const kernels::DeviceSequence* sequences, const CardPlans::Plan& plan,
                           const Step& step) {
  kernels::SegAttnCudaArgs args;
  args.q = q;
  args.k_pages = step.k_pages;
  args.v_pages = step.v_pages;
  args.o = o;
  args.q_pos = q_pos;
  args.sequences = sequences;
  args.layer = layer;
  args.num_kv_heads = config_.num_kv_heads;
  args.rope = rope_;
  args.scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim));
  args.items = plan.items;
  args.merges = plan.merges;
  args.counts = plan.counts;
  args.max_items = plan.max_items;
  args.max_merges = plan.max_merges;
  args.max_item_rows = plan.max_item_rows;
  args.part_o = part_o_;
  args.part_lse = part_lse_;
  args.next_item = next_item_;
  return kernels::seg_attn_cuda(args, "", stream_);
}

Status CudaDecoder::run_layer(int index, int64_t num_rows, const Step& step) {
  const Layer& w = layers_[static_cast<size_t>(index)];
  const ModelConfig& c = config_;
  const bool is_last = index + 1 == c.num_layers;
  View x = rows_of(x_, num_rows), normed = rows_of(normed_, num_rows);
  const View qkv = rows_of(qkv_, num_rows);
  const auto bias = [](const Buffer& b) { return b.num_bytes() > 0 ? vector_view(b) : kNone; };
  RK_RETURN_IF_ERROR(
      kernels::rms_norm_cuda({x, vector_view(w.attn_norm), normed, c.rms_eps}, stream_));
  RK_RETURN_IF_ERROR(gemm_->run({normed, w.qkv.get(), bias(w.qkv_bias), qkv, false}));
  kernels::QkvWriteCudaArgs write;
  write.qkv = qkv;
  write.num_heads = c.num_heads;
  write.num_kv_heads = c.num_kv_heads;
  write.head_dim = c.head_dim;
  write.layer = index;
  write.q_norm = w.q_norm.as<float>();
  write.k_norm = w.k_norm.as<float>();
  write.eps = c.rms_eps;
  write.row_index = step.row_index;
  write.sequence = step.sequence;
  write.page_index = step.page_index;
  write.page_slot = step.page_slot;
  write.sequences = step.sequences;
  write.rope = rope_;
  write.k_pages = step.k_pages;
  write.v_pages = step.v_pages;
  RK_RETURN_IF_ERROR(kernels::qkv_write_cuda(write, stream_));
  if (is_last && step.num_logits == 0) return {};

  View q(qkv.data, DType::kBf16, {num_rows, c.num_heads, c.head_dim});
  q.stride = {qkv.stride[0], c.head_dim, 1, 0};
  const int32_t* q_pos = step.positions;
  const kernels::DeviceSequence* sequences = step.sequences;
  if (is_last) {  // from here on only rows with logits matter
    num_rows = step.num_logits;
    View heads(qkv.data, DType::kBf16, {qkv.dim[0], q_width()});
    heads.stride[0] = qkv.stride[0];
    const View kept = rows_of(last_q_, num_rows);
    RK_RETURN_IF_ERROR(kernels::gather_rows_cuda(heads, step.logits_rows, kept, stream_));
    RK_RETURN_IF_ERROR(
        kernels::gather_rows_cuda(x, step.logits_rows, rows_of(last_x_, num_rows), stream_));
    q = View(kept.data, DType::kBf16, {num_rows, c.num_heads, c.head_dim});
    x = rows_of(last_x_, num_rows);
    normed = rows_of(normed_, num_rows);
    q_pos = step.logits_positions;
    sequences = step.logits_sequences;
  }
  const View o(attended_.data, DType::kBf16, {num_rows, c.num_heads, c.head_dim});
  const CardPlans::Plan& plan =
      is_last
          ? step.logits_plan.plans[0]
          : step.plans
                .plans[static_cast<size_t>(step.plans.plan_of_layer[static_cast<size_t>(index)])];
  RK_RETURN_IF_ERROR(attend(index, q, o, q_pos, sequences, plan, step));
  RK_RETURN_IF_ERROR(
      gemm_->run({rows_of(attended_, num_rows), w.o.get(), bias(w.o_bias), x, true}));
  RK_RETURN_IF_ERROR(
      kernels::rms_norm_cuda({x, vector_view(w.ffn_norm), normed, c.rms_eps}, stream_));
  const View gate_up = rows_of(gate_up_, num_rows), hidden = rows_of(hidden_, num_rows);
  RK_RETURN_IF_ERROR(gemm_->run({normed, w.gate_up.get(), kNone, gate_up, false}));
  RK_RETURN_IF_ERROR(kernels::swiglu_cuda(gate_up, hidden, stream_));
  return gemm_->run({hidden, w.down.get(), kNone, x, true});
}

std::vector<int64_t> CudaDecoder::Step::key() const {
  std::vector<int64_t> out = {num_logits};
  const auto add = [&](const void* p) { out.push_back(reinterpret_cast<intptr_t>(p)); };
  for (const int32_t* p : {tokens, positions, row_index, sequence, page_index, page_slot,
                           logits_rows, logits_positions}) {
    add(p);
  }
  for (const void* p :
       {static_cast<const void*>(sequences), static_cast<const void*>(logits_sequences),
        static_cast<const void*>(k_pages.data)}) {
    add(p);
  }
  for (const CardPlans* set : {&plans, &logits_plan}) {
    for (const CardPlans::Plan& plan : set->plans) {
      add(plan.items);
      add(plan.merges);
      out.insert(out.end(), {plan.max_items, plan.max_merges, plan.max_item_rows});
    }
    out.insert(out.end(), set->plan_of_layer.begin(), set->plan_of_layer.end());
  }
  return out;
}

Status CudaDecoder::run_step(int64_t num_rows, const Step& step) {
  RK_RETURN_IF_ERROR(gemm_->gather_rows(*embedding_, step.tokens, num_rows, rows_of(x_, num_rows)));
  for (int i = 0; i < config_.num_layers; ++i) {
    RK_RETURN_IF_ERROR(run_layer(i, num_rows, step));
  }
  if (step.num_logits == 0) return {};
  const View x = rows_of(last_x_, step.num_logits), normed = rows_of(normed_, step.num_logits);
  RK_RETURN_IF_ERROR(
      kernels::rms_norm_cuda({x, vector_view(output_norm_), normed, config_.rms_eps}, stream_));
  const View logits = rows_of(logits_, step.num_logits);
  RK_RETURN_IF_ERROR(
      gemm_->run({normed, output_ ? output_.get() : embedding_.get(), kNone, logits, false}));
  if (step.sample_rows == nullptr) return {};
  return kernels::sample_cuda(logits, step.sample_rows, step.sample_adjust, tokens_, stream_);
}

Status CudaDecoder::hand_back(const StepInput& input) {
  const auto num_rows = static_cast<int64_t>(input.logits_rows.size());
  const bool tokens = input.sampling != nullptr;
  const void* from = tokens ? static_cast<const void*>(tokens_) : logits_.data;
  const int64_t bytes = tokens ? num_rows * 4 : rows_of(logits_, num_rows).num_bytes();
  RK_RETURN_IF_ERROR(copy_from_card(logits_pinned_.data(), from, bytes, stream_));
  RK_RETURN_IF_ERROR(sync_stream(stream_));
  arena_.all_done();
  std::memcpy(tokens ? static_cast<void*>(input.sampling->tokens) : input.logits.data,
              logits_pinned_.data(), static_cast<size_t>(bytes));
  return {};
}

Status CudaDecoder::forward(const StepInput& input, kernels::Context&) {
  if (input.scores != nullptr) {
    return unimplemented("attention scores (mode 'selective') are not built for cards yet");
  }
  const double begin_ms = now_ms();
  RK_TRY(const Rows rows, flatten(input));
  if (rows.size() == 0) return {};
  Step step;
  RK_RETURN_IF_ERROR(stage(input, rows, step));
  if (!step.is_decode) {
    RK_RETURN_IF_ERROR(run_step(rows.size(), step));
    host_ms_ = now_ms() - begin_ms;
    return step.num_logits == 0 ? Status() : hand_back(input);
  }
  auto key = step.key();
  auto known = std::ranges::find(recorded_, key, &Recorded::key);
  if (known == recorded_.end()) {
    RK_RETURN_IF_ERROR(begin_recording(stream_));
    const Status status = run_step(rows.size(), step);
    auto graph = end_recording(stream_);  // also after an error: it ends the recording
    RK_RETURN_IF_ERROR(status);
    RK_RETURN_IF_ERROR(graph.status());
    if (recorded_.size() == kMaxRecorded) recorded_.erase(recorded_.begin());
    recorded_.push_back({std::move(key), std::move(graph).value()});
  } else {
    std::rotate(known, known + 1, recorded_.end());
  }
  RK_RETURN_IF_ERROR(replay(recorded_.back().graph, stream_));
  host_ms_ = now_ms() - begin_ms;
  return hand_back(input);
}

// The shapes that decode and full prefill steps take, measured once before anything is timed.
Status CudaDecoder::prepare_gemm() {
  const Layer& layer = layers_[0];
  const bool bias = layer.qkv_bias.num_bytes() > 0, o_bias = layer.o_bias.num_bytes() > 0;
  for (const int64_t rows : {int64_t{1}, int64_t{max_step_rows()}}) {
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.qkv, rows, DType::kBf16, bias, false));
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.o, rows, DType::kF32, o_bias, true));
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.gate_up, rows, DType::kBf16, false, false));
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.down, rows, DType::kF32, false, true));
  }
  return gemm_->prepare(output_ ? *output_ : *embedding_, 1, DType::kF32, false, false);
}

}  // namespace

Result<std::unique_ptr<Decoder>> load_cuda_decoder(const LoadArgs& args) {
  auto decoder = std::make_unique<CudaDecoder>(args);
  RK_RETURN_IF_ERROR(decoder->load(args.files));
  return std::unique_ptr<Decoder>(std::move(decoder));
}

}  // namespace rk::model
