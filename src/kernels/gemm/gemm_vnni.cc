// gemm with AVX-512 VNNI: 32 output rows in two vectors, six activation rows.
// g++ 12 takes its own intrinsics' undefined sources for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

namespace rk::kernels::gemm_detail {
namespace {

using F32 = __m512;
using I32 = __m512i;
constexpr int kLanes = 16;
constexpr int kTileRows = 6;  // 2 x 6 f32 and 2 x 6 int32 sums, and eight registers to work with
constexpr int kPrefetchBytes = 8192;  // of 512..8192 the fastest in decode on Zen 5 (bench kernels)
constexpr int vecs(int) { return 2; }

inline F32 load_f32(const float* p) { return _mm512_loadu_ps(p); }
inline void store_f32(float* p, F32 v) { _mm512_storeu_ps(p, v); }
inline F32 zero_f32() { return _mm512_setzero_ps(); }
inline F32 load_f16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F32 load_bf16(const uint8_t* p) {
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline F32 load_u8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline F32 load_i8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline F32 splat(float v) { return _mm512_set1_ps(v); }
inline F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
inline F32 to_f32(I32 v) { return _mm512_cvtepi32_ps(v); }

inline I32 load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline void store_codes(uint8_t* p, I32 v) { _mm512_storeu_si512(p, v); }
inline I32 or_bytes(I32 a, I32 b) { return _mm512_or_si512(a, b); }
template <int kMask>
inline I32 and_bytes(I32 v) {
  return _mm512_and_si512(v, _mm512_set1_epi8(kMask));
}
template <int kBits>
inline I32 shift_right(I32 v) {
  return _mm512_srli_epi16(v, kBits);
}
/// Left by `bits`, or right where negative; callers mask what crosses bytes.
inline I32 shift(I32 v, int bits) {
  return bits >= 0 ? _mm512_slli_epi16(v, bits) : _mm512_srli_epi16(v, -bits);
}
inline I32 splat_quad(const uint8_t* p) {
  return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p));
}

template <int kBits>
struct Dots {
  I32 sum;
  void start(int32_t init) { sum = _mm512_set1_epi32(init); }
  void start_zero() { sum = _mm512_setzero_si512(); }
  void step(int, I32 codes, I32 x) { sum = _mm512_dpbusd_epi32(sum, codes, x); }
  I32 total() const { return sum; }
};

/// 32 values -> int8 with one scale; sums of the two halves' codes.
inline float quantize_group(const float* x, uint8_t* codes, int32_t* sums) {
  const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
  const float peak = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
  const __m512 inverse = _mm512_set1_ps(peak > 0 ? 127.0F / peak : 0.0F);
  const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
  const __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtsepi32_epi8(qa));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), _mm512_cvtsepi32_epi8(qb));
  sums[0] = _mm512_reduce_add_epi32(qa);
  sums[1] = _mm512_reduce_add_epi32(qb);
  return peak / 127.0F;
}

}  // namespace
}  // namespace rk::kernels::gemm_detail

#include "kernels/gemm/kernels_body.h"

namespace rk::kernels::gemm_detail {
extern const Kernels kVnniKernels = {"vnni", kTileRows, quantize_tile, few, expand, tile, plain};
}
