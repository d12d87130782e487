// One row of encode_rows() and decode_rows() over whatever vectors simd/vec.h gives. Internal
// linkage throughout. Same bytes as row_code_ref.cc, but for a turned constant's last bit.
#pragma once

#include "kernels/row_code/row_code_rows.h"
#include "kernels/simd/vec.h"

namespace rk::kernels {
namespace {

constexpr int64_t kGroup = 32;
constexpr float kMostF16 = 65504.0F;

inline float from_f16(uint16_t bits) { return _cvtsh_ss(bits); }

inline uint16_t f16_above(float x) {
  if (!(x > 0)) return 0;
  if (!(x < kMostF16)) return 0x7bff;
  const auto near = static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
  return from_f16(near) < x ? static_cast<uint16_t>(near + 1) : near;
}

inline uint16_t f16_below(float x) {
  if (!(x > -kMostF16)) return 0xfbff;
  if (x <= 0) return f16_above(-x) | 0x8000;
  if (x >= kMostF16) return 0x7bff;
  const auto near = static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
  return from_f16(near) > x ? static_cast<uint16_t>(near - 1) : near;
}

#ifdef __AVX512F__

inline __m512i to_ints(Vec v) { return _mm512_cvtps_epi32(v); }
inline void store_i8(uint8_t* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(to_ints(v)));
}
inline Vec load_i8(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
inline void store_u4(uint8_t* p, Vec low, Vec high) {
  const __m512i both = _mm512_or_si512(to_ints(low), _mm512_slli_epi32(to_ints(high), 4));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(both));
}
inline void load_u4(const uint8_t* p, Vec& low, Vec& high) {
  const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  low = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)));
  high = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4));
}
// x in [-448, 448] / 256.
inline void store_e4m3(uint8_t* p, Vec x) {
  const __m512i h = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  const __m512i magnitude = _mm512_and_si512(h, _mm512_set1_epi32(0x7fff));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(magnitude, 7), _mm512_set1_epi32(1));
  const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x3f));
  const __m512i code = _mm512_srli_epi32(_mm512_add_epi32(magnitude, half), 7);
  const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(h, 8), _mm512_set1_epi32(0x80));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_cvtepi32_epi8(_mm512_or_si512(code, sign)));
}
inline Vec load_e4m3(const uint8_t* p) {  // / 256
  const __m256i code = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0x80)), 8);
  const __m256i rest = _mm256_slli_epi16(_mm256_and_si256(code, _mm256_set1_epi16(0x7f)), 7);
  return _mm512_cvtph_ps(_mm256_or_si256(sign, rest));
}

#else

inline __m256i to_ints(Vec v) { return _mm256_cvtps_epi32(v); }
inline void store_bytes(uint8_t* p, __m256i ints) {  // of ints in -128..255, their low bytes
  const __m256i bytes = _mm256_and_si256(ints, _mm256_set1_epi32(0xff));
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
inline __m128i load_bytes(const uint8_t* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
inline void store_i8(uint8_t* p, Vec v) { store_bytes(p, to_ints(v)); }
inline Vec load_i8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_bytes(p)));
}
inline void store_u4(uint8_t* p, Vec low, Vec high) {
  store_bytes(p, _mm256_or_si256(to_ints(low), _mm256_slli_epi32(to_ints(high), 4)));
}
inline void load_u4(const uint8_t* p, Vec& low, Vec& high) {
  const __m256i both = _mm256_cvtepu8_epi32(load_bytes(p));
  low = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15)));
  high = _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4));
}
// x in [-448, 448] / 256.
inline void store_e4m3(uint8_t* p, Vec x) {
  const __m256i h = _mm256_cvtepu16_epi32(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  const __m256i magnitude = _mm256_and_si256(h, _mm256_set1_epi32(0x7fff));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(magnitude, 7), _mm256_set1_epi32(1));
  const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x3f));
  const __m256i code = _mm256_srli_epi32(_mm256_add_epi32(magnitude, half), 7);
  const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(h, 8), _mm256_set1_epi32(0x80));
  store_bytes(p, _mm256_or_si256(code, sign));
}
inline Vec load_e4m3(const uint8_t* p) {  // / 256
  const __m128i code = _mm_cvtepu8_epi16(load_bytes(p));
  const __m128i sign = _mm_slli_epi16(_mm_and_si128(code, _mm_set1_epi16(0x80)), 8);
  const __m128i rest = _mm_slli_epi16(_mm_and_si128(code, _mm_set1_epi16(0x7f)), 7);
  return _mm256_cvtph_ps(_mm_or_si128(sign, rest));
}

#endif

template <CodedRow kDtype>
inline Vec load_value(const void* row, const float* constant, int64_t i) {
  Vec x;
  if constexpr (kDtype == CodedRow::kF32) {
    x = vload(static_cast<const float*>(row) + i);
  } else if constexpr (kDtype == CodedRow::kF16) {
    x = vload_f16(static_cast<const uint16_t*>(row) + i);
  } else {
    x = vload_bf16(static_cast<const uint16_t*>(row) + i);
  }
  return constant == nullptr ? x : vsub(x, vload(constant + i));
}

template <CodedRow kDtype>
inline void store_value(void* row, int64_t i, Vec x) {
  if constexpr (kDtype == CodedRow::kF32) {
    vstore(static_cast<float*>(row) + i, x);
  } else if constexpr (kDtype == CodedRow::kF16) {
    vstore_f16(static_cast<uint16_t*>(row) + i, x);
  } else {
    vstore_bf16(static_cast<uint16_t*>(row) + i, x);
  }
}

inline Vec bounded(Vec x, float low, float high) {  // NaN is low
  return vmin(vmax(x, vset(low)), vset(high));
}

