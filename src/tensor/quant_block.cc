#include "tensor/quant_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace rk {
namespace {

constexpr int kSmall = 32;   // elements of a Q4_0..Q8_0 block
constexpr int kSuper = 256;  // elements of a K block

float load_f16(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return f16_to_f32(bits);
}

/// Stores as binary16 and returns what a reader will see.
float store_f16(uint8_t* p, float value) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(p, &bits, sizeof(bits));
  return f16_to_f32(bits);
}

uint32_t load_u32(const uint8_t* p) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

/// Nearest integer in [lo, hi]; NaN gives lo.
int nearest(float x, int lo, int hi) {
  if (!(x > static_cast<float>(lo))) return lo;
  if (x >= static_cast<float>(hi)) return hi;
  return static_cast<int>(std::lrint(x));
}

float inverse(float x) { return x != 0.0F ? 1.0F / x : 0.0F; }

/// The element of largest magnitude, with its sign.
float signed_peak(const float* x, int n) {
  float peak = 0;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(peak)) peak = x[i];
  }
  return peak;
}

// ---- 32-element formats. Byte i holds element i in its low and element i+16 in its high nibble.

// f16 d | 16 bytes. x = d (q - 8)
void decode_q4_0(const uint8_t* in, float* out) {
  const float d = load_f16(in);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((in[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((in[2 + i] >> 4) - 8);
  }
}
void encode_q4_0(const float* in, uint8_t* out) {
  const float inv = inverse(store_f16(out, signed_peak(in, kSmall) / -8.0F));
  for (int i = 0; i < 16; ++i) {
    const int low = nearest(in[i] * inv + 8.0F, 0, 15);
    const int high = nearest(in[i + 16] * inv + 8.0F, 0, 15);
    out[2 + i] = static_cast<uint8_t>(low | (high << 4));
  }
}

// f16 d | f16 m | 16 bytes. x = d q + m
void decode_q4_1(const uint8_t* in, float* out) {
  const float d = load_f16(in);
  const float m = load_f16(in + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(in[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(in[4 + i] >> 4) + m;
  }
}
void encode_q4_1(const float* in, uint8_t* out) {
  const auto [min, max] = std::minmax_element(in, in + kSmall);
  const float inv = inverse(store_f16(out, (*max - *min) / 15.0F));
  const float m = store_f16(out + 2, *min);
  for (int i = 0; i < 16; ++i) {
    const int low = nearest((in[i] - m) * inv, 0, 15);
    const int high = nearest((in[i + 16] - m) * inv, 0, 15);
    out[4 + i] = static_cast<uint8_t>(low | (high << 4));
  }
}

// The fifth bits of elements 0..31 are the bits of a 32-bit word in front of the nibbles.
int q5_value(const uint8_t* nibbles, uint32_t high, int i) {
  const int low = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
  return low | static_cast<int>(((high >> i) & 1U) << 4);
}
void store_q5(const int* q, uint8_t* high_bits, uint8_t* nibbles) {
  uint32_t high = 0;
  for (int i = 0; i < kSmall; ++i) high |= static_cast<uint32_t>(q[i] >> 4) << i;
  std::memcpy(high_bits, &high, sizeof(high));
  for (int i = 0; i < 16; ++i) {
    nibbles[i] = static_cast<uint8_t>((q[i] & 15) | ((q[i + 16] & 15) << 4));
  }
}

// f16 d | u32 high | 16 bytes. x = d (q - 16)
void decode_q5_0(const uint8_t* in, float* out) {
  const float d = load_f16(in);
  const uint32_t high = load_u32(in + 2);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(q5_value(in + 6, high, i) - 16);
}
void encode_q5_0(const float* in, uint8_t* out) {
  const float inv = inverse(store_f16(out, signed_peak(in, kSmall) / -16.0F));
  int q[kSmall];
  for (int i = 0; i < kSmall; ++i) q[i] = nearest(in[i] * inv + 16.0F, 0, 31);
  store_q5(q, out + 2, out + 6);
}

// f16 d | f16 m | u32 high | 16 bytes. x = d q + m
void decode_q5_1(const uint8_t* in, float* out) {
  const float d = load_f16(in);
  const float m = load_f16(in + 2);
  const uint32_t high = load_u32(in + 4);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(q5_value(in + 8, high, i)) + m;
}
void encode_q5_1(const float* in, uint8_t* out) {
  const auto [min, max] = std::minmax_element(in, in + kSmall);
  const float inv = inverse(store_f16(out, (*max - *min) / 31.0F));
  const float m = store_f16(out + 2, *min);
  int q[kSmall];
  for (int i = 0; i < kSmall; ++i) q[i] = nearest((in[i] - m) * inv, 0, 31);
  store_q5(q, out + 4, out + 8);
}

// f16 d | 32 int8. x = d q
void decode_q8_0(const uint8_t* in, float* out) {
  const float d = load_f16(in);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(in[2 + i]));
}
void encode_q8_0(const float* in, uint8_t* out) {
  const float inv = inverse(store_f16(out, std::fabs(signed_peak(in, kSmall)) / 127.0F));
  for (int i = 0; i < kSmall; ++i) {
    out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(nearest(in[i] * inv, -127, 127)));
  }
}

// ---- 256-element formats: sub-blocks with small integer scales under f16 ones.

struct ScaleMin {
  int scale;
  int min;
};

// Q4_K and Q5_K: 8 pairs of 6 bits in 12 bytes. Pairs 0..3 lie in the low 6 bits of bytes j and
// j+4; pairs 4..7 have 4 bits each in byte j+4 and their top 2 bits above pairs 0..3.
ScaleMin load_pair(const uint8_t* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)};
}
void store_pair(uint8_t* s, int j, ScaleMin pair) {
  if (j < 4) {
    s[j] = static_cast<uint8_t>((s[j] & 0xc0) | pair.scale);
    s[j + 4] = static_cast<uint8_t>((s[j + 4] & 0xc0) | pair.min);
    return;
  }
  s[j + 4] = static_cast<uint8_t>((pair.scale & 15) | ((pair.min & 15) << 4));
  s[j - 4] = static_cast<uint8_t>((s[j - 4] & 63) | ((pair.scale >> 4) << 6));
  s[j] = static_cast<uint8_t>((s[j] & 63) | ((pair.min >> 4) << 6));
}

