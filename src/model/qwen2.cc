// Qwen2 and Qwen2.5: llama's layer with a bias on q, k and v; small ones tie the embeddings.
#include "model/family.h"

namespace rk::model {

const Family& qwen2_family() {
  static constexpr Family kFamily{.name = "qwen2", .qkv_bias = true};
  return kFamily;
}

}  // namespace rk::model
