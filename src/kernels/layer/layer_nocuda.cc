// Stands in for the card's layer kernels in a build without CUDA.
#include "kernels/layer/layer_cuda.h"

namespace rk::kernels {
namespace {

Status none() { return unimplemented("this redknot was built without CUDA"); }

}  // namespace

Status rms_norm_cuda(const RmsNormCudaArgs&, Stream) { return none(); }
Status qkv_write_cuda(const QkvWriteCudaArgs&, Stream) { return none(); }
Status swiglu_cuda(const View&, const View&, Stream) { return none(); }
Status gather_rows_cuda(const View&, const int32_t*, const View&, Stream) { return none(); }
Status add_rows_cuda(const View&, const int32_t*, const View&, Stream) { return none(); }
Status row_norms_cuda(const View&, float*, Stream) { return none(); }
Status scatter_i32_cuda(const int64_t*, const int32_t*, int64_t, int32_t*, Stream) {
  return none();
}
Status copy_pages_cuda(const View&, const View&, const int32_t*, const int32_t*, int64_t, Stream) {
  return none();
}
Status mean_pages_cuda(const View&, const View&, const int32_t*, const int32_t*, int, int64_t,
                       Stream) {
  return none();
}
Status fill_normal_cuda(const View&, uint64_t, float, Stream) { return none(); }

}  // namespace rk::kernels
