#include "tensor/quant_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace rk {
namespace {

constexpr int kSmall = 32;   // elements of a simple block
constexpr int kLarge = 256;  // elements of a K block

uint16_t read_u16(const uint8_t* p) {
  uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return bits;
}
float read_half(const uint8_t* p) { return f16_to_f32(read_u16(p)); }
void write_half(uint8_t* p, float value) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(p, &bits, 2);
}

// q4_0: d f16, 16 bytes of nibbles (element i low, i+16 high): d * (q - 8).
void read_q4_0(const uint8_t* b, float* out) {
  const float d = read_half(b);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((b[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((b[2 + i] >> 4) - 8);
  }
}
// q4_1: d f16, m f16, nibbles: d * q + m.
void read_q4_1(const uint8_t* b, float* out) {
  const float d = read_half(b), m = read_half(b + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(b[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(b[4 + i] >> 4) + m;
  }
}
// q5_0: d f16, 32 fifth bits, nibbles: d * (q - 16).
void read_q5_0(const uint8_t* b, float* out) {
  const float d = read_half(b);
  uint32_t high = 0;
  std::memcpy(&high, b + 2, 4);
  for (int i = 0; i < 16; ++i) {
    const int lo = (b[6 + i] & 15) | static_cast<int>((high >> i & 1) << 4);
    const int hi = (b[6 + i] >> 4) | static_cast<int>((high >> (i + 16) & 1) << 4);
    out[i] = d * static_cast<float>(lo - 16);
    out[i + 16] = d * static_cast<float>(hi - 16);
  }
}
// q5_1: d f16, m f16, 32 fifth bits, nibbles: d * q + m.
void read_q5_1(const uint8_t* b, float* out) {
  const float d = read_half(b), m = read_half(b + 2);
  uint32_t high = 0;
  std::memcpy(&high, b + 4, 4);
  for (int i = 0; i < 16; ++i) {
    const int lo = (b[8 + i] & 15) | static_cast<int>((high >> i & 1) << 4);
    const int hi = (b[8 + i] >> 4) | static_cast<int>((high >> (i + 16) & 1) << 4);
    out[i] = d * static_cast<float>(lo) + m;
    out[i + 16] = d * static_cast<float>(hi) + m;
  }
}
// q8_0: d f16, 32 signed bytes: d * q.
void read_q8_0(const uint8_t* b, float* out) {
  const float d = read_half(b);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(b[2 + i]));
}

// The 6-bit scales and mins of q4_k and q5_k: eight of each in 12 bytes.
void read_scale_min(const uint8_t* s, int j, int& scale, int& min) {
  if (j < 4) {
    scale = s[j] & 63;
    min = s[j + 4] & 63;
  } else {
    scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    min = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
  }
}
void write_scale_min(uint8_t* s, int j, int scale, int min) {
  if (j < 4) {
    s[j] = static_cast<uint8_t>((s[j] & 0xc0) | scale);
    s[j + 4] = static_cast<uint8_t>((s[j + 4] & 0xc0) | min);
  } else {
    s[j + 4] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
    s[j - 4] = static_cast<uint8_t>((s[j - 4] & 63) | (scale >> 4) << 6);
    s[j] = static_cast<uint8_t>((s[j] & 63) | (min >> 4) << 6);
  }
}

// q4_k: d f16, dmin f16, 12 bytes of scales, 128 bytes of nibbles; sub-blocks of 32, pairs of them
// share 32 bytes: d * scale * q - dmin * min.
void read_q4_k(const uint8_t* b, float* out) {
  const float d = read_half(b), dmin = read_half(b + 2);
  for (int j = 0; j < 8; ++j) {
    int scale = 0, min = 0;
    read_scale_min(b + 4, j, scale, min);
    const float s = d * static_cast<float>(scale), m = dmin * static_cast<float>(min);
    const uint8_t* q = b + 16 + j / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      out[32 * j + i] = s * static_cast<float>(j % 2 ? q[i] >> 4 : q[i] & 15) - m;
    }
  }
}
// q5_k: as q4_k with 32 bytes of fifth bits before the nibbles: bit j of byte i for sub-block j.
void read_q5_k(const uint8_t* b, float* out) {
  const float d = read_half(b), dmin = read_half(b + 2);
  const uint8_t* high = b + 16;
  for (int j = 0; j < 8; ++j) {
    int scale = 0, min = 0;
    read_scale_min(b + 4, j, scale, min);
    const float s = d * static_cast<float>(scale), m = dmin * static_cast<float>(min);
    const uint8_t* q = b + 48 + j / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int low = j % 2 ? q[i] >> 4 : q[i] & 15;
      out[32 * j + i] = s * static_cast<float>(low + (high[i] >> j & 1) * 16) - m;
    }
  }
}
// q6_k: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d f16: d * scale *
// (q-32).
void read_q6_k(const uint8_t* b, float* out) {
  const float d = read_half(b + 208);
  const auto* scales = reinterpret_cast<const int8_t*>(b + 192);
  for (int half = 0; half < 2; ++half) {
    const uint8_t *low = b + 64 * half, *high = b + 128 + 32 * half;
    for (int part = 0; part < 4; ++part) {
      for (int i = 0; i < 32; ++i) {
        const uint8_t byte = low[i + 32 * (part % 2)];
        const int nibble = part < 2 ? byte & 15 : byte >> 4;
        const int q = (nibble | (high[i] >> (2 * part) & 3) << 4) - 32;
        const int at = 128 * half + 32 * part + i;
        out[at] = d * static_cast<float>(scales[at / 16]) * static_cast<float>(q);
      }
    }
  }
}

int nearest(float v, int lo, int hi) {
  return std::clamp(static_cast<int>(std::nearbyint(v)), lo, hi);
}

void write_nibbles(uint8_t* out, const int* q) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
}

