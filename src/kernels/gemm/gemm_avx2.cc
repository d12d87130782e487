// gemm with AVX2: 16-bit pair sums, added up as long as the codes' width leaves room.
#include <immintrin.h>

#include <cstdint>

namespace rk::kernels::gemm_detail {
namespace {

using F32 = __m256;
using I32 = __m256i;
constexpr int kLanes = 8;
constexpr int kTileRows = 4;
constexpr int kPrefetchBytes = 8192;  // of 512..8192 the fastest in decode on Zen 5 (bench kernels)
/// One row reads a block once, front to back; more rows pay for registers with passes.
constexpr int vecs(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

inline F32 load_f32(const float* p) { return _mm256_loadu_ps(p); }
inline void store_f32(float* p, F32 v) { _mm256_storeu_ps(p, v); }
inline F32 zero_f32() { return _mm256_setzero_ps(); }
inline __m128i load_128(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline __m128i load_64(const uint8_t* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
inline F32 load_f16(const uint8_t* p) { return _mm256_cvtph_ps(load_128(p)); }
inline F32 load_bf16(const uint8_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p)), 16));
}
inline F32 load_u8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_64(p)));
}
inline F32 load_i8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p)));
}
inline F32 splat(float v) { return _mm256_set1_ps(v); }
inline F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
inline F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
inline F32 to_f32(I32 v) { return _mm256_cvtepi32_ps(v); }

inline I32 load_codes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store_codes(uint8_t* p, I32 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
inline I32 or_bytes(I32 a, I32 b) { return _mm256_or_si256(a, b); }
template <int kMask>
inline I32 and_bytes(I32 v) {
  return _mm256_and_si256(v, _mm256_set1_epi8(kMask));
}
template <int kBits>
inline I32 shift_right(I32 v) {
  return _mm256_srli_epi16(v, kBits);
}
/// Left by `bits`, or right where negative; callers mask what crosses bytes.
inline I32 shift(I32 v, int bits) {
  return bits >= 0 ? _mm256_slli_epi16(v, bits) : _mm256_srli_epi16(v, -bits);
}
inline I32 splat_quad(const uint8_t* p) {
  return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p));
}

/// 8-bit codes times int8 pairs overflow 16 bits, so those are made signed (the zero point goes
/// away with it) and multiplied as |code - 128| * (x with the other's sign).
template <int kBits>
struct Dots {
  static constexpr int kRoom = kBits == 4 ? 8 : kBits == 5 ? 4 : kBits == 6 ? 2 : 1;
  I32 sum, pairs;
  void start(int32_t init) { sum = kBits == 8 ? _mm256_setzero_si256() : _mm256_set1_epi32(init); }
  void start_zero() { sum = _mm256_setzero_si256(); }
  void step(int quad, I32 codes, I32 x) {
    if constexpr (kBits == 8) {
      codes = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
      x = _mm256_sign_epi8(x, codes);
      codes = _mm256_abs_epi8(codes);
    }
    const I32 product = _mm256_maddubs_epi16(codes, x);
    pairs = quad % kRoom == 0 ? product : _mm256_add_epi16(pairs, product);
    if (quad % kRoom == kRoom - 1) {
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
  I32 total() const { return sum; }
};

inline int32_t total(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
inline float largest(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/// 32 values -> int8 with one scale; sums of the two halves' codes.
inline float quantize_group(const float* x, uint8_t* codes, int32_t* sums) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  __m256 v[4], peaks = _mm256_setzero_ps();
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_loadu_ps(x + 8 * i);
    peaks = _mm256_max_ps(peaks, _mm256_andnot_ps(sign, v[i]));
  }
  const float peak = largest(peaks);
  const __m256 inverse = _mm256_set1_ps(peak > 0 ? 127.0F / peak : 0.0F);
  __m256i q[4];
  for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
  sums[0] = total(_mm256_add_epi32(q[0], q[1]));
  sums[1] = total(_mm256_add_epi32(q[2], q[3]));
  const __m256i bytes =
      _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_permutevar8x32_epi32(bytes, order));
  return peak / 127.0F;
}

}  // namespace
}  // namespace rk::kernels::gemm_detail

#include "kernels/gemm/kernels_body.h"

namespace rk::kernels::gemm_detail {
extern const Kernels kAvx2Kernels = {"avx2", kTileRows, quantize_tile, few, expand, tile, plain};
}
