// Stands in for sample_cuda.cu in a build without CUDA.
#include "kernels/sample/sample_cuda.h"

namespace rk::kernels {

Status sample_cuda(const View&, const SampleRow*, const SampleAdjust*, int32_t*, Stream) {
  return unimplemented("this redknot was built without CUDA");
}

}  // namespace rk::kernels
