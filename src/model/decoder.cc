// What the decoders of all devices share.
#include "model/decoder.h"

#include "base/check.h"
#include "model/decoder_devices.h"

namespace rk::model {

Decoder::Decoder(const ModelConfig& config, const Options& options, const Family& family)
    : config_(config), options_(options), family_(family) {
  if (!family.takes_window) config_.sliding_window = 0;
}

Result<std::unique_ptr<Decoder>> Decoder::load(const WeightFiles& files, const ModelConfig& config,
                                               const Options& options, kernels::Context& ctx) {
  RK_TRY(const Family* family, find_family(config.family));
  const LoadArgs args{&files, config, options, *family};
  return options.device.is_cuda() ? load_cuda_decoder(args) : load_cpu_decoder(args, ctx);
}

Result<std::unique_ptr<Decoder>> Decoder::random(const ModelConfig& config,
                                                 const Options& options) {
  RK_TRY(const Family* family, find_family(config.family));
  if (!options.device.is_cuda()) return unimplemented("random weights: on a card only");
  return load_cuda_decoder({nullptr, config, options, *family});
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

int64_t estimate_memory_bytes(const WeightFiles& files, const ModelConfig& config,
                              const Decoder::Options& options) {
  const int64_t q_width = int64_t{config.num_heads} * config.head_dim;
  const int64_t width = 2 * config.hidden + 3 * q_width + 2 * config.ffn +
                        2 * int64_t{config.num_kv_heads} * config.head_dim;
  const int64_t positions =
      options.context_tokens > 0 ? options.context_tokens : config.context_tokens;
  return files.num_bytes() + files.num_bytes() / 8 + width * options.max_step_rows * 4 +
         positions * config.head_dim * 4;
}

}  // namespace rk::model
