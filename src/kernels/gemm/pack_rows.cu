// Weights into and out of their layouts on the card: from a file's rows, to bf16 rows, to f32 rows
// of an embedding. One thread a group of 32. Load-time code, except expansion and gathering.
#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/gemm/gemm_cuda_kernels.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 128;

// 32 elements: value i is scale[i / 16] * code[i] + min, as quant_block.cc computes it.
struct Group {
  int code[32];
  float scale[2];
  float min;
  __device__ float value(int i) const {
    return __fadd_rn(__fmul_rn(scale[i / 16], static_cast<float>(code[i])), min);
  }
};

__device__ float load_half(const uint8_t* p) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(p[0] | p[1] << 8)));
}

__device__ void load_nibbles(const uint8_t* p, int (&code)[32]) {
  for (int i = 0; i < 16; ++i) {
    code[i] = p[i] & 15;
    code[i + 16] = p[i] >> 4;
  }
}
__device__ void add_fifth_bits(const uint8_t* p, int (&code)[32]) {
  const uint32_t high = p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24;
  for (int i = 0; i < 32; ++i) code[i] |= (high >> i & 1U) << 4;
}

// Group `index` of a row in one of GGUF's formats (tensor/quant_block.cc says what lies where).
__device__ Group load_group(DType dtype, const uint8_t* row, int64_t index) {
  Group g;
  g.min = 0.0F;
  const int64_t super = index / 8;
  const int j = static_cast<int>(index % 8);
  switch (dtype) {
    case DType::kQ4_0: {
      const uint8_t* b = row + index * 18;
      g.scale[0] = g.scale[1] = load_half(b);
      g.min = -8.0F * g.scale[0];
      load_nibbles(b + 2, g.code);
      break;
    }
    case DType::kQ4_1: {
      const uint8_t* b = row + index * 20;
      g.scale[0] = g.scale[1] = load_half(b);
      g.min = load_half(b + 2);
      load_nibbles(b + 4, g.code);
      break;
    }
    case DType::kQ5_0: {
      const uint8_t* b = row + index * 22;
      g.scale[0] = g.scale[1] = load_half(b);
      load_nibbles(b + 6, g.code);
      add_fifth_bits(b + 2, g.code);
      for (int i = 0; i < 32; ++i) g.code[i] -= 16;
      break;
    }
    case DType::kQ5_1: {
      const uint8_t* b = row + index * 24;
      g.scale[0] = g.scale[1] = load_half(b);
      g.min = load_half(b + 2);
      load_nibbles(b + 8, g.code);
      add_fifth_bits(b + 4, g.code);
      break;
    }
    case DType::kQ8_0: {
      const uint8_t* b = row + index * 34;
      g.scale[0] = g.scale[1] = load_half(b);
      for (int i = 0; i < 32; ++i) g.code[i] = static_cast<int8_t>(b[2 + i]);
      break;
    }
    case DType::kQ4_K:
    case DType::kQ5_K: {
      const bool five = dtype == DType::kQ5_K;
      const uint8_t* b = row + super * (five ? 176 : 144);
      const uint8_t* s = b + 4;
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
      const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
      g.scale[0] = g.scale[1] = __fmul_rn(load_half(b), static_cast<float>(scale));
      g.min = -__fmul_rn(load_half(b + 2), static_cast<float>(min));
      const uint8_t* nibbles = b + (five ? 48 : 16) + j / 2 * 32;
      for (int i = 0; i < 32; ++i) {
        g.code[i] = nibbles[i] >> (j % 2 * 4) & 15;
        if (five) g.code[i] |= (b[16 + i] >> j & 1) << 4;
      }
      break;
    }
    default: {  // Q6_K
      const uint8_t* b = row + super * 210;
      const float d = load_half(b + 208);
      for (int i = 0; i < 2; ++i) {
        g.scale[i] = __fmul_rn(d, static_cast<float>(static_cast<int8_t>(b[192 + 2 * j + i])));
      }
      for (int i = 0; i < 32; ++i) {
        const int e = 32 * j + i, h = e / 128, r = e % 128;
        const int low = b[64 * h + r % 64] >> (r / 64 * 4) & 15;
        const int high = b[128 + 32 * h + r % 32] >> (r / 32 * 2) & 3;
        g.code[i] = (low | high << 4) - 32;
      }
    }
  }
  return g;
}

