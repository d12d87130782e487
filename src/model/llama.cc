// Llama 2/3, SmolLM2: RMSNorm, RoPE (default, linear, llama3), grouped heads, SwiGLU, no bias.
#include "model/family.h"

namespace rk::model {

const Family& llama_family() {
  static constexpr Family kFamily{.name = "llama"};
  return kFamily;
}

}  // namespace rk::model
