// The variants of rms_norm(). Private to this folder.
#pragma once

#include "kernels/norm/norm.h"

namespace rk::kernels {

Status rms_norm_ref(const RmsNormArgs& args, Context& ctx);

}  // namespace rk::kernels
