// Stands in for gemm_cuda.cc in a build without CUDA.
#include "kernels/gemm/gemm_cuda.h"

namespace rk::kernels {

Result<std::unique_ptr<GemmCuda>> GemmCuda::create(const Options&, Stream) {
  return unimplemented("this redknot was built without CUDA");
}

}  // namespace rk::kernels