void write_symmetric(const float* in, uint8_t* b, int bits) {
  float extreme = 0;
  for (int i = 0; i < kSmall; ++i) {
    if (std::fabs(in[i]) > std::fabs(extreme)) extreme = in[i];
  }
  const int half = 1 << (bits - 1);
  write_half(b, extreme / static_cast<float>(-half));
  const float d = read_half(b), inverse = d != 0 ? 1 / d : 0;
  int q[kSmall];
  uint32_t high = 0;
  for (int i = 0; i < kSmall; ++i) {
    q[i] = nearest(in[i] * inverse, -half, half - 1) + half;
    high |= static_cast<uint32_t>(q[i] >> 4 & 1) << i;
  }
  if (bits == 5) std::memcpy(b + 2, &high, 4);
  write_nibbles(b + (bits == 5 ? 6 : 2), q);
}

void write_affine(const float* in, uint8_t* b, int bits) {
  const auto [lo, hi] = std::minmax_element(in, in + kSmall);
  const int top = (1 << bits) - 1;
  write_half(b, (*hi - *lo) / static_cast<float>(top));
  write_half(b + 2, *lo);
  const float d = read_half(b), m = read_half(b + 2), inverse = d != 0 ? 1 / d : 0;
  int q[kSmall];
  uint32_t high = 0;
  for (int i = 0; i < kSmall; ++i) {
    q[i] = nearest((in[i] - m) * inverse, 0, top);
    high |= static_cast<uint32_t>(q[i] >> 4 & 1) << i;
  }
  if (bits == 5) std::memcpy(b + 4, &high, 4);
  write_nibbles(b + (bits == 5 ? 8 : 4), q);
}

void write_q8_0(const float* in, uint8_t* b) {
  float most = 0;
  for (int i = 0; i < kSmall; ++i) most = std::max(most, std::fabs(in[i]));
  write_half(b, most / 127);
  const float d = read_half(b), inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < kSmall; ++i) {
    b[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(nearest(in[i] * inverse, -127, 127)));
  }
}

void write_q45_k(const float* in, uint8_t* b, int bits) {
  const int top = (1 << bits) - 1;
  float scale[8], min[8], most_scale = 0, most_min = 0;
  for (int j = 0; j < 8; ++j) {
    const auto [lo, hi] = std::minmax_element(in + 32 * j, in + 32 * j + 32);
    min[j] = std::max(-*lo, 0.0F);
    scale[j] = std::max(*hi + min[j], 0.0F) / static_cast<float>(top);
    most_scale = std::max(most_scale, scale[j]);
    most_min = std::max(most_min, min[j]);
  }
  std::memset(b, 0, bits == 4 ? 144 : 176);
  write_half(b, most_scale / 63);
  write_half(b + 2, most_min / 63);
  const float d = read_half(b), dmin = read_half(b + 2);
  uint8_t *high = b + 16, *nibbles = b + (bits == 4 ? 16 : 48);
  for (int j = 0; j < 8; ++j) {
    const int s = nearest(d != 0 ? scale[j] / d : 0, 0, 63);
    const int m = nearest(dmin != 0 ? min[j] / dmin : 0, 0, 63);
    write_scale_min(b + 4, j, s, m);
    const float step = d * static_cast<float>(s), base = dmin * static_cast<float>(m);
    for (int i = 0; i < 32; ++i) {
      const int q = nearest(step != 0 ? (in[32 * j + i] + base) / step : 0, 0, top);
      nibbles[j / 2 * 32 + i] |= static_cast<uint8_t>((q & 15) << (j % 2 ? 4 : 0));
      if (bits == 5) high[i] |= static_cast<uint8_t>((q >> 4) << j);
    }
  }
}

