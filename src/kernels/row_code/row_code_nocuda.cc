// Stands in for the card's row codes in a build without CUDA.
#include "kernels/row_code/row_code_cuda.h"

namespace rk::kernels {

Status encode_rows_cuda(const RowCodeCudaArgs&, Stream) {
  return unimplemented("this redknot was built without CUDA");
}
Status decode_rows_cuda(const RowCodeCudaArgs&, Stream) {
  return unimplemented("this redknot was built without CUDA");
}

}  // namespace rk::kernels