// f16 d | f16 dmin | 12 bytes of pairs | [Q5: 32 bytes, bit j of byte i = fifth bit of element i of
// sub-block j] | 128 bytes: sub-blocks 2c and 2c+1 are the low and high nibbles of 32 bytes.
// x = d scale q - dmin min
template <bool kFive>
void decode_q45_k(const uint8_t* in, float* out) {
  const float d = load_f16(in);
  const float dmin = load_f16(in + 2);
  const uint8_t* high = in + 16;
  const uint8_t* nibbles = in + (kFive ? 48 : 16);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin pair = load_pair(in + 4, j);
    const float scale = d * static_cast<float>(pair.scale);
    const float min = dmin * static_cast<float>(pair.min);
    for (int i = 0; i < 32; ++i) {
      int q = (nibbles[j / 2 * 32 + i] >> (j % 2 * 4)) & 15;
      if (kFive) q |= ((high[i] >> j) & 1) << 4;
      out[j * 32 + i] = scale * static_cast<float>(q) - min;
    }
  }
}
template <bool kFive>
void encode_q45_k(const float* in, uint8_t* out) {
  constexpr int kTop = kFive ? 31 : 15;
  float scales[8];
  float mins[8];
  for (int j = 0; j < 8; ++j) {
    const auto [low, high] = std::minmax_element(in + j * 32, in + j * 32 + 32);
    mins[j] = std::max(-*low, 0.0F);
    scales[j] = std::max(*high + mins[j], 0.0F) / kTop;
  }
  std::memset(out, 0, kFive ? 176 : 144);
  const float d = store_f16(out, *std::max_element(scales, scales + 8) / 63.0F);
  const float dmin = store_f16(out + 2, *std::max_element(mins, mins + 8) / 63.0F);
  uint8_t* fifth = out + 16;
  uint8_t* nibbles = out + (kFive ? 48 : 16);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin pair = {nearest(scales[j] * inverse(d), 0, 63),
                           nearest(mins[j] * inverse(dmin), 0, 63)};
    store_pair(out + 4, j, pair);
    const float inv = inverse(d * static_cast<float>(pair.scale));
    const float min = dmin * static_cast<float>(pair.min);
    for (int i = 0; i < 32; ++i) {
      const int q = nearest((in[j * 32 + i] + min) * inv, 0, kTop);
      nibbles[j / 2 * 32 + i] |= static_cast<uint8_t>((q & 15) << (j % 2 * 4));
      if (kFive) fifth[i] |= static_cast<uint8_t>((q >> 4) << j);
    }
  }
}

