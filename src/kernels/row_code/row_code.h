// Rows of K or V in fewer bits, and back: what documents at rest are kept in (kv/quant_rows.h).
//
//   kInt8  x ~ s c,      c in -127..127,  s = max |x| / 127 of the row
//   kInt4  x ~ m + s c,  c in 0..15,      m = min, s = (max - m) / 15 of a group of 32
//   kFp8   x ~ s c,      c in e4m3,       s = max |x| / 448 of the row
//
// s and m are f16, rounded so that the codes still span the row. A block is one page of rows:
// [P, parameters per row] f16, then [P, bytes per row] codes; of int4 byte i of a group holds
// element i and, in its high half, element i + 16.
//
// A constant that every row carries, rotated to the row's index j (a layer's key bias), can be left
// out: x - R(j) constant is coded and R(j) constant is added when it is read. Sums are f32.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/context.h"
#include "kernels/rope/rope.h"
#include "tensor/dtype.h"

namespace rk::kernels {

enum class RowCode : uint8_t { kInt8, kInt4, kFp8 };
constexpr int kRowCodeGroup = 32;     ///< elements of an int4 group
constexpr int kRowCodeMaxDim = 1024;  ///< elements of a row at most

/// Bytes of a block of `num_rows` rows of `dim` elements.
int64_t row_block_bytes(RowCode code, int64_t num_rows, int64_t dim);

/// One page of rows beside its block.
struct RowCodePage {
  void* rows = nullptr;             ///< [P, D] of the dtype below; decode writes the first rows
  uint8_t* block = nullptr;         ///< row_block_bytes(code, P, D)
  const float* constant = nullptr;  ///< [D]; null: none
  int32_t first_row = 0;            ///< index j of row 0, what the constant is rotated at
  int32_t num_rows = 0;             ///< rows in use, at most P; the rest of a block is zero
};

struct RowCodeArgs {
  RowCode code = RowCode::kInt8;
  DType dtype = DType::kF16;  ///< f16, bf16 or f32
  int64_t dim = 0;            ///< D; a multiple of 32 for kInt4
  int32_t page_rows = 16;     ///< P
  std::span<const RowCodePage> pages;
  RopeView rope;  ///< of the constants
};

/// Rows to blocks. Not finite elements saturate.
/// Errors: kInvalidArgument for shapes that cannot be.
Status encode_rows(const RowCodeArgs& args, Context& ctx);
/// Blocks to rows; f16 results round to nearest even. Errors: as encode_rows().
Status decode_rows(const RowCodeArgs& args, Context& ctx);

}  // namespace rk::kernels
