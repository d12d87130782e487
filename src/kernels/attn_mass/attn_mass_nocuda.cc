// Stands in for attn_mass_cuda.cu in a build without CUDA.
#include "kernels/attn_mass/attn_mass_cuda.h"

namespace rk::kernels {

Status attn_mass_cuda(const AttnMassCudaArgs&, Stream) {
  return unimplemented("attn_mass: this redknot was built without CUDA");
}

}  // namespace rk::kernels