void write_q6_k(const float* in, uint8_t* b) {
  float scale[16], most = 0;
  for (int j = 0; j < 16; ++j) {
    float extreme = 0;
    for (int i = 0; i < 16; ++i) {
      if (std::fabs(in[16 * j + i]) > std::fabs(extreme)) extreme = in[16 * j + i];
    }
    scale[j] = extreme / -32;
    most = std::max(most, std::fabs(scale[j]));
  }
  std::memset(b, 0, 210);
  write_half(b + 208, most / 127);
  const float d = read_half(b + 208);
  for (int j = 0; j < 16; ++j) {
    const int s = nearest(d != 0 ? scale[j] / d : 0, -128, 127);
    b[192 + j] = static_cast<uint8_t>(static_cast<int8_t>(s));
    const float step = d * static_cast<float>(s);
    for (int i = 0; i < 16; ++i) {
      const int at = 16 * j + i, half = at / 128, part = at % 128 / 32, k = at % 32;
      const int q = nearest(step != 0 ? in[at] / step : 0, -32, 31) + 32;
      b[64 * half + k + 32 * (part % 2)] |= static_cast<uint8_t>((q & 15) << (part < 2 ? 0 : 4));
      b[128 + 32 * half + k] |= static_cast<uint8_t>((q >> 4) << (2 * part));
    }
  }
}

}  // namespace

void dequantize(DType dtype, const void* in, float* out, int64_t num) {
  const DTypeInfo& info = dtype_info(dtype);
  RK_CHECK(num % info.block_elems == 0);
  const auto* bytes = static_cast<const uint8_t*>(in);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, in, static_cast<size_t>(num) * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < num; ++i) out[i] = read_half(bytes + 2 * i);
      return;
    case DType::kBf16:
      for (int64_t i = 0; i < num; ++i) out[i] = bf16_to_f32(read_u16(bytes + 2 * i));
      return;
    case DType::kI8:
      for (int64_t i = 0; i < num; ++i) out[i] = static_cast<int8_t>(bytes[i]);
      return;
    case DType::kI32:
      for (int64_t i = 0; i < num; ++i)
        out[i] = static_cast<float>(static_cast<const int32_t*>(in)[i]);
      return;
    default:
      break;
  }
  for (int64_t i = 0; i < num;
       i += info.block_elems, bytes += info.block_bytes, out += info.block_elems) {
    switch (dtype) {
      case DType::kQ4_0:
        read_q4_0(bytes, out);
        break;
      case DType::kQ4_1:
        read_q4_1(bytes, out);
        break;
      case DType::kQ5_0:
        read_q5_0(bytes, out);
        break;
      case DType::kQ5_1:
        read_q5_1(bytes, out);
        break;
      case DType::kQ8_0:
        read_q8_0(bytes, out);
        break;
      case DType::kQ4_K:
        read_q4_k(bytes, out);
        break;
      case DType::kQ5_K:
        read_q5_k(bytes, out);
        break;
      case DType::kQ6_K:
        read_q6_k(bytes, out);
        break;
      default:
        RK_CHECK(!"dequantize: not a readable dtype");
    }
  }
}

void quantize(DType dtype, const float* in, void* out, int64_t num) {
  const DTypeInfo& info = dtype_info(dtype);
  RK_CHECK(num % info.block_elems == 0);
  auto* bytes = static_cast<uint8_t*>(out);
  for (int64_t i = 0; i < num;
       i += info.block_elems, bytes += info.block_bytes, in += info.block_elems) {
    switch (dtype) {
      case DType::kF32:
        std::memcpy(bytes, in, 4);
        break;
      case DType::kF16:
        write_half(bytes, *in);
        break;
      case DType::kBf16: {
        const uint16_t bits = f32_to_bf16(*in);
        std::memcpy(bytes, &bits, 2);
        break;
      }
      case DType::kQ4_0:
        write_symmetric(in, bytes, 4);
        break;
      case DType::kQ4_1:
        write_affine(in, bytes, 4);
        break;
      case DType::kQ5_0:
        write_symmetric(in, bytes, 5);
        break;
      case DType::kQ5_1:
        write_affine(in, bytes, 5);
        break;
      case DType::kQ8_0:
        write_q8_0(in, bytes);
        break;
      case DType::kQ4_K:
        write_q45_k(in, bytes, 4);
        break;
      case DType::kQ5_K:
        write_q45_k(in, bytes, 5);
        break;
      case DType::kQ6_K:
        write_q6_k(in, bytes);
        break;
      default:
        RK_CHECK(!"quantize: not a writable dtype");
    }
  }
}

}  // namespace rk
