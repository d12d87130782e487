// Loading: weights, tables and workspaces of the decoder on a card.
#include <cmath>
#include <set>

#include "base/log.h"
#include "model/decoder_cuda.h"
#include "tensor/quant_block.h"

namespace rk::model {
namespace {

constexpr int64_t kArenaBytes = int64_t{16} << 20;

bool quantised(DType dtype) { return dtype_info(dtype).block_elems > 1; }

}  // namespace

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
    const bool fp8 = std::ranges::all_of(parts, [&](const Part& part) {
      return source.files->stored_dtype(source.prefix + part.name) == DType::kE4m3;
    });
    if (weights == CardWeights::kAuto && fp8) return fp8_matrix(source, parts, k);
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

Result<CudaDecoder::Weight> CudaDecoder::fp8_matrix(Source& source, Parts parts, int64_t k) {
  std::vector<Fp8Matrix> matrices;
  for (const Part& part : parts) {
    RK_TRY(auto matrix, source.files->fp8(source.prefix + part.name, part.size, k));
    matrices.push_back(std::move(matrix));
  }
  RK_TRY(Weight weight, gemm_->upload_fp8(matrices));
  for (const Fp8Matrix& m : matrices) source.files->forget(m.codes);
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
    const auto is_quantised = [&](const char* name) {
      return quantised(files->stored_dtype(name).value_or(DType::kBf16));
    };
    if (is_quantised("token_embd.weight") || is_quantised("blk.0.ffn_gate.weight")) {
      gemm.expand_elements =
          c.hidden * std::max({c.vocab_size, 2 * c.ffn, q_width() + 2 * kv_width()});
    }
  }
  if (takes_fp8(files, options_.card_weights)) {
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
  const int64_t gate_up = 2 * std::max(c.ffn, c.hidden);  // a sparse FFN's f32 result fits there
  struct Want {
    View* view;
    DType dtype;
    int64_t rows, width;
  };
  const Want wants[] = {
      {&x_, DType::kF32, rows, c.hidden},          {&normed_, DType::kBf16, rows, c.hidden},
      {&qkv_, DType::kBf16, rows, qkv_width},      {&attended_, DType::kBf16, rows, q_width()},
      {&gate_up_, DType::kBf16, rows, gate_up},    {&hidden_, DType::kBf16, rows, c.ffn},
      {&last_x_, DType::kF32, last, c.hidden},     {&last_q_, DType::kBf16, last, q_width()},
      {&logits_, DType::kF32, last, c.vocab_size},
  };
  const auto bytes = [](const Want& w) {
    return (dtype_bytes(w.dtype, w.rows * w.width) + 255) / 256 * 256;
  };
  const int64_t list_bytes = (rows * 4 + 255) / 256 * 256;  // norms_, ffn_rows_
  int64_t total = 256 + 2 * list_bytes + rows * c.num_heads * 4;
  for (const Want& w : wants) total += bytes(w);
  RK_TRY(workspace_, Buffer::allocate(total, Memory::kCard));
  auto* next = workspace_.as<std::byte>();
  for (const Want& w : wants) {
    *w.view = View(next, w.dtype, {w.rows, w.width});
    next += bytes(w);
  }
  gate_up_ = View(gate_up_.data, DType::kBf16, {rows, 2 * c.ffn});
  next_item_ = reinterpret_cast<int32_t*>(next);
  RK_RETURN_IF_ERROR(zero_on_card(next_item_, 256, stream_));
  next += 256;
  norms_ = reinterpret_cast<float*>(next);
  ffn_rows_ = reinterpret_cast<int32_t*>(next + list_bytes);
  lse_ = reinterpret_cast<float*>(next + 2 * list_bytes);
  RK_TRY(ffn_pinned_, Buffer::allocate(2 * rows * 4, Memory::kPinned));
  RK_TRY(norms_sent_, create_event());
  RK_TRY(mass_, Buffer::allocate(context_tokens() * c.num_kv_heads * 4, Memory::kCard));
  RK_TRY(mass_pinned_, Buffer::allocate(mass_.num_bytes(), Memory::kPinned));
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

// The shapes that decode and full prefill steps take, measured once before anything is timed.
Status CudaDecoder::prepare_gemm() {
  const Layer& layer = layers_[0];
  const bool bias = layer.qkv_bias.num_bytes() > 0, o_bias = layer.o_bias.num_bytes() > 0;
  for (const int64_t rows : std::set<int64_t>{1, options_.max_sequences, max_step_rows()}) {
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.qkv, rows, DType::kBf16, bias, false));
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.o, rows, DType::kF32, o_bias, true));
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.gate_up, rows, DType::kBf16, false, false));
    RK_RETURN_IF_ERROR(gemm_->prepare(*layer.down, rows, DType::kF32, false, true));
  }
  const kernels::CudaWeight& output = output_ ? *output_ : *embedding_;
  RK_RETURN_IF_ERROR(gemm_->prepare(output, 1, DType::kF32, false, false));
  return gemm_->prepare(output, options_.max_sequences, DType::kF32, false, false);
}

Result<std::unique_ptr<Decoder>> load_cuda_decoder(const LoadArgs& args) {
  auto decoder = std::make_unique<CudaDecoder>(args);
  RK_RETURN_IF_ERROR(decoder->load(args.files));
  return std::unique_ptr<Decoder>(std::move(decoder));
}

}  // namespace rk::model