__device__ uint32_t half_bits(float v) {
  return __half_as_ushort(__float2half_rn(fminf(fmaxf(v, -65504.0F), 65504.0F)));
}

// Where group `group` of row n lies: its code words of lane t = 0 (16 bytes further for each t),
// and its scales.
struct Place {
  uint32_t* codes;
  uint32_t* scales;
};
template <bool kFour>
__device__ Place place_of(const WeightPiece& p, int64_t n, int64_t group) {
  constexpr int kGroups = kFour ? 4 : 2, kBytes = kUnitCodeBytes + 128 * kGroups;
  const int64_t chunks = (p.k + 32 * kGroups - 1) / (32 * kGroups);
  char* unit = static_cast<char*>(p.data) + (n / kUnitRows * chunks + group / kGroups) * kBytes;
  const int row = static_cast<int>(n % kUnitRows), j = static_cast<int>(group % kGroups);
  return {reinterpret_cast<uint32_t*>(unit + row / 8 * 512 + row % 8 * 64) + (kFour ? j : 2 * j),
          reinterpret_cast<uint32_t*>(unit + kUnitCodeBytes + row / 16 * 64 * kGroups +
                                      row % 8 * 8 * kGroups) +
              2 * j + row / 8 % 2};
}

template <bool kFour>
__device__ void store_group(const WeightPiece& p, int64_t n, int64_t group, const Group& g) {
  const Place at = place_of<kFour>(p, n, group);
  for (int t = 0; t < 4; ++t) {
    if constexpr (kFour) {
      uint32_t word = 0;
      for (int e = 0; e < 8; ++e) {
        word |= static_cast<uint32_t>(g.code[8 * t + e] & 15) << (4 * (e / 2 + e % 2 * 4));
      }
      at.codes[4 * t] = word;
    } else {
      for (int h = 0; h < 2; ++h) {
        uint32_t word = 0;
        for (int e = 0; e < 4; ++e) {
          const auto byte = static_cast<uint8_t>(g.code[16 * h + 4 * t + e]);
          word |= static_cast<uint32_t>(byte) << (8 * (e / 2 + e % 2 * 2));
        }
        at.codes[4 * t + h] = word;
      }
    }
  }
  *at.scales = half_bits(g.scale[0]) | half_bits(p.sixteens ? g.scale[1] : g.min) << 16;
}

template <bool kFour>
__device__ Group packed_group(const WeightPiece& p, int64_t n, int64_t group) {
  Group g;
  const Place at = place_of<kFour>(p, n, group);
  for (int t = 0; t < 4; ++t) {
    if constexpr (kFour) {
      const uint32_t word = at.codes[4 * t];
      for (int e = 0; e < 8; ++e) g.code[8 * t + e] = word >> (4 * (e / 2 + e % 2 * 4)) & 15;
    } else {
      for (int h = 0; h < 2; ++h) {
        const uint32_t word = at.codes[4 * t + h];
        for (int e = 0; e < 4; ++e) {
          g.code[16 * h + 4 * t + e] = static_cast<int8_t>(word >> (8 * (e / 2 + e % 2 * 2)));
        }
      }
    }
  }
  const float2 s = unpack_pair<__half>(*at.scales);
  g.scale[0] = s.x;
  g.scale[1] = p.sixteens ? s.y : s.x;
  g.min = p.sixteens ? 0.0F : s.y;
  return g;
}

__device__ float plain_value(DType dtype, const void* p, int64_t i) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(p)[i];
    case DType::kF16:
      return __half2float(static_cast<const __half*>(p)[i]);
    case DType::kBf16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
    case DType::kI8:
      return static_cast<const int8_t*>(p)[i];
    default:
      return static_cast<float>(static_cast<const int32_t*>(p)[i]);
  }
}

