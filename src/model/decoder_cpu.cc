// The decoder on the host: f32 activations, weights packed for this processor's kernels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/attn_mass/attn_mass.h"
#include "kernels/gemm/gemm.h"
#include "kernels/kv_copy/kv_copy.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"
#include "kernels/seg_attn/seg_attn.h"
#include "kernels/swiglu/swiglu.h"
#include "model/decoder_devices.h"
#include "tensor/quant_block.h"

namespace rk::model {
namespace {

constexpr View kNone;

Result<std::vector<float>> read_vector(const WeightFiles& files, const std::string& name,
                                       int64_t size) {
  RK_TRY(const View view, files.tensor(name, {size}));
  std::vector<float> out(static_cast<size_t>(size));
  dequantize(view.dtype, view.data, out.data(), size);
  return out;
}

View as_view(std::vector<float>& values) {
  return View(values.data(), DType::kF32, {static_cast<int64_t>(values.size())});
}

// Columns [begin, begin + heads * dim) of every row of x [T, W], as [T, heads, dim].
View heads_of(const View& x, int64_t rows, int64_t begin, int64_t heads, int64_t dim) {
  View out(x.ptr<float>() + begin, DType::kF32, {rows, heads, dim});
  out.stride = {x.stride[0], dim, 1, 0};
  return out;
}

// Of every row of x [T, W] f32: how much its attention output matters (spec B5).
std::vector<double> row_norms(const View& x) {
  std::vector<double> out;
  for (int64_t t = 0; t < x.dim[0]; ++t) {
    const float* row = x.row<float>(t);
    double sum = 0;
    for (int64_t d = 0; d < x.dim[1]; ++d) sum += double{row[d]} * row[d];
    out.push_back(std::sqrt(sum));
  }
  return out;
}

class CpuDecoder : public Decoder {
 public:
  explicit CpuDecoder(const LoadArgs& args) : Decoder(args.config, args.options, args.family) {}
  Status load(const WeightFiles& files, kernels::Context& ctx);
  Status forward(const StepInput& step, kernels::Context& ctx) override;
  int64_t workspace_bytes() const override { return workspace_.num_bytes(); }
  MatrixBytes matrix_bytes() const override {
    return sum_matrices(layers_, output_ ? *output_ : *embedding_);
  }
  kernels::RopeView rope() const override { return rope_->view(); }

 private:
  struct Layer {
    std::unique_ptr<kernels::PackedWeight> qkv, o, gate_up, down;
    std::vector<float> attn_norm, ffn_norm, qkv_bias, o_bias, q_norm, k_norm;
  };

  Status load_layer(const WeightFiles& files, int index, kernels::Context& ctx);
  Result<std::unique_ptr<kernels::PackedWeight>> pack(const WeightFiles& files,
                                                      std::span<const View> parts,
                                                      kernels::Context& ctx);
  Status carve_workspace();
  /// What of `attn`, a layer's attention over all rows of the step, the sink wants; needs its lse.
  Status add_scores(const kernels::SegAttnArgs& attn, const ScoreSink& sink, kernels::Context& ctx);
  /// Adds the FFN of the rows' residuals to them.
  Status run_ffn(Layer& w, View x, std::span<const int32_t> chosen, kernels::Context& ctx);
  Status run_layer(int index, const Rows& rows, int64_t& num_rows, const StepInput& step,
                   kernels::Context& ctx);

