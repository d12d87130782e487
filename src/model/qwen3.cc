// Qwen3: per-head RMSNorm of q and k before RoPE, no bias; heads * head_dim may differ from hidden.
#include "model/family.h"

namespace rk::model {

const Family& qwen3_family() {
  static constexpr Family kFamily{.name = "qwen3", .qk_norm = true};
  return kFamily;
}

}  // namespace rk::model
