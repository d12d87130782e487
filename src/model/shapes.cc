#include "model/shapes.h"

#include <algorithm>
#include <string>

namespace rk::model {
namespace {

struct Shape {
  std::string_view name;
  const char* family;
  int num_layers;
  int64_t hidden;
  int num_heads, num_kv_heads, head_dim;
  int64_t ffn, vocab_size, context_tokens;
  double rope_base;
};
constexpr Shape kShapes[] = {
    {"qwen3-32b", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 40960, 1e6},
    {"mistral-7b", "mistral", 32, 4096, 32, 8, 128, 14336, 32768, 32768, 1e6},
    {"llama-3.3-70b", "llama", 80, 8192, 64, 8, 128, 28672, 128256, 131072, 5e5},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 12, 2, 128, 8960, 151936, 32768, 1e6},
    {"smollm2-135m", "llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5},
};
constexpr std::string_view kNames[] = {kShapes[0].name, kShapes[1].name, kShapes[2].name,
                                       kShapes[3].name, kShapes[4].name};

}  // namespace

std::span<const std::string_view> model_shape_names() { return kNames; }

Result<ModelConfig> model_shape(std::string_view name, int64_t context_tokens) {
  std::string known;
  for (const Shape& s : kShapes) {
    if (s.name != name) {
      known += cat(known.empty() ? "" : ", ", s.name);
      continue;
    }
    ModelConfig config;
    config.family = s.family;
    config.num_layers = s.num_layers;
    config.hidden = s.hidden;
    config.num_heads = s.num_heads;
    config.num_kv_heads = s.num_kv_heads;
    config.head_dim = s.head_dim;
    config.ffn = s.ffn;
    config.vocab_size = s.vocab_size;
    config.context_tokens = std::max(s.context_tokens, context_tokens);
    config.rope.base = s.rope_base;
    config.rope.rotary_dim = config.head_dim;
    return config;
  }
  return not_found("model shape \"", name, "\"; known: ", known);
}

}  // namespace rk::model