  std::vector<Layer> layers_;
  std::vector<float> output_norm_;
  std::unique_ptr<kernels::PackedWeight> embedding_;  ///< also the head of tied models
  std::unique_ptr<kernels::PackedWeight> output_;     ///< null where tied
  std::unique_ptr<kernels::RopeTable> rope_;
  Buffer workspace_;
  View x_, normed_, qkv_, attended_, gate_up_;  // [max_step_rows, ...] f32
  std::vector<int64_t> slots_;
  std::vector<kernels::HeadRows> heads_;
  std::vector<float> lse_;  // [max_step_rows, heads] once scores were asked for
};

Result<std::unique_ptr<kernels::PackedWeight>> CpuDecoder::pack(const WeightFiles& files,
                                                                std::span<const View> parts,
                                                                kernels::Context& ctx) {
  RK_TRY(auto packed, kernels::pack_weight(parts, ctx, [&](const View& v) { files.forget(v); }));
  weight_bytes_ += packed->num_bytes();
  return packed;
}

Status CpuDecoder::load_layer(const WeightFiles& files, int index, kernels::Context& ctx) {
  const ModelConfig& c = config_;
  Layer& layer = layers_[static_cast<size_t>(index)];
  const std::string prefix = cat("blk.", index, ".");
  const int64_t hidden = c.hidden, ffn = c.ffn, q_width = this->q_width(),
                kv_width = this->kv_width();

  RK_TRY(const View q, files.tensor(prefix + "attn_q.weight", {q_width, hidden}));
  RK_TRY(const View k, files.tensor(prefix + "attn_k.weight", {kv_width, hidden}));
  RK_TRY(const View v, files.tensor(prefix + "attn_v.weight", {kv_width, hidden}));
  RK_TRY(const View o, files.tensor(prefix + "attn_output.weight", {hidden, q_width}));
  RK_TRY(const View gate, files.tensor(prefix + "ffn_gate.weight", {ffn, hidden}));
  RK_TRY(const View up, files.tensor(prefix + "ffn_up.weight", {ffn, hidden}));
  RK_TRY(const View down, files.tensor(prefix + "ffn_down.weight", {hidden, ffn}));
  RK_TRY(layer.qkv, pack(files, std::vector<View>{q, k, v}, ctx));
  RK_TRY(layer.o, pack(files, std::vector<View>{o}, ctx));
  RK_TRY(layer.gate_up, pack(files, std::vector<View>{gate, up}, ctx));
  RK_TRY(layer.down, pack(files, std::vector<View>{down}, ctx));

  RK_TRY(layer.attn_norm, read_vector(files, prefix + "attn_norm.weight", hidden));
  RK_TRY(layer.ffn_norm, read_vector(files, prefix + "ffn_norm.weight", hidden));
  if (family_.qkv_bias || c.qkv_bias) {
    RK_TRY(layer.qkv_bias, read_vector(files, prefix + "attn_q.bias", q_width));
    for (const char* name : {"attn_k.bias", "attn_v.bias"}) {
      RK_TRY(const auto part, read_vector(files, prefix + name, kv_width));
      layer.qkv_bias.insert(layer.qkv_bias.end(), part.begin(), part.end());
    }
  }
  if (c.o_bias) {
    RK_TRY(layer.o_bias, read_vector(files, prefix + "attn_output.bias", hidden));
  }
  if (family_.qk_norm) {
    RK_TRY(layer.q_norm, read_vector(files, prefix + "attn_q_norm.weight", c.head_dim));
    RK_TRY(layer.k_norm, read_vector(files, prefix + "attn_k_norm.weight", c.head_dim));
  }
  return {};
}

Status CpuDecoder::load(const WeightFiles& files, kernels::Context& ctx) {
  const ModelConfig& c = config_;
  // The largest tensors first: while one is packed, its file pages are resident too.
  RK_TRY(const View embedding, files.tensor("token_embd.weight", {c.vocab_size, c.hidden}));
  RK_TRY(embedding_, pack(files, std::vector<View>{embedding}, ctx));
  if (files.has("output.weight") && !c.tied_embeddings) {
    RK_TRY(const View output, files.tensor("output.weight", {c.vocab_size, c.hidden}));
    RK_TRY(output_, pack(files, std::vector<View>{output}, ctx));
  }
  layers_.resize(static_cast<size_t>(c.num_layers));
  for (int i = 0; i < c.num_layers; ++i) RK_RETURN_IF_ERROR(load_layer(files, i, ctx));
  RK_TRY(output_norm_, read_vector(files, "output_norm.weight", c.hidden));

  RK_TRY(auto rope, kernels::RopeTable::create_empty(rope_inv_freq(c.rope), context_tokens(),
                                                     rope_magnitude(c.rope), c.rope.pairs));
  rope_ = std::make_unique<kernels::RopeTable>(std::move(rope));
  return carve_workspace();
}

Status CpuDecoder::carve_workspace() {
  const ModelConfig& c = config_;
  const int64_t rows = max_step_rows(), q_width = this->q_width(),
                qkv_width = q_width + 2 * kv_width();
  const int64_t widths[] = {c.hidden, std::max<int64_t>(c.hidden, q_width), qkv_width, q_width,
                            2 * int64_t{c.ffn}};
  int64_t total = 0;
  for (const int64_t w : widths) total += w * rows;
  RK_TRY(workspace_, Buffer::allocate(total * 4));
  float* next = workspace_.as<float>();
  View* views[] = {&x_, &normed_, &qkv_, &attended_, &gate_up_};
  for (size_t i = 0; i < std::size(widths); ++i) {
    *views[i] = View(next, DType::kF32, {rows, widths[i]});
    next += widths[i] * rows;
  }
  slots_.resize(static_cast<size_t>(rows * c.num_kv_heads));
  return {};
}

Status CpuDecoder::add_scores(const kernels::SegAttnArgs& attn, const ScoreSink& sink,
                              kernels::Context& ctx) {
  const auto first =
      std::lower_bound(attn.q_pos.begin(), attn.q_pos.end(), sink.first_query) - attn.q_pos.begin();
  const int64_t num_rows = attn.q.dim[0];
  if (first == num_rows) return {};
  return kernels::attn_mass({.q = attn.q.rows(first, num_rows),
                             .k_pages = attn.k_pages,
                             .q_pos = attn.q_pos.subspan(static_cast<size_t>(first)),
                             .heads = attn.heads,
                             .rope = attn.rope,
                             .scale = attn.scale,
                             .lse = attn.lse.rows(first, num_rows),
                             .mass = sink.mass},
                            ctx);
}

// x_ [T, hidden] holds the residual of the active rows and is updated in place. After K and V of
// the last layer are stored only rows with logits matter: `num_rows` shrinks to them.
Status CpuDecoder::run_layer(int index, const Rows& rows, int64_t& num_rows, const StepInput& step,
                             kernels::Context& ctx) {
  Layer& w = layers_[static_cast<size_t>(index)];
  const ModelConfig& c = config_;
  const int64_t q_width = this->q_width(), kv_width = this->kv_width();
  View x = x_.rows(0, num_rows), normed(normed_.data, DType::kF32, {num_rows, c.hidden});
  View qkv = qkv_.rows(0, num_rows);
  RK_RETURN_IF_ERROR(kernels::rms_norm({x, as_view(w.attn_norm), c.rms_eps, normed}, ctx));
  RK_RETURN_IF_ERROR(kernels::gemm(
      {normed, w.qkv.get(), w.qkv_bias.empty() ? kNone : as_view(w.qkv_bias), qkv, false}, ctx));

  View q = heads_of(qkv, num_rows, 0, c.num_heads, c.head_dim);
  View k = heads_of(qkv, num_rows, q_width, c.num_kv_heads, c.head_dim);
  const View v = heads_of(qkv, num_rows, q_width + kv_width, c.num_kv_heads, c.head_dim);
  if (!w.q_norm.empty()) {
    for (int64_t h = 0; h < c.num_heads + c.num_kv_heads; ++h) {  // q heads, then k heads
      View head(qkv.ptr<float>() + h * c.head_dim, DType::kF32, {num_rows, c.head_dim});
      head.stride[0] = qkv.stride[0];
      auto& weight = h < c.num_heads ? w.q_norm : w.k_norm;
      RK_RETURN_IF_ERROR(kernels::rms_norm({head, as_view(weight), c.rms_eps, head}, ctx));
    }
  }
  RK_RETURN_IF_ERROR(kernels::rope(k, rows.row_index.data(), rope_->view(), ctx));

  View k_pages, v_pages;
  heads_.clear();
  int64_t* slots = slots_.data();
  for (const StepSequence& s : step.sequences) {
    s.kv->slots(index, s.positions, slots);
    slots += static_cast<int64_t>(s.positions.size()) * c.num_kv_heads;
    for (int g = 0; g < c.num_kv_heads; ++g) heads_.push_back(s.kv->head_rows(index, g));
    k_pages = s.kv->k_pages();
    v_pages = s.kv->v_pages();
  }
  RK_RETURN_IF_ERROR(kernels::kv_write(
      {k, v, k_pages, v_pages,
       std::span<const int64_t>(slots_.data(), static_cast<size_t>(num_rows * c.num_kv_heads))},
      ctx));

  kernels::SegAttnArgs attn;
  attn.q = q;
  attn.k_pages = k_pages;
  attn.v_pages = v_pages;
  attn.q_pos = rows.positions;
  attn.q_begin = rows.q_begin;
  attn.heads = heads_;
  attn.rope = rope_->view();
  attn.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
  attn.o = View(attended_.data, DType::kF32, {num_rows, c.num_heads, c.head_dim});
  if (step.scores != nullptr) {
    attn.lse = View(lse_.data(), DType::kF32, {num_rows, c.num_heads});
  }
  std::vector<int32_t> last_pos, last_begin;
  if (index + 1 == Decoder::num_layers(step)) {
    if (step.scores != nullptr) {  // of rows that need nothing else of this layer
      RK_RETURN_IF_ERROR(kernels::seg_attn(attn, ctx));
      RK_RETURN_IF_ERROR(add_scores(attn, *step.scores, ctx));
      attn.lse = View();
    }
    if (step.logits_rows.empty()) {
      num_rows = 0;
      return {};
    }
    int64_t kept = 0;
    last_begin.assign(rows.q_begin.size(), 0);
    for (const int32_t row : step.logits_rows) {
      std::memmove(x_.row<float>(kept), x_.row<float>(row), static_cast<size_t>(c.hidden) * 4);
      std::memmove(qkv.row<float>(kept), qkv.row<float>(row), static_cast<size_t>(q_width) * 4);
      last_pos.push_back(rows.positions[static_cast<size_t>(row)]);
      ++kept;
      for (size_t b = 1; b < last_begin.size(); ++b) last_begin[b] += row < rows.q_begin[b] ? 1 : 0;
    }
    num_rows = kept;
    x = x_.rows(0, num_rows);
    attn.q = heads_of(qkv, num_rows, 0, c.num_heads, c.head_dim);
    attn.o = View(attended_.data, DType::kF32, {num_rows, c.num_heads, c.head_dim});
    attn.q_pos = last_pos;
    attn.q_begin = last_begin;
  }

  RK_RETURN_IF_ERROR(kernels::seg_attn(attn, ctx));
  if (!attn.lse.empty()) RK_RETURN_IF_ERROR(add_scores(attn, *step.scores, ctx));
  const View flat(attended_.data, DType::kF32, {num_rows, q_width});
  RK_RETURN_IF_ERROR(
      kernels::gemm({flat, w.o.get(), w.o_bias.empty() ? kNone : as_view(w.o_bias), x, true}, ctx));

  if (step.ffn == nullptr || index < step.ffn->dense_layers ||
      index + 1 == Decoder::num_layers(step)) {
    return run_ffn(w, x, {}, ctx);
  }
  const std::vector<int32_t> chosen = ffn_rows(*step.ffn, row_norms(flat));
  *step.ffn->num_skipped += num_rows - static_cast<int64_t>(chosen.size());
  return run_ffn(w, x, chosen, ctx);
}

// `chosen`: rows of x, ascending; none: all. They are gathered, so that the others cost nothing.
Status CpuDecoder::run_ffn(Layer& w, View x, std::span<const int32_t> chosen,
                           kernels::Context& ctx) {
  const ModelConfig& c = config_;
  const bool all = chosen.empty();
  const auto num_rows = all ? x.dim[0] : static_cast<int64_t>(chosen.size());
  View normed(normed_.data, DType::kF32, {x.dim[0], c.hidden});
  RK_RETURN_IF_ERROR(kernels::rms_norm({x, as_view(w.ffn_norm), c.rms_eps, normed}, ctx));
  for (int64_t i = 0; i < num_rows && !all; ++i) {
    const int64_t from = chosen[static_cast<size_t>(i)];
    if (from == i) continue;
    std::memmove(normed.row<float>(i), normed.row<float>(from), static_cast<size_t>(c.hidden) * 4);
  }
  normed = normed.rows(0, num_rows);
  const View gate_up = gate_up_.rows(0, num_rows);
  RK_RETURN_IF_ERROR(kernels::gemm({normed, w.gate_up.get(), kNone, gate_up, false}, ctx));
  View hidden(gate_up.data, DType::kF32, {num_rows, c.ffn});
  hidden.stride[0] = gate_up.stride[0];
  RK_RETURN_IF_ERROR(kernels::swiglu({gate_up, hidden}, ctx));
  if (all) return kernels::gemm({hidden, w.down.get(), kNone, x, true}, ctx);
  RK_RETURN_IF_ERROR(kernels::gemm({hidden, w.down.get(), kNone, normed, false}, ctx));
  for (int64_t i = 0; i < num_rows; ++i) {
    float* to = x.row<float>(chosen[static_cast<size_t>(i)]);
    const float* from = normed.row<float>(i);
    for (int64_t d = 0; d < c.hidden; ++d) to[d] += from[d];
  }
  return {};
}

Status CpuDecoder::forward(const StepInput& step, kernels::Context& ctx) {
  RK_TRY(const Rows rows, flatten(step));
  if (rows.size() == 0) return {};
  rope_->fill(*std::max_element(rows.positions.begin(), rows.positions.end()) + 1);
  if (step.scores != nullptr) lse_.resize(static_cast<size_t>(max_step_rows() * config_.num_heads));
  for (int64_t t = 0; t < rows.size(); ++t) {
    kernels::unpack_row(*embedding_, rows.tokens[static_cast<size_t>(t)], x_.row<float>(t));
  }
  int64_t num_rows = rows.size();
  for (int i = 0; i < Decoder::num_layers(step); ++i) {
    RK_RETURN_IF_ERROR(run_layer(i, rows, num_rows, step, ctx));
  }
  if (num_rows == 0) return {};
  const View x = x_.rows(0, num_rows),
             normed(normed_.data, DType::kF32, {num_rows, config_.hidden});
  RK_RETURN_IF_ERROR(kernels::rms_norm({x, as_view(output_norm_), config_.rms_eps, normed}, ctx));
  return kernels::gemm(
      {normed, output_ ? output_.get() : embedding_.get(), kNone, step.logits, false}, ctx);
}

}  // namespace

Result<std::unique_ptr<Decoder>> load_cpu_decoder(const LoadArgs& args, kernels::Context& ctx) {
  auto decoder = std::make_unique<CpuDecoder>(args);
  RK_RETURN_IF_ERROR(decoder->load(*args.files, ctx));
  return std::unique_ptr<Decoder>(std::move(decoder));
}

}  // namespace rk::model
