#include "kernels/seg_attn/seg_attn_few.h"
#include "kernels/seg_attn/seg_attn_many.h"

namespace rk::kernels {

void attend_few_avx2(const AttnTile& tile) { attend_few_any(tile); }
void attend_many_avx2(const AttnTile& tile) { attend_many_any(tile); }

}  // namespace rk::kernels
