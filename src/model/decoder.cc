// What the decoders of all devices share.
#include "model/decoder.h"

#include <algorithm>

#include "base/check.h"
#include "model/decoder_devices.h"
#include "tensor/quant_block.h"

namespace rk::model {

Decoder::Decoder(const ModelConfig& config, const Options& options, const Family& family)
    : config_(config), options_(options), family_(family) {
  if (!family.takes_window) config_.sliding_window = 0;
}

Result<std::unique_ptr<Decoder>> Decoder::load(const WeightFiles& files, const ModelConfig& config,
                                               const Options& options, kernels::Context& ctx) {
  RK_TRY(const Family* family, find_family(config.family));
  const LoadArgs args{&files, config, options, *family};
  RK_TRY(auto decoder,
         options.device.is_cuda() ? load_cuda_decoder(args) : load_cpu_decoder(args, ctx));
  RK_RETURN_IF_ERROR(decoder->read_key_bias(files));
  return decoder;
}

Status Decoder::read_key_bias(const WeightFiles& files) {
  if (!(family_.qkv_bias || config_.qkv_bias) || family_.qk_norm) return {};
  for (int i = 0; i < config_.num_layers; ++i) {
    RK_TRY(const View view, files.tensor(cat("blk.", i, ".attn_k.bias"), {kv_width()}));
    key_bias_.emplace_back(static_cast<size_t>(kv_width()));
    dequantize(view.dtype, view.data, key_bias_.back().data(), kv_width());
  }
  return {};
}

Result<std::unique_ptr<Decoder>> Decoder::random(const ModelConfig& config,
                                                 const Options& options) {
  RK_TRY(const Family* family, find_family(config.family));
  if (!options.device.is_cuda()) return unimplemented("random weights: on a card only");
  return load_cuda_decoder({nullptr, config, options, *family});
}

Result<Decoder::PageRows> Decoder::read_pages(const kv::PagePool& pool,
                                              std::span<const kv::PageId> ids) const {
  RK_CHECK(pool.memory() == Memory::kHost);
  const int64_t page = int64_t{pool.page_rows()} * pool.head_dim();
  PageRows out;
  out.k.resize(ids.size() * static_cast<size_t>(page));
  out.v.resize(out.k.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t at = i * static_cast<size_t>(page);
    dequantize(pool.dtype(), pool.k(ids[i]).data, out.k.data() + at, page);
    dequantize(pool.dtype(), pool.v(ids[i]).data, out.v.data() + at, page);
  }
  return out;
}

Result<Decoder::Rows> Decoder::flatten(const StepInput& step) const {
  Rows rows;
  rows.q_begin.push_back(0);
  for (const StepSequence& s : step.sequences) {
    RK_CHECK(s.tokens.size() == s.positions.size());
    rows.tokens.insert(rows.tokens.end(), s.tokens.begin(), s.tokens.end());
    rows.positions.insert(rows.positions.end(), s.positions.begin(), s.positions.end());
    rows.q_begin.push_back(static_cast<int32_t>(rows.tokens.size()));
  }
  if (rows.size() > max_step_rows()) {
    return invalid_argument("step: ", rows.size(), " active rows, ", max_step_rows(), " fit");
  }
  if (static_cast<int64_t>(step.logits_rows.size()) > max_logits_rows()) {
    return invalid_argument("step: logits of ", step.logits_rows.size(), " rows, ",
                            max_logits_rows(), " fit");
  }
  if (step.scores != nullptr && step.sequences.size() != 1) {
    return invalid_argument("step: scores of ", step.sequences.size(), " sequences, 1 wanted");
  }
  for (const StepSequence& s : step.sequences) {
    const int layers = s.kv->num_layers();
    RK_CHECK(layers == num_layers(step) && layers <= config_.num_layers);
    if (layers < config_.num_layers && (!step.logits_rows.empty() || step.scores != nullptr)) {
      return invalid_argument("step: logits or scores of ", layers, " layers, the model has ",
                              config_.num_layers);
    }
  }
  for (int64_t t = 0; t < rows.size(); ++t) {
    const int32_t id = rows.tokens[static_cast<size_t>(t)];
    if (id < 0 || id >= config_.vocab_size) {
      return invalid_argument("token id ", id, " at row ", t, ": the vocabulary has ",
                              config_.vocab_size);
    }
  }
  rows.row_index.resize(rows.tokens.size());
  int32_t* index = rows.row_index.data();
  for (const StepSequence& s : step.sequences) {
    s.kv->row_indices(s.positions, index);
    index += s.positions.size();
  }
  return rows;
}

namespace {

// Bytes of a matrix on a card: see kernels/gemm/gemm_cuda.h.
int64_t matrix_bytes(const WeightFiles* files, const std::string& name, int64_t n, int64_t k,
                     CardWeights weights, bool is_layer, bool multiplies_fp8) {
  if (weights == CardWeights::kFp8 && is_layer) return n * k;
  if (files == nullptr || weights == CardWeights::kBf16) return 2 * n * k;
  const auto dtype = files->stored_dtype(name);
  if (dtype == DType::kE4m3 && is_layer && multiplies_fp8) return n * k;
  if (!dtype || dtype_info(*dtype).block_elems == 1) return 2 * n * k;
  switch (*dtype) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
      return n * k * 5 / 8;
    default:
      return n * k * 9 / 8;
  }
}

}  // namespace

