// The variants of seg_attn(). Private to this folder.
#pragma once

#include "kernels/seg_attn/seg_attn.h"

namespace rk::kernels {

Status seg_attn_ref(const SegAttnArgs& args, Context& ctx);

}  // namespace rk::kernels
