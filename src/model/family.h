// What a model family does differently inside the one decoder loop (model/decoder.cc). One file per
// family, one line in the registry.
#pragma once

#include <string_view>

#include "base/status.h"
#include "model/config.h"

namespace rk::model {

struct Family {
  const char* name;           ///< ModelConfig::family
  bool qkv_bias = false;      ///< q, k and v have a bias
  bool qk_norm = false;       ///< per-head RMSNorm of q and k before RoPE
  bool takes_window = false;  ///< the config's sliding window is in force
};

const Family& llama_family();
const Family& mistral_family();
const Family& qwen2_family();
const Family& qwen3_family();

/// Errors: kUnimplemented naming the known families.
Result<const Family*> find_family(std::string_view name);

}  // namespace rk::model
