// Mistral 7B: llama's layer; v0.1 has a sliding window over all layers, later versions have none.
#include "model/family.h"

namespace rk::model {

const Family& mistral_family() {
  static constexpr Family kFamily{.name = "mistral", .takes_window = true};
  return kFamily;
}

}  // namespace rk::model