// Raw rows to bf16 rows or packed groups.
__global__ void pack_kernel(WeightPiece p, int64_t first_row, DType dtype, const uint8_t* raw,
                            int64_t row_bytes, int64_t rows) {
  const int64_t groups = p.k / 32, i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= rows * groups) return;
  const int64_t n = first_row + i / groups;
  const Group g = load_group(dtype, raw + i / groups * row_bytes, i % groups);
  if (p.form == CudaWeightForm::kInt4G32) {
    store_group<true>(p, n, i % groups, g);
  } else if (p.form == CudaWeightForm::kInt8G32) {
    store_group<false>(p, n, i % groups, g);
  } else {
    __nv_bfloat16* to = static_cast<__nv_bfloat16*>(p.data) + n * p.k + i % groups * 32;
    for (int e = 0; e < 32; ++e) to[e] = __float2bfloat16(g.value(e));
  }
}

__global__ void plain_kernel(const void* from, DType dtype, __nv_bfloat16* to, int64_t num) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < num; i += step) {
    to[i] = __float2bfloat16(plain_value(dtype, from, i));
  }
}

// A group a thread. TODO(#4): stores of 64 bytes a thread reach 1.9 TB/s; eight elements would
// coalesce.
template <bool kFour>
__global__ void expand_kernel(WeightPiece p, __nv_bfloat16* out) {
  const int64_t groups = p.k / 32, i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.n * groups) return;
  const Group g = packed_group<kFour>(p, i / groups, i % groups);
  auto* to = reinterpret_cast<uint4*>(out + i * 32);
#pragma unroll
  for (int v = 0; v < 4; ++v) {
    to[v] = {pack_pair<__nv_bfloat16>(g.value(8 * v), g.value(8 * v + 1)),
             pack_pair<__nv_bfloat16>(g.value(8 * v + 2), g.value(8 * v + 3)),
             pack_pair<__nv_bfloat16>(g.value(8 * v + 4), g.value(8 * v + 5)),
             pack_pair<__nv_bfloat16>(g.value(8 * v + 6), g.value(8 * v + 7))};
  }
}

__device__ float fp8_value(uint8_t bits) {
  __nv_fp8_e4m3 v;
  v.__x = bits;
  return static_cast<float>(v);
}

__device__ float fp8_weight(const WeightPiece& p, int64_t n, int64_t k) {
  const int64_t at = n / p.block_rows * p.scale_stride + k / p.block_columns;
  return fp8_value(static_cast<const uint8_t*>(p.data)[n * p.k + k]) * p.scale[at];
}

__global__ void expand_fp8_kernel(WeightPiece p, __nv_bfloat16* out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.n * p.k) return;
  out[i] = __float2bfloat16(fp8_weight(p, i / p.k, i % p.k));
}

__device__ uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Uniform codes: their deviation is (levels - 1) / sqrt(12), nearly.
template <bool kFour>
__global__ void random_kernel(WeightPiece p, uint64_t seed, float deviation) {
  const int64_t groups = p.k / 32, i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.n * groups) return;
  Group g;
  const float scale = deviation * (kFour ? 0.2169F : 0.01353F);
  const uint64_t key = mix(seed + 0x9e3779b97f4a7c15ULL);
  for (int w = 0; w < 4; ++w) {
    const uint64_t bits = mix(key + static_cast<uint64_t>(4 * i + w));
    for (int e = 0; e < 8; ++e) {
      const auto byte = static_cast<uint8_t>(bits >> (8 * e));
      g.code[8 * w + e] = kFour ? byte & 15 : static_cast<int8_t>(byte);
    }
  }
  g.scale[0] = g.scale[1] = scale;
  g.min = kFour ? -7.5F * scale : 0.0F;
  store_group<kFour>(p, i / groups, i % groups, g);
}

