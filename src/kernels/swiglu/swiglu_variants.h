// The variants of swiglu(). Private to this folder.
#pragma once

#include "kernels/swiglu/swiglu.h"

namespace rk::kernels {

Status swiglu_ref(const SwigluArgs& args, Context& ctx);

}  // namespace rk::kernels
