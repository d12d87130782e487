// Shapes of well-known models, for speed with random weights (`redknot bench shapes`) and for
// capacity questions without the files.
#pragma once

#include <span>
#include <string_view>

#include "base/status.h"
#include "model/config.h"

namespace rk::model {

/// The names are model_shape_names(). `context_tokens` replaces the trained context where
/// it is longer. Errors: kNotFound naming the known ones.
Result<ModelConfig> model_shape(std::string_view name, int64_t context_tokens = 0);
std::span<const std::string_view> model_shape_names();

}  // namespace rk::model
