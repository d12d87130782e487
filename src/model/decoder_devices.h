// The decoders behind Decoder::load, one per kind of device.
#pragma once

#include <memory>

#include "model/decoder.h"

namespace rk::model {

// What a card's workspace is cut for.
inline constexpr int kMaxCardLogitsRows = 512;
inline constexpr int kMaxCardParts = 2048;  ///< split parts of one attention call
/// Entries of a head's page list: every span begins on a page of its own, so there is room for many
/// short documents.
inline int64_t card_list_pages(int64_t context_tokens) {
  return 2 * ((context_tokens + 15) / 16) + 64;
}

/// Layers hold qkv, o, gate_up and down.
template <class Layers, class Weight>
MatrixBytes sum_matrices(const Layers& layers, const Weight& output) {
  MatrixBytes out;
  out.output = static_cast<double>(output.num_bytes());
  for (const auto& layer : layers) {
    out.qkv += static_cast<double>(layer.qkv->num_bytes());
    out.rest += out.last;
    out.last = static_cast<double>(layer.o->num_bytes() + layer.gate_up->num_bytes() +
                                   layer.down->num_bytes());
  }
  return out;
}

struct LoadArgs {
  const WeightFiles* files;  ///< null: random weights
  const ModelConfig& config;
  const Decoder::Options& options;
  const Family& family;
};
Result<std::unique_ptr<Decoder>> load_cpu_decoder(const LoadArgs& args, kernels::Context& ctx);
/// Errors: kUnimplemented in a build without CUDA.
Result<std::unique_ptr<Decoder>> load_cuda_decoder(const LoadArgs& args);

}  // namespace rk::model
