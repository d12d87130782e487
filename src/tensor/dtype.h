// Element types of tensors, GGUF's block formats included. A quantised type packs `block_elems`
// elements into `block_bytes` bytes; plain types have blocks of one.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace rk {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBf16,
  kI8,
  kI32,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kE4m3,  ///< fp8 codes without their scales (tensor/fp8.h)
};

struct DTypeInfo {
  const char* name;  ///< "f32", "q4_k", as written in messages and flags
  int block_elems;
  int block_bytes;
};

const DTypeInfo& dtype_info(DType dtype);
inline const char* dtype_name(DType dtype) { return dtype_info(dtype).name; }
/// Errors: kInvalidArgument naming the known ones.
Result<DType> parse_dtype(std::string_view name);
/// Bytes of `num` elements. Requires: num is a multiple of the block.
int64_t dtype_bytes(DType dtype, int64_t num);

/// IEEE binary16 and bfloat16 to and from float, round to nearest even. Scalar; kernels have their
/// own.
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);
float bf16_to_f32(uint16_t bits);
uint16_t f32_to_bf16(float value);
/// e4m3fn: no infinities, 0x7f and 0xff are NaN, at most 448. To it rounds to nearest even
/// (through f16) and saturates; NaN becomes -448.
float e4m3_to_f32(uint8_t bits);
uint8_t f32_to_e4m3(float value);

}  // namespace rk
