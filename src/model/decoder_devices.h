// The decoders behind Decoder::load, one per kind of device.
#pragma once

#include <memory>

#include "model/decoder.h"

namespace rk::model {

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
