// The specification of encode_rows() and decode_rows(): one element at a time.
#include <algorithm>
#include <cmath>

#include "kernels/row_code/row_code_rows.h"
#include "tensor/dtype.h"

namespace rk::kernels {
namespace {

constexpr uint16_t kMostF16 = 0x7bff;
constexpr int64_t kGroup = 32;

float load(CodedRow dtype, const void* row, int64_t i) {
  if (dtype == CodedRow::kF32) return static_cast<const float*>(row)[i];
  const uint16_t bits = static_cast<const uint16_t*>(row)[i];
  return dtype == CodedRow::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

void store(CodedRow dtype, void* row, int64_t i, float x) {
  if (dtype == CodedRow::kF32) {
    static_cast<float*>(row)[i] = x;
  } else {
    static_cast<uint16_t*>(row)[i] = dtype == CodedRow::kF16 ? f32_to_f16(x) : f32_to_bf16(x);
  }
}

// The least f16 that is not below x >= 0, at most the greatest finite one.
uint16_t f16_above(float x) {
  if (!(x > 0)) return 0;
  if (!(x < f16_to_f32(kMostF16))) return kMostF16;
  const uint16_t near = f32_to_f16(x);
  return f16_to_f32(near) < x ? static_cast<uint16_t>(near + 1) : near;
}

// The greatest f16 that is not above x.
uint16_t f16_below(float x) {
  if (!(x > -f16_to_f32(kMostF16))) return kMostF16 | 0x8000;
  if (x <= 0) return f16_above(-x) | 0x8000;
  const uint16_t near = std::min(f32_to_f16(x), kMostF16);
  return f16_to_f32(near) > x ? static_cast<uint16_t>(near - 1) : near;
}

float bounded(float x, float low, float high) {  // NaN is low
  x = x > low ? x : low;
  return x < high ? x : high;
}

}  // namespace

void encode_row_ref(CodeKind kind, CodedRow dtype, void* row, uint16_t* params, uint8_t* codes,
                    const float* constant, int64_t n) {
  const auto value = [&](int64_t i) {
    return load(dtype, row, i) - (constant == nullptr ? 0.0F : constant[i]);
  };
  if (kind == CodeKind::kInt4) {
    for (int64_t g = 0; g < n; g += kGroup, params += 2) {
      float low = INFINITY, high = -INFINITY;
      for (int64_t i = g; i < g + kGroup; ++i) {
        low = value(i) < low ? value(i) : low;
        high = value(i) > high ? value(i) : high;
      }
      params[0] = f16_below(low);
      const float base = f16_to_f32(params[0]);
      params[1] = f16_above((high - base) / 15);
      const float step = f16_to_f32(params[1]), inverse = step > 0 ? 1 / step : 0;
      const auto code = [&](int64_t i) {
        return static_cast<unsigned>(std::nearbyint(bounded((value(i) - base) * inverse, 0, 15)));
      };
      for (int64_t i = 0; i < kGroup / 2; ++i) {
        codes[g / 2 + i] = static_cast<uint8_t>(code(g + i) | code(g + i + kGroup / 2) << 4);
      }
    }
    return;
  }
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    largest = std::abs(value(i)) > largest ? std::abs(value(i)) : largest;
  }
  params[0] = f16_above(largest / (kind == CodeKind::kInt8 ? 127.0F : 448.0F));
  const float scale = f16_to_f32(params[0]), inverse = scale > 0 ? 1 / scale : 0;
  for (int64_t i = 0; i < n; ++i) {
    const float x = value(i) * inverse;
    codes[i] =
        kind == CodeKind::kFp8
            ? f32_to_e4m3(x)
            : static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(bounded(x, -127, 127))));
  }
}

void decode_row_ref(CodeKind kind, CodedRow dtype, void* row, uint16_t* params, uint8_t* codes,
                    const float* constant, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float x = 0;
    if (kind == CodeKind::kInt4) {
      const int64_t g = i / kGroup, at = i % kGroup;
      const uint8_t pair = codes[g * kGroup / 2 + at % (kGroup / 2)];
      const auto code = static_cast<float>(at < kGroup / 2 ? pair & 15 : pair >> 4);
      x = std::fma(code, f16_to_f32(params[2 * g + 1]), f16_to_f32(params[2 * g]));
      x += constant == nullptr ? 0.0F : constant[i];
    } else {
      const float code = kind == CodeKind::kFp8 ? e4m3_to_f32(codes[i])
                                                : static_cast<float>(static_cast<int8_t>(codes[i]));
      x = std::fma(code, f16_to_f32(params[0]), constant == nullptr ? 0.0F : constant[i]);
    }
    store(dtype, row, i, x);
  }
}

void turn_constant_ref(const float* constant, const float* cos, const float* sin, float* out,
                       int64_t n, int64_t rotary_dim, bool interleaved) {
  const int64_t half = rotary_dim / 2;
  std::copy(constant, constant + n, out);
  for (int64_t i = 0; i < half; ++i) {
    const int64_t lo = interleaved ? 2 * i : i, hi = interleaved ? 2 * i + 1 : i + half;
    out[lo] = constant[lo] * cos[i] - constant[hi] * sin[i];
    out[hi] = constant[hi] * cos[i] + constant[lo] * sin[i];
  }
}

}  // namespace rk::kernels