__global__ void gather_kernel(WeightPiece p, int64_t total_rows, const int32_t* ids, float* out,
                              int64_t out_stride) {
  int64_t id = ids[blockIdx.x];
  if (id < 0 || id >= total_rows) id = 0;
  id -= p.row_begin;
  if (id < 0 || id >= p.n) return;
  float* to = out + blockIdx.x * out_stride;
  if (p.form != CudaWeightForm::kInt8G32 && p.form != CudaWeightForm::kInt4G32) {
    for (int64_t i = threadIdx.x; i < p.k; i += kThreads) {
      to[i] = p.form == CudaWeightForm::kBf16
                  ? __bfloat162float(static_cast<const __nv_bfloat16*>(p.data)[id * p.k + i])
                  : fp8_weight(p, id, i);
    }
    return;
  }
  for (int64_t group = threadIdx.x; group < p.k / 32; group += kThreads) {
    const Group g = p.form == CudaWeightForm::kInt4G32 ? packed_group<true>(p, id, group)
                                                       : packed_group<false>(p, id, group);
    for (int e = 0; e < 32; ++e) to[group * 32 + e] = g.value(e);
  }
}

__global__ void to_bf16_kernel(const float* from, __nv_bfloat16* to, int64_t num) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < num) to[i] = __float2bfloat16(from[i]);
}

}  // namespace

Status pack_rows(const WeightPiece& piece, int64_t row, DType dtype, const void* raw, int64_t n,
                 Stream stream) {
  if (n == 0 || piece.k == 0) return {};
  if (dtype_info(dtype).block_elems == 1) {
    const unsigned grid = std::min(blocks_for(n * piece.k, kThreads), 132U * 32);
    plain_kernel<<<grid, kThreads, 0, stream>>>(
        raw, dtype, static_cast<__nv_bfloat16*>(piece.data) + row * piece.k, n * piece.k);
  } else {
    pack_kernel<<<blocks_for(n * (piece.k / 32), kThreads), kThreads, 0, stream>>>(
        piece, row, dtype, static_cast<const uint8_t*>(raw), dtype_bytes(dtype, piece.k), n);
  }
  return cuda_status("pack_rows");
}

Status expand_rows(const WeightPiece& piece, void* out, Stream stream) {
  auto* to = static_cast<__nv_bfloat16*>(out);
  const unsigned grid = blocks_for(piece.n * (piece.k / 32), kThreads);
  switch (piece.form) {
    case CudaWeightForm::kBf16:
      return copy_on_card(out, piece.data, 2 * piece.n * piece.k, stream);
    case CudaWeightForm::kFp8:
    case CudaWeightForm::kFp8Blocks:
      expand_fp8_kernel<<<blocks_for(piece.n * piece.k, kThreads), kThreads, 0, stream>>>(piece,
                                                                                          to);
      break;
    case CudaWeightForm::kInt8G32:
      expand_kernel<false><<<grid, kThreads, 0, stream>>>(piece, to);
      break;
    case CudaWeightForm::kInt4G32:
      expand_kernel<true><<<grid, kThreads, 0, stream>>>(piece, to);
      break;
  }
  return cuda_status("expand_rows");
}

Status random_codes(const WeightPiece& piece, uint64_t seed, float deviation, Stream stream) {
  const unsigned grid = blocks_for(piece.n * (piece.k / 32), kThreads);
  if (piece.form == CudaWeightForm::kInt4G32) {
    random_kernel<true><<<grid, kThreads, 0, stream>>>(piece, seed, deviation);
  } else {
    random_kernel<false><<<grid, kThreads, 0, stream>>>(piece, seed, deviation);
  }
  return cuda_status("random_codes");
}

Status gather_piece(const WeightPiece& piece, int64_t total_rows, const int32_t* ids, int64_t num,
                    float* out, int64_t out_stride, Stream stream) {
  if (num == 0) return {};
  gather_kernel<<<static_cast<unsigned>(num), kThreads, 0, stream>>>(piece, total_rows, ids, out,
                                                                     out_stride);
  return cuda_status("gather_piece");
}

Status to_bf16(const float* from, void* to, int64_t num, Stream stream) {
  to_bf16_kernel<<<blocks_for(num, kThreads), kThreads, 0, stream>>>(
      from, static_cast<__nv_bfloat16*>(to), num);
  return cuda_status("to_bf16");
}

}  // namespace rk::kernels
