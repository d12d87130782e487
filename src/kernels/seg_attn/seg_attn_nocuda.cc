// Stands in for seg_attn_cuda.cc in a build without CUDA.
#include "kernels/seg_attn/seg_attn_cuda.h"

namespace rk::kernels {

Status seg_attn_cuda(const SegAttnCudaArgs&, std::string_view, Stream) {
  return unimplemented("seg_attn: this redknot was built without CUDA");
}

}  // namespace rk::kernels
