// The variants of seg_attn(). Private to this folder.
#pragma once

#include "kernels/seg_attn/seg_attn.h"

namespace rk::kernels {

/// Arguments that the variants below can take: head dims of whole eights.
bool seg_attn_fast_supports(const SegAttnArgs& args);
Status seg_attn_avx512(const SegAttnArgs& args, Context& ctx);
Status seg_attn_avx2(const SegAttnArgs& args, Context& ctx);
Status seg_attn_ref(const SegAttnArgs& args, Context& ctx);

}  // namespace rk::kernels