// 128 bytes low | 64 bytes high | 16 int8 scales | f16 d. Element e of half h: low nibbles in byte
// 64h + e%64 (upper nibble from e = 64 on), high pairs of bits in byte 32h + e%32 at bit 2(e/32).
// x = d scale (q - 32)
void decode_q6_k(const uint8_t* in, float* out) {
  const float d = load_f16(in + 208);
  for (int e = 0; e < kSuper; ++e) {
    const int h = e / 128;
    const int r = e % 128;
    const int low = (in[64 * h + r % 64] >> (r / 64 * 4)) & 15;
    const int high = (in[128 + 32 * h + r % 32] >> (r / 32 * 2)) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(in[192 + e / 16]));
    out[e] = scale * static_cast<float>((low | (high << 4)) - 32);
  }
}
void encode_q6_k(const float* in, uint8_t* out) {
  float scales[16];
  for (int j = 0; j < 16; ++j) scales[j] = signed_peak(in + j * 16, 16) / -32.0F;
  std::memset(out, 0, 210);
  const float d = store_f16(out + 208, signed_peak(scales, 16) / -128.0F);
  for (int e = 0; e < kSuper; ++e) {
    const int scale = nearest(scales[e / 16] * inverse(d), -128, 127);
    out[192 + e / 16] = static_cast<uint8_t>(static_cast<int8_t>(scale));
    const int q = nearest(in[e] * inverse(d * static_cast<float>(scale)) + 32.0F, 0, 63);
    const int h = e / 128;
    const int r = e % 128;
    out[64 * h + r % 64] |= static_cast<uint8_t>((q & 15) << (r / 64 * 4));
    out[128 + 32 * h + r % 32] |= static_cast<uint8_t>((q >> 4) << (r / 32 * 2));
  }
}

// ---- plain types, one element at a time

template <class T>
T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <class T>
void store(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}
void decode_f32(const uint8_t* in, float* out) { *out = load<float>(in); }
void encode_f32(const float* in, uint8_t* out) { store(out, *in); }
void decode_f16(const uint8_t* in, float* out) { *out = load_f16(in); }
void encode_f16(const float* in, uint8_t* out) { store(out, f32_to_f16(*in)); }
void decode_bf16(const uint8_t* in, float* out) { *out = bf16_to_f32(load<uint16_t>(in)); }
void encode_bf16(const float* in, uint8_t* out) { store(out, f32_to_bf16(*in)); }
void decode_i8(const uint8_t* in, float* out) { *out = load<int8_t>(in); }
void encode_i8(const float* in, uint8_t* out) {
  store(out, static_cast<int8_t>(nearest(*in, -128, 127)));
}
void decode_i32(const uint8_t* in, float* out) { *out = static_cast<float>(load<int32_t>(in)); }
void encode_i32(const float* in, uint8_t* out) {
  store(out, int32_t{nearest(*in, -2147483647, 2147483647)});
}

void decode_e4m3(const uint8_t* in, float* out) { *out = e4m3_to_f32(*in); }
void encode_e4m3(const float* in, uint8_t* out) { *out = f32_to_e4m3(*in); }

struct Codec {
  void (*decode)(const uint8_t* in, float* out);
  void (*encode)(const float* in, uint8_t* out);
};

Codec codec(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {decode_f32, encode_f32};
    case DType::kF16:
      return {decode_f16, encode_f16};
    case DType::kBf16:
      return {decode_bf16, encode_bf16};
    case DType::kI8:
      return {decode_i8, encode_i8};
    case DType::kI32:
      return {decode_i32, encode_i32};
    case DType::kE4m3:
      return {decode_e4m3, encode_e4m3};
    case DType::kQ4_0:
      return {decode_q4_0, encode_q4_0};
    case DType::kQ4_1:
      return {decode_q4_1, encode_q4_1};
    case DType::kQ5_0:
      return {decode_q5_0, encode_q5_0};
    case DType::kQ5_1:
      return {decode_q5_1, encode_q5_1};
    case DType::kQ8_0:
      return {decode_q8_0, encode_q8_0};
    case DType::kQ4_K:
      return {decode_q45_k<false>, encode_q45_k<false>};
    case DType::kQ5_K:
      return {decode_q45_k<true>, encode_q45_k<true>};
    case DType::kQ6_K:
      return {decode_q6_k, encode_q6_k};
  }
  RK_CHECK(!"codec of an unknown dtype");
  return {};
}

}  // namespace

void dequantize(DType dtype, const void* in, float* out, int64_t num) {
  const DTypeInfo& info = dtype_info(dtype);
  RK_CHECK(num >= 0 && num % info.block_elems == 0);
  const Codec c = codec(dtype);
  const auto* p = static_cast<const uint8_t*>(in);
  for (int64_t i = 0; i < num; i += info.block_elems, p += info.block_bytes) c.decode(p, out + i);
}

void quantize(DType dtype, const float* in, void* out, int64_t num) {
  const DTypeInfo& info = dtype_info(dtype);
  RK_CHECK(num >= 0 && num % info.block_elems == 0);
  const Codec c = codec(dtype);
  auto* p = static_cast<uint8_t*>(out);
  for (int64_t i = 0; i < num; i += info.block_elems, p += info.block_bytes) c.encode(in + i, p);
}

}  // namespace rk