template <CodedRow kDtype>
inline void encode_groups(const void* row, uint16_t* params, uint8_t* codes, const float* constant,
                          int64_t n) {
  for (int64_t g = 0; g < n; g += kGroup, params += 2) {
    Vec low = vset(__builtin_inff()), high = vset(-__builtin_inff());
    for (int64_t i = g; i < g + kGroup; i += kLanes) {
      const Vec x = load_value<kDtype>(row, constant, i);
      low = vmin(x, low);
      high = vmax(x, high);
    }
    params[0] = f16_below(vleast(low));
    const float base = from_f16(params[0]);
    params[1] = f16_above((vlargest(high) - base) / 15);
    const float step = from_f16(params[1]), inverse = step > 0 ? 1 / step : 0;
    const auto code = [&](int64_t i) {
      const Vec x = vsub(load_value<kDtype>(row, constant, i), vset(base));
      return bounded(vmul(x, vset(inverse)), 0, 15);
    };
    for (int64_t i = 0; i < kGroup / 2; i += kLanes) {
      store_u4(codes + g / 2 + i, code(g + i), code(g + i + kGroup / 2));
    }
  }
}

template <CodedRow kDtype>
inline void encode_as(CodeKind kind, const void* row, uint16_t* params, uint8_t* codes,
                      const float* constant, int64_t n) {
  if (kind == CodeKind::kInt4) return encode_groups<kDtype>(row, params, codes, constant, n);
  Vec largest = vzero();
  for (int64_t i = 0; i < n; i += kLanes) {
    largest = vmax(vabs(load_value<kDtype>(row, constant, i)), largest);
  }
  params[0] = f16_above(vlargest(largest) / (kind == CodeKind::kInt8 ? 127.0F : 448.0F));
  const float scale = from_f16(params[0]);
  const Vec inverse = vset(scale > 0 ? 1 / scale : 0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec x = vmul(load_value<kDtype>(row, constant, i), inverse);
    if (kind == CodeKind::kInt8) {
      store_i8(codes + i, bounded(x, -127, 127));
    } else {
      store_e4m3(codes + i, vmul(bounded(x, -448, 448), vset(1.0F / 256)));
    }
  }
}

template <CodedRow kDtype>
inline void decode_groups(void* row, const uint16_t* params, const uint8_t* codes,
                          const float* constant, int64_t n) {
  constexpr int64_t kHalf = kGroup / 2;
  for (int64_t g = 0; g < n; g += kGroup, params += 2) {
    const Vec base = vset(from_f16(params[0])), step = vset(from_f16(params[1]));
    for (int64_t i = g; i < g + kHalf; i += kLanes) {
      Vec low, high;
      load_u4(codes + g / 2 + (i - g), low, high);
      low = vfma(low, step, base);
      high = vfma(high, step, base);
      if (constant != nullptr) {
        low = vadd(low, vload(constant + i));
        high = vadd(high, vload(constant + i + kHalf));
      }
      store_value<kDtype>(row, i, low);
      store_value<kDtype>(row, i + kHalf, high);
    }
  }
}

template <CodedRow kDtype>
inline void decode_as(CodeKind kind, void* row, const uint16_t* params, const uint8_t* codes,
                      const float* constant, int64_t n) {
  if (kind == CodeKind::kInt4) return decode_groups<kDtype>(row, params, codes, constant, n);
  const float scale = from_f16(params[0]);
  if (kind == CodeKind::kInt8) {
    for (int64_t i = 0; i < n; i += kLanes) {
      const Vec add = constant == nullptr ? vzero() : vload(constant + i);
      store_value<kDtype>(row, i, vfma(load_i8(codes + i), vset(scale), add));
    }
    return;
  }
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec add = constant == nullptr ? vzero() : vload(constant + i);
    store_value<kDtype>(row, i, vfma(load_e4m3(codes + i), vset(scale * 256), add));
  }
}

inline void encode_row(CodeKind kind, CodedRow dtype, void* row, uint16_t* params, uint8_t* codes,
                       const float* constant, int64_t n) {
  switch (dtype) {
    case CodedRow::kF32:
      return encode_as<CodedRow::kF32>(kind, row, params, codes, constant, n);
    case CodedRow::kF16:
      return encode_as<CodedRow::kF16>(kind, row, params, codes, constant, n);
    case CodedRow::kBf16:
      return encode_as<CodedRow::kBf16>(kind, row, params, codes, constant, n);
  }
}

inline void decode_row(CodeKind kind, CodedRow dtype, void* row, uint16_t* params, uint8_t* codes,
                       const float* constant, int64_t n) {
  switch (dtype) {
    case CodedRow::kF32:
      return decode_as<CodedRow::kF32>(kind, row, params, codes, constant, n);
    case CodedRow::kF16:
      return decode_as<CodedRow::kF16>(kind, row, params, codes, constant, n);
    case CodedRow::kBf16:
      return decode_as<CodedRow::kBf16>(kind, row, params, codes, constant, n);
  }
}

inline void turn_constant(const float* constant, const float* cos, const float* sin, float* out,
                          int64_t n, int64_t rotary_dim, bool interleaved) {
  const int64_t half = rotary_dim / 2;
  if (interleaved) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = constant[2 * i], b = constant[2 * i + 1];
      out[2 * i] = a * cos[i] - b * sin[i];
      out[2 * i + 1] = b * cos[i] + a * sin[i];
    }
  } else {
    for (int64_t i = 0; i < half; ++i) {
      const float a = constant[i], b = constant[i + half];
      out[i] = a * cos[i] - b * sin[i];
      out[i + half] = b * cos[i] + a * sin[i];
    }
  }
  for (int64_t i = rotary_dim; i < n; ++i) out[i] = constant[i];
}

}  // namespace
}  // namespace rk::kernels
