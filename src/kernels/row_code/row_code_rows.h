// Rows to codes and back by instruction set: plain pointers. Files compiled for an instruction set
// include this, so nothing here may have a body (kernels/context.h).
#pragma once

#include <cstdint>

namespace rk::kernels {

enum class CodedRow { kF32, kF16, kBf16 };
enum class CodeKind { kInt8, kInt4, kFp8 };

/// One row. `params` and `codes` are the row's part of a block; `constant` [n] is already rotated,
/// or null. Requires: n is a multiple of 16, of 32 for int4.
using CodeRowFn = void (*)(CodeKind kind, CodedRow dtype, void* row, uint16_t* params,
                           uint8_t* codes, const float* constant, int64_t n);

void encode_row_ref(CodeKind, CodedRow, void*, uint16_t*, uint8_t*, const float*, int64_t);
void decode_row_ref(CodeKind, CodedRow, void*, uint16_t*, uint8_t*, const float*, int64_t);
void encode_row_avx2(CodeKind, CodedRow, void*, uint16_t*, uint8_t*, const float*, int64_t);
void decode_row_avx2(CodeKind, CodedRow, void*, uint16_t*, uint8_t*, const float*, int64_t);
void encode_row_avx512(CodeKind, CodedRow, void*, uint16_t*, uint8_t*, const float*, int64_t);
void decode_row_avx512(CodeKind, CodedRow, void*, uint16_t*, uint8_t*, const float*, int64_t);

/// out = R(j) constant from row j of the tables; elements beyond `rotary_dim` stay.
using TurnFn = void (*)(const float* constant, const float* cos, const float* sin, float* out,
                        int64_t n, int64_t rotary_dim, bool interleaved);
void turn_constant_ref(const float*, const float*, const float*, float*, int64_t, int64_t, bool);
void turn_constant_avx2(const float*, const float*, const float*, float*, int64_t, int64_t, bool);
void turn_constant_avx512(const float*, const float*, const float*, float*, int64_t, int64_t, bool);

}  // namespace rk::kernels
