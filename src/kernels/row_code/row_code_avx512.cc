#include "kernels/row_code/row_code_body.h"

namespace rk::kernels {

void encode_row_avx512(CodeKind kind, CodedRow dtype, void* row, uint16_t* params, uint8_t* codes,
                       const float* constant, int64_t n) {
  encode_row(kind, dtype, row, params, codes, constant, n);
}

void decode_row_avx512(CodeKind kind, CodedRow dtype, void* row, uint16_t* params, uint8_t* codes,
                       const float* constant, int64_t n) {
  decode_row(kind, dtype, row, params, codes, constant, n);
}

void turn_constant_avx512(const float* constant, const float* cos, const float* sin, float* out,
                          int64_t n, int64_t rotary_dim, bool interleaved) {
  turn_constant(constant, cos, sin, out, n, rotary_dim, interleaved);
}

}  // namespace rk::kernels
