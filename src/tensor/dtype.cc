#include "tensor/dtype.h"

#include <bit>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace rk {
namespace {

constexpr DTypeInfo kInfo[] = {
    {"f32", 1, 4},      {"f16", 1, 2},      {"bf16", 1, 2},     {"i8", 1, 1},     {"i32", 1, 4},
    {"q4_0", 32, 18},   {"q4_1", 32, 20},   {"q5_0", 32, 22},   {"q5_1", 32, 24}, {"q8_0", 32, 34},
    {"q4_k", 256, 144}, {"q5_k", 256, 176}, {"q6_k", 256, 210}, {"e4m3", 1, 1},
};

}  // namespace

const DTypeInfo& dtype_info(DType dtype) { return kInfo[static_cast<int>(dtype)]; }

Result<DType> parse_dtype(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < std::size(kInfo); ++i) {
    if (name == kInfo[i].name) return static_cast<DType>(i);
    known += cat(i ? ", " : "", kInfo[i].name);
  }
  return invalid_argument("dtype: '", name, "' is none of ", known);
}

int64_t dtype_bytes(DType dtype, int64_t num) {
  const DTypeInfo& info = dtype_info(dtype);
  RK_DCHECK(num % info.block_elems == 0);
  return num / info.block_elems * info.block_bytes;
}

float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000U} << 16, exp = (h >> 10) & 0x1f, man = h & 0x3ff;
  if (exp == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | (man << 13));
  if (exp == 0) {  // zero and subnormals: man * 2^-24
    const float value = static_cast<float>(man) * 5.9604644775390625e-8F;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  return std::bit_cast<float>(sign | ((exp + 112) << 23) | (man << 13));
}

uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  const uint32_t abs = bits & 0x7fffffffU;
  if (abs > 0x7f800000U) return sign | 0x7e00U;   // NaN
  if (abs >= 0x477ff000U) return sign | 0x7c00U;  // rounds to infinity
  if (abs < 0x38800000U) {                        // subnormal half: scale so that 2^-24 becomes 1
    const float scaled = std::bit_cast<float>(abs) * 16777216.0F;
    const uint32_t whole = static_cast<uint32_t>(scaled);
    const float rest = scaled - static_cast<float>(whole);
    const uint32_t up = rest > 0.5F || (rest == 0.5F && (whole & 1U)) ? 1 : 0;
    return static_cast<uint16_t>(sign | (whole + up));
  }
  const uint32_t rounded = abs + 0xfffU + ((abs >> 13) & 1U);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// e4m3 has f16's sign and order, its bias 8 less and 7 fewer bits of mantissa.
float e4m3_to_f32(uint8_t bits) {
  if ((bits & 0x7fU) == 0x7fU) return std::numeric_limits<float>::quiet_NaN();
  return f16_to_f32(static_cast<uint16_t>((bits & 0x80U) << 8 | (bits & 0x7fU) << 7)) * 256;
}

uint8_t f32_to_e4m3(float value) {
  const float bounded = value > -448 ? (value < 448 ? value : 448.0F) : -448.0F;
  const uint16_t h = f32_to_f16(bounded * (1.0F / 256));
  const unsigned magnitude = h & 0x7fffU;
  return static_cast<uint8_t>((h >> 8 & 0x80U) | (magnitude + 0x3fU + (magnitude >> 7 & 1U)) >> 7);
}

}  // namespace rk
