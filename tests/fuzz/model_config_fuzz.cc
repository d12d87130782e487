// config.json: no crash, and whatever is accepted has finite rotary frequencies and sane sizes.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = rk::model::config_from_json(
      std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!config.ok()) {
    RK_CHECK(!config.status().message().empty());
    return 0;
  }
  RK_CHECK(config->num_layers > 0 && config->head_dim > 0 && config->num_kv_heads > 0);
  RK_CHECK(config->num_heads % config->num_kv_heads == 0);
  for (const double f : rk::model::rope_inv_freq(config->rope)) RK_CHECK(std::isfinite(f));
  RK_CHECK(std::isfinite(rk::model::rope_magnitude(config->rope)));
  return 0;
}
