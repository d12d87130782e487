// What a model is: sizes, RoPE and the few switches families differ in, from GGUF metadata or
// config.json. Everything is range-checked; errors name field and value. Plain values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/rope/rope.h"
#include "tensor/gguf.h"

namespace rk::model {

/// RoPE with static frequencies (spec A4). Tables that depend on the request's length are refused.
struct RopeConfig {
  enum class Kind { kDefault, kLinear, kLlama3, kYarn };
  Kind kind = Kind::kDefault;
  double base = 10000;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
  double beta_fast = 32, beta_slow = 1;              ///< yarn
  double attention_factor = 0;                       ///< yarn: 0 means 0.1 ln(factor) + 1
  int64_t original_context = 0;                      ///< llama3, yarn
  int rotary_dim = 0;                                ///< elements of a head that turn
  std::vector<double> divisors;                      ///< per frequency (GGUF rope_freqs), or empty
  kernels::RopePairs pairs = kernels::RopePairs::kHalfSplit;
};

struct ModelConfig {
  std::string family;  ///< llama, mistral, qwen2, qwen3
  int num_layers = 0;
  int64_t hidden = 0;
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t ffn = 0;
  int64_t vocab_size = 0;
  int64_t context_tokens = 0;  ///< trained
  float rms_eps = 1e-5F;
  RopeConfig rope;
  int sliding_window = 0;  ///< 0: none
  bool qkv_bias = false, o_bias = false;
  bool tied_embeddings = false;
  std::string quantisation;  ///< "q4_1" and the like: the commonest tensor type, for people
};

Result<ModelConfig> config_from_gguf(const GgufFile& file);
Result<ModelConfig> config_from_json(std::string_view json, const std::string& name);
/// A GGUF file, a Hugging Face folder, or a .safetensors file beside its config.json.
Result<ModelConfig> read_config(const std::string& path);

/// Angle per position of each pair, double precision, [rotary_dim / 2].
std::vector<double> rope_inv_freq(const RopeConfig& rope);
/// yarn's magnitude m, multiplied into cos and sin once; 1 for the others.
double rope_magnitude(const RopeConfig& rope);

}  // namespace rk::model
