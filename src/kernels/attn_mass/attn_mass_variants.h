// The variants of attn_mass(). Private to this folder.
#pragma once

#include "kernels/attn_mass/attn_mass.h"

namespace rk::kernels {

/// Arguments that the variants below can take: head dims of whole eights.
bool attn_mass_fast_supports(const AttnMassArgs& args);
Status attn_mass_avx512(const AttnMassArgs& args, Context& ctx);
Status attn_mass_avx2(const AttnMassArgs& args, Context& ctx);
Status attn_mass_ref(const AttnMassArgs& args, Context& ctx);

}  // namespace rk::kernels
