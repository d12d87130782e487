#include "kernels/gemm/pack.h"

#include <cstring>

namespace rk::kernels::gemm_detail {
namespace {

/// A group of 32 features of one row while it moves: the codes and the raw bits of its scales.
struct Group {
  uint8_t code[kGroup];
  uint16_t d, dmin;  ///< f16
  uint8_t s[2];      ///< super formats
};

uint16_t load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

void read_nibbles(const uint8_t* q, uint8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = q[i] & 15;
    code[i + 16] = q[i] >> 4;
  }
}

void read_fifth_bits(const uint8_t* qh, uint8_t* code) {
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  for (int i = 0; i < kGroup; ++i) code[i] |= ((bits >> i) & 1) << 4;
}

void read_simple(DType dtype, const uint8_t* in, Group& out) {
  out.d = load16(in);
  switch (dtype) {
    case DType::kQ4_0:
      read_nibbles(in + 2, out.code);
      break;
    case DType::kQ4_1:
      out.dmin = load16(in + 2);
      read_nibbles(in + 4, out.code);
      break;
    case DType::kQ5_0:
      read_nibbles(in + 6, out.code);
      read_fifth_bits(in + 2, out.code);
      break;
    case DType::kQ5_1:
      out.dmin = load16(in + 2);
      read_nibbles(in + 8, out.code);
      read_fifth_bits(in + 4, out.code);
      break;
    default:  // q8_0
      for (int i = 0; i < kGroup; ++i) out.code[i] = in[2 + i] ^ 0x80;
  }
}

/// Group j of a q4_k or q5_k block: six-bit s and m in 12 bytes.
void read_k45(DType dtype, const uint8_t* in, int j, Group& out) {
  out.d = load16(in);
  out.dmin = load16(in + 2);
  const uint8_t* s = in + 4;
  out.s[0] = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
  out.s[1] = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  const uint8_t* qh = in + 16;
  const uint8_t* q = (dtype == DType::kQ5_K ? in + 48 : in + 16) + j / 2 * 32;
  const int shift = j % 2 * 4;
  for (int i = 0; i < kGroup; ++i) out.code[i] = (q[i] >> shift) & 15;
  if (dtype != DType::kQ5_K) return;
  for (int i = 0; i < kGroup; ++i) out.code[i] |= ((qh[i] >> j) & 1) << 4;
}

/// Group j of a q6_k block: 128 low nibbles, 64 high pairs, 16 signed scales, d.
void read_k6(const uint8_t* in, int j, Group& out) {
  const int half = j / 4, part = j % 4;
  const uint8_t* low = in + half * 64 + part % 2 * 32;
  const uint8_t* high = in + 128 + half * 32;
  for (int i = 0; i < kGroup; ++i) {
    out.code[i] = ((low[i] >> (part / 2 * 4)) & 15) | (((high[i] >> (2 * part)) & 3) << 4);
  }
  out.s[0] = in[192 + 2 * j];
  out.s[1] = in[192 + 2 * j + 1];
  out.d = load16(in + 208);
}

Group read_group(DType dtype, const uint8_t* row, int64_t g) {
  Group out{};
  const DTypeInfo& info = dtype_info(dtype);
  if (info.block_elems == kGroup) {
    read_simple(dtype, row + g * info.block_bytes, out);
  } else if (dtype == DType::kQ6_K) {
    read_k6(row + g / 8 * info.block_bytes, static_cast<int>(g % 8), out);
  } else {
    read_k45(dtype, row + g / 8 * info.block_bytes, static_cast<int>(g % 8), out);
  }
  return out;
}

int64_t super_bytes(const FormatInfo& f) {
  return f.header_bytes + int64_t{f.groups} * f.group_bytes;
}

/// Four codes at once; the layout is said in layout.h.
struct Place {
  const FormatInfo& f;
  uint8_t* header;
  uint8_t* group;
  int lane;

  void put(int quad, uint32_t codes) const {
    if (f.bits == 8) return join(quad * 128, codes);
    join(quad % 4 * 128, (codes & 0x0f0f0f0fU) << (quad / 4 * 4));
    const uint32_t high = (codes >> 4) & 0x03030303U;
    if (f.bits == 5) join(512, high << quad);
    if (f.bits == 6) join(512 + quad / 4 * 128, high << (quad % 4 * 2));
  }
  uint32_t get(int quad) const {
    if (f.bits == 8) return word(quad * 128);
    const uint32_t low = (word(quad % 4 * 128) >> (quad / 4 * 4)) & 0x0f0f0f0fU;
    if (f.bits == 5) return low | (((word(512) >> quad) & 0x01010101U) << 4);
    if (f.bits == 6) {
      return low | (((word(512 + quad / 4 * 128) >> (quad % 4 * 2)) & 0x03030303U) << 4);
    }
    return low;
  }

