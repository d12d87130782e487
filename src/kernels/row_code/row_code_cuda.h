// encode_rows() and decode_rows() (kernels/row_code/row_code.h) for a document whose pages and
// blocks lie on a card. The same codes; a key constant's rotation may differ in its last bit. In
// stream order; nothing is allocated. All pointers are device pointers.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "kernels/row_code/row_code.h"
#include "tensor/device.h"
#include "tensor/view.h"

namespace rk::kernels {

struct RowCodeCudaArgs {
  RowCode k = RowCode::kInt8, v = RowCode::kInt8;
  View k_pages, v_pages;           ///< [N, P, D] bf16; D a multiple of 32, P of 8
  const int32_t* pages = nullptr;  ///< [num_heads, pages_per_head] ids, in row order
  uint8_t* blocks = nullptr;       ///< of each of them: K's block, V's block; 16-byte aligned
  int64_t num_heads = 0, pages_per_head = 0;
  int32_t num_rows = 0;                 ///< of the document; page i begins with row i P
  const float* key_constant = nullptr;  ///< [num_heads, D] or null
  RopeView rope;                        ///< of the constants
};
Status encode_rows_cuda(const RowCodeCudaArgs& args, Stream stream);
Status decode_rows_cuda(const RowCodeCudaArgs& args, Stream stream);

}  // namespace rk::kernels