bool takes_fp8(const WeightFiles* files, CardWeights weights) {
  return weights == CardWeights::kFp8 ||
         (weights == CardWeights::kAuto && files != nullptr && files->num_fp8_bytes() > 0);
}

CardMemory card_memory(const WeightFiles* files, const ModelConfig& c,
                       const Decoder::Options& options, bool multiplies_fp8) {
  CardMemory out;
  const int64_t q = int64_t{c.num_heads} * c.head_dim, kv = int64_t{c.num_kv_heads} * c.head_dim;
  const auto add = [&](const std::string& name, int64_t n, int64_t k, bool is_layer) {
    out.weight_bytes +=
        matrix_bytes(files, name, n, k, options.card_weights, is_layer, multiplies_fp8);
  };
  add("token_embd.weight", c.vocab_size, c.hidden, false);
  if (!c.tied_embeddings && (files == nullptr || files->has("output.weight"))) {
    add("output.weight", c.vocab_size, c.hidden, false);
  }
  for (int l = 0; l < c.num_layers; ++l) {
    const std::string prefix = cat("blk.", l, ".");
    add(prefix + "attn_q.weight", q, c.hidden, true);
    add(prefix + "attn_k.weight", kv, c.hidden, true);
    add(prefix + "attn_v.weight", kv, c.hidden, true);
    add(prefix + "attn_output.weight", c.hidden, q, true);
    add(prefix + "ffn_gate.weight", c.ffn, c.hidden, true);
    add(prefix + "ffn_up.weight", c.ffn, c.hidden, true);
    add(prefix + "ffn_down.weight", c.hidden, c.ffn, true);
  }
  const int64_t rows = options.max_step_rows, logits = std::min<int64_t>(rows, kMaxCardLogitsRows);
  out.workspace_bytes = rows * (4 * c.hidden + 2 * (c.hidden + 2 * q + 2 * kv + c.ffn) +
                                4 * std::max(c.ffn, c.hidden) + 8) +
                        logits * (4 * c.hidden + 2 * q + 4 * c.vocab_size) +
                        int64_t{kMaxCardParts} * 128 * (c.head_dim + 1) * 4 + (int64_t{80} << 20);
  if (takes_fp8(files, options.card_weights)) out.workspace_bytes += rows * std::max(c.ffn, q);
  const int64_t context = options.context_tokens > 0 ? options.context_tokens : c.context_tokens;
  out.workspace_bytes += 4 * (rows * c.num_heads + context * c.num_kv_heads);  // of scores
  const int64_t list =
      options.max_list_pages > 0 ? options.max_list_pages : card_list_pages(context);
  out.table_bytes = options.max_sequences * int64_t{c.num_layers} * c.num_kv_heads * list * 4;
  return out;
}

int64_t estimate_memory_bytes(const WeightFiles& files, const ModelConfig& config,
                              const Decoder::Options& options) {
  const int64_t q_width = int64_t{config.num_heads} * config.head_dim;
  const int64_t width = 2 * config.hidden + 3 * q_width + 2 * config.ffn +
                        2 * int64_t{config.num_kv_heads} * config.head_dim;
  const int64_t positions =
      options.context_tokens > 0 ? options.context_tokens : config.context_tokens;
  // Matrices in fp8 become bf16.
  return files.num_bytes() + files.num_bytes() / 8 + files.num_fp8_bytes() +
         width * options.max_step_rows * 4 + positions * config.head_dim * 4;
}

}  // namespace rk::model
