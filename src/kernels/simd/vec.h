// One vector of floats, as wide as the including file's instruction set: 16 lanes with AVX-512, 8
// with AVX2. Only for files named *_avx2.cc and *_avx512.cc: everything here has internal linkage,
// so each keeps its own copy (kernels/context.h says why). No standard library templates.
#pragma once

// g++ 12 takes the intrinsics' deliberately undefined operands for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

namespace rk::kernels {
namespace {

#ifdef __AVX512F__

using Vec = __m512;
constexpr int kLanes = 16;

inline Vec vzero() { return _mm512_setzero_ps(); }
inline Vec vset(float x) { return _mm512_set1_ps(x); }
inline Vec vload(const float* p) { return _mm512_loadu_ps(p); }
inline void vstore(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec vadd(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec vsub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec vmul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec vdiv(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec vfma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
inline Vec vfnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
inline Vec vmax(Vec a, Vec b) { return _mm512_max_ps(a, b); }                // b where one is NaN
inline Vec vmin(Vec a, Vec b) { return _mm512_min_ps(a, b); }                // b where one is NaN
inline Vec vabs(Vec a) { return _mm512_abs_ps(a); }
inline float vsum(Vec v) { return _mm512_reduce_add_ps(v); }
inline float vlargest(Vec v) { return _mm512_reduce_max_ps(v); }
inline float vleast(Vec v) { return _mm512_reduce_min_ps(v); }
inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffffU : (1U << n) - 1U);
}
inline Vec vload_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void vstore_n(float* p, Vec v, int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }

inline Vec vload_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec vload_bf16(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline void vstore_f16(uint16_t* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void vstore_bf16(uint16_t* p, Vec v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i out = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  out = _mm512_mask_or_epi32(out, nan, bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(out, 16)));
}

// 2^n r for integral n; saturates to 0 and infinity.
inline Vec vscale2(Vec r, Vec n) { return _mm512_scalef_ps(r, n); }
inline Vec vround(Vec v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
constexpr float kMinExponent = -150.0F, kMaxExponent = 130.0F;

// c0 c0 c1 c1 ... of half a vector, and (a c - b s, b c + a s) of interleaved pairs (a, b).
inline Vec vload_twice(const float* p) {
  const __m512i index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
inline Vec vturn_pairs(Vec x, Vec c, Vec s) {
  return _mm512_fmaddsub_ps(x, c, _mm512_mul_ps(_mm512_permute_ps(x, 0xb1), s));
}

// Integers of one vector, and where(a > b ? x : y).
using VecI = __m512i;
using Mask = __mmask16;
inline VecI vloadi(const int32_t* p) { return _mm512_loadu_si512(p); }
inline VecI vseti(int32_t x) { return _mm512_set1_epi32(x); }
inline Mask vgreater(VecI a, VecI b) { return _mm512_cmpgt_epi32_mask(a, b); }
inline Mask vor(Mask a, Mask b) { return static_cast<Mask>(a | b); }
inline Mask vandnot(Mask not_this, Mask b) { return static_cast<Mask>(~not_this & b); }
inline Vec vselect(Mask m, Vec yes, Vec no) { return _mm512_mask_blend_ps(m, no, yes); }
inline Mask vequal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

#else

using Vec = __m256;
constexpr int kLanes = 8;

inline Vec vzero() { return _mm256_setzero_ps(); }
inline Vec vset(float x) { return _mm256_set1_ps(x); }
inline Vec vload(const float* p) { return _mm256_loadu_ps(p); }
inline void vstore(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec vadd(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec vsub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec vmul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec vdiv(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec vfma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }    // a b + c
inline Vec vfnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a b
inline Vec vmax(Vec a, Vec b) { return _mm256_max_ps(a, b); }                // b where one is NaN
inline Vec vmin(Vec a, Vec b) { return _mm256_min_ps(a, b); }                // b where one is NaN
inline Vec vabs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
inline float vlargest(Vec v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline float vleast(Vec v) {
  __m128 s = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_min_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
}
inline float vsum(Vec v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline __m256i first_lanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n > 8 ? 8 : n)), lane);
}
inline Vec vload_n(const float* p, int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void vstore_n(float* p, Vec v, int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), v); }

inline Vec vload_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec vload_bf16(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline void vstore_f16(uint16_t* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void vstore_bf16(uint16_t* p, Vec v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i out = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  out = _mm256_srli_epi32(_mm256_blendv_epi8(out, quiet, nan), 16);
  const __m128i low = _mm256_castsi256_si128(out), high = _mm256_extracti128_si256(out, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(low, high));
}

// 2^n r for integral n in [kMinExponent, kMaxExponent]; below -126 it is 0.
inline Vec vscale2(Vec r, Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  const __m256i positive = _mm256_cmpgt_epi32(exponent, _mm256_setzero_si256());
  const __m256i bits = _mm256_and_si256(_mm256_slli_epi32(exponent, 23), positive);
  return _mm256_mul_ps(r, _mm256_castsi256_ps(bits));
}
inline Vec vround(Vec v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
constexpr float kMinExponent = -127.0F, kMaxExponent = 128.0F;

// c0 c0 c1 c1 ... of half a vector, and (a c - b s, b c + a s) of interleaved pairs (a, b).
inline Vec vload_twice(const float* p) {
  const __m256i index = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), index);
}
inline Vec vturn_pairs(Vec x, Vec c, Vec s) {
  return _mm256_fmaddsub_ps(x, c, _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), s));
}

// Integers of one vector, and where(a > b ? x : y).
using VecI = __m256i;
using Mask = __m256i;
inline VecI vloadi(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline VecI vseti(int32_t x) { return _mm256_set1_epi32(x); }
inline Mask vgreater(VecI a, VecI b) { return _mm256_cmpgt_epi32(a, b); }
inline Mask vor(Mask a, Mask b) { return _mm256_or_si256(a, b); }
inline Mask vandnot(Mask not_this, Mask b) { return _mm256_andnot_si256(not_this, b); }
inline Vec vselect(Mask m, Vec yes, Vec no) {
  return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(m));
}
inline Mask vequal(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }

#endif

enum class Stored { kF32, kF16, kBf16 };

// out[0..n) = in[0..n) as f32. Requires: n is a multiple of 8.
inline void load_row(Stored stored, const void* in, float* out, int64_t n) {
  const auto* half = static_cast<const uint16_t*>(in);
  const auto* full = static_cast<const float*>(in);
  int64_t i = 0;
  switch (stored) {
    case Stored::kF32:
      for (; i < n; i += 8) _mm256_storeu_ps(out + i, _mm256_loadu_ps(full + i));
      break;
    case Stored::kF16:
      for (; i + kLanes <= n; i += kLanes) vstore(out + i, vload_f16(half + i));
      if (i < n) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(half + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(bits));
      }
      break;
    case Stored::kBf16:
      for (; i + kLanes <= n; i += kLanes) vstore(out + i, vload_bf16(half + i));
      if (i < n) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(half + i));
        const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
        _mm256_storeu_ps(out + i, _mm256_castsi256_ps(wide));
      }
      break;
  }
}

constexpr float kLog2E = 1.44269504088896341F;

// 2^fraction 2^whole for |fraction| <= 1/2; relative error 1e-7.
inline Vec vexp2_parts(Vec whole, Vec fraction) {
  Vec p = vset(1.5337577e-4F);
  p = vfma(p, fraction, vset(1.339986e-3F));
  p = vfma(p, fraction, vset(9.61852e-3F));
  p = vfma(p, fraction, vset(5.550329e-2F));
  p = vfma(p, fraction, vset(0.24022646F));
  p = vfma(p, fraction, vset(0.6931472F));
  return vscale2(vfma(p, fraction, vset(1.0F)), whole);
}
// 2^x, NaN for NaN.
inline Vec vexp2(Vec x) {
  x = vmax(vset(kMinExponent), x);
  const Vec whole = vround(x);
  return vexp2_parts(whole, vsub(x, whole));
}
// e^x; the product with log2 e is carried in two parts.
inline Vec vexp(Vec x) {
  x = vmax(vset(kMinExponent / kLog2E), x);
  x = vmax(vset(-kMaxExponent / kLog2E), vsub(vzero(), x));
  x = vsub(vzero(), x);
  const Vec whole = vround(vmul(x, vset(kLog2E)));
  Vec fraction = vfma(x, vset(kLog2E), vsub(vzero(), whole));
  fraction = vfma(x, vset(1.92596299e-8F), fraction);
  return vexp2_parts(whole, fraction);
}

}  // namespace
}  // namespace rk::kernels
