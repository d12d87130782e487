#include "kernels/attn_mass/attn_mass_many.h"

namespace rk::kernels {

void attn_mass_tile_avx512(const MassTile& tile) { add_mass_any(tile); }

}  // namespace rk::kernels