  uint32_t word(int at) const {
    uint32_t v;
    std::memcpy(&v, group + at + 4 * lane, 4);
    return v;
  }
  void join(int at, uint32_t bits) const {
    bits |= word(at);
    std::memcpy(group + at + 4 * lane, &bits, 4);
  }
  uint16_t* half_at(uint8_t* p) const { return reinterpret_cast<uint16_t*>(p) + lane; }
  uint8_t* byte_at(int which) const { return group + f.code_bytes + which * kBlockRows + lane; }
};

Place place(Format format, uint8_t* block, int64_t g, int lane) {
  const FormatInfo& f = kFormats[format];
  uint8_t* header = block + g / f.groups * super_bytes(f);
  return {f, header, header + f.header_bytes + g % f.groups * f.group_bytes, lane};
}

void write_group(const Place& to, const Group& in) {
  for (int quad = 0; quad < 8; ++quad) {
    uint32_t codes;
    std::memcpy(&codes, in.code + 4 * quad, 4);
    to.put(quad, codes);
  }
  uint8_t* scales = to.f.groups > 1 ? to.header : to.group + to.f.code_bytes;
  *to.half_at(scales) = in.d;
  if (to.f.has_min) *to.half_at(scales + 64) = in.dmin;
  if (to.f.groups == 1) return;
  *to.byte_at(0) = in.s[0];
  *to.byte_at(1) = in.s[1];
}

void read_values(const Place& at, float* out) {
  uint8_t* scales = at.f.groups > 1 ? at.header : at.group + at.f.code_bytes;
  float scale[2], min = 0;
  scale[0] = scale[1] = f16_to_f32(*at.half_at(scales));
  if (at.f.has_min) min = f16_to_f32(*at.half_at(scales + 64));
  if (at.f.halves) {
    for (int h = 0; h < 2; ++h) scale[h] *= static_cast<int8_t>(*at.byte_at(h));
  } else if (at.f.groups > 1) {
    scale[0] = scale[1] = scale[0] * *at.byte_at(0);
    min *= -static_cast<float>(*at.byte_at(1));
  }
  for (int i = 0; i < kGroup; ++i) {
    const int code = (at.get(i / 4) >> (i % 4 * 8)) & 255;
    out[i] = scale[i / 16] * static_cast<float>(code - at.f.zero_point) + min;
  }
}

}  // namespace

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return kSym4;
    case DType::kQ4_1:
      return kMin4;
    case DType::kQ5_0:
      return kSym5;
    case DType::kQ5_1:
      return kMin5;
    case DType::kQ8_0:
      return kSym8;
    case DType::kQ4_K:
      return kSuper4;
    case DType::kQ5_K:
      return kSuper5;
    case DType::kQ6_K:
      return kSuper6;
    case DType::kF16:
      return kF16;
    case DType::kBf16:
      return kBf16;
    default:
      break;
  }
  RK_CHECK(dtype == DType::kF32);
  return kF32;
}

int64_t block_bytes(Format format, int64_t k) {
  const FormatInfo& f = kFormats[format];
  if (format >= kF32) return (k * kBlockRows * (f.bits / 8) + 63) / 64 * 64;
  return k / kGroup / f.groups * super_bytes(f);
}

void pack_row(DType dtype, const void* row, int64_t k, int lane, uint8_t* block) {
  const Format format = format_of(dtype);
  if (format == kF32) {
    float* to = reinterpret_cast<float*>(block) + lane;
    for (int64_t i = 0; i < k; ++i) to[i * kBlockRows] = static_cast<const float*>(row)[i];
  } else if (format > kF32) {
    uint16_t* to = reinterpret_cast<uint16_t*>(block) + lane;
    for (int64_t i = 0; i < k; ++i) to[i * kBlockRows] = static_cast<const uint16_t*>(row)[i];
  } else {
    for (int64_t g = 0; g < k / kGroup; ++g) {
      write_group(place(format, block, g, lane),
                  read_group(dtype, static_cast<const uint8_t*>(row), g));
    }
  }
}

void unpack_lane(Format format, const uint8_t* block, int64_t k, int lane, float* out) {
  if (format < kF32) {
    for (int64_t g = 0; g < k / kGroup; ++g) {
      read_values(place(format, const_cast<uint8_t*>(block), g, lane), out + g * kGroup);
    }
    return;
  }
  const auto* wide = reinterpret_cast<const float*>(block) + lane;
  const auto* narrow = reinterpret_cast<const uint16_t*>(block) + lane;
  for (int64_t i = 0; i < k; ++i) {
    out[i] = format == kF32   ? wide[i * kBlockRows]
             : format == kF16 ? f16_to_f32(narrow[i * kBlockRows])
                              : bf16_to_f32(narrow[i * kBlockRows]);
  }
}

}  // namespace rk::kernels::gemm_detail
