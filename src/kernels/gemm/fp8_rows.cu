// Rows of x to e4m3 on their way into fp8 products, and what those cannot fuse.
#include <cuda_fp8.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/gemm/gemm_cuda_kernels.h"
#include "tensor/fp8.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 128;
constexpr float kMaxFp8 = 448.0F;
constexpr int kBlockLanes = 16;  // threads of a group of 128 elements, eight each

// One row's amax, by a block; `whole` collects it over rows (floats >= 0 order like their bits).
__global__ void amax_kernel(const __nv_bfloat16* x, int64_t k, float* whole) {
  float most = 0.0F;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    most = fmaxf(most, fabsf(__bfloat162float(x[blockIdx.x * k + i])));
  }
  for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0U, most, step));
  if (threadIdx.x % 32 == 0) atomicMax(reinterpret_cast<int*>(whole), __float_as_int(most));
}

// One row a block: finds the row's amax (or takes the whole's), scales, rounds.
__global__ void quantize_fp8_kernel(const __nv_bfloat16* __restrict__ x, int64_t k,
                                    uint8_t* __restrict__ codes, float* scale, const float* whole) {
  __shared__ float part[kThreads / 32];
  x += blockIdx.x * k;
  codes += blockIdx.x * k;
  float most = 0.0F;
  if (whole != nullptr) {
    most = *whole;
  } else {
    for (int64_t i = threadIdx.x; i < k; i += kThreads) {
      most = fmaxf(most, fabsf(__bfloat162float(x[i])));
    }
    for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0U, most, step));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = most;
    __syncthreads();
    for (int w = 0; w < kThreads / 32; ++w) most = fmaxf(most, part[w]);
  }
  const float s = most > 0.0F ? most / kMaxFp8 : 1.0F, inverse = 1.0F / s;
  if (threadIdx.x == 0) scale[blockIdx.x] = s;
  for (int64_t i = threadIdx.x; i < k / 4; i += kThreads) {
    const uint2 v = reinterpret_cast<const uint2*>(x)[i];
    const float2 a = unpack_pair<__nv_bfloat16>(v.x), b = unpack_pair<__nv_bfloat16>(v.y);
    const __nv_fp8x4_e4m3 out(float4{a.x * inverse, a.y * inverse, b.x * inverse, b.y * inverse});
    reinterpret_cast<uint32_t*>(codes)[i] = out.__x;
  }
}

// 16 threads a group of 128 elements of a row, whose values they keep between amax and rounding.
// scale[group][row]: rows follow each other. K is a multiple of 8; the last group may be short.
__global__ void quantize_fp8_blocks_kernel(const __nv_bfloat16* __restrict__ x, int64_t m,
                                           int64_t k, uint8_t* __restrict__ codes, float* scale) {
  const int64_t groups = (k + kFp8Block - 1) / kFp8Block;
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kBlockLanes;
  const int64_t row = i / groups, group = i % groups;
  const int64_t at = group * kFp8Block + threadIdx.x % kBlockLanes * 8;
  const bool valid = row < m && at < k;
  float v[8] = {};
  if (valid) {
    const uint4 raw = *reinterpret_cast<const uint4*>(x + row * k + at);
    const uint32_t words[] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float2 pair = unpack_pair<__nv_bfloat16>(words[e]);
      v[2 * e] = pair.x;
      v[2 * e + 1] = pair.y;
    }
  }
  float most = 0.0F;
#pragma unroll
  for (int e = 0; e < 8; ++e) most = fmaxf(most, fabsf(v[e]));
#pragma unroll
  for (int step = kBlockLanes / 2; step > 0; step /= 2) {
    most = fmaxf(most, __shfl_xor_sync(~0U, most, step));
  }
  if (!valid) return;
  const float s = most > 0.0F ? most / kMaxFp8 : 1.0F, inverse = 1.0F / s;
  if (threadIdx.x % kBlockLanes == 0) scale[group * m + row] = s;
  const __nv_fp8x4_e4m3 low(float4{v[0] * inverse, v[1] * inverse, v[2] * inverse, v[3] * inverse});
  const __nv_fp8x4_e4m3 high(
      float4{v[4] * inverse, v[5] * inverse, v[6] * inverse, v[7] * inverse});
  *reinterpret_cast<uint2*>(codes + row * k + at) = {low.__x, high.__x};
}

__global__ void block_amax_kernel(const __nv_bfloat16* x, int64_t n, int64_t k, float* scale,
                                  int64_t stride) {
  __shared__ float part[kThreads / 32];
  const int64_t column = blockIdx.x * kFp8Block + threadIdx.x;
  float most = 0.0F;
  for (int64_t r = blockIdx.y * kFp8Block; r < min(n, (blockIdx.y + 1) * kFp8Block); ++r) {
    if (column < k) most = fmaxf(most, fabsf(__bfloat162float(x[r * k + column])));
  }
  for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0U, most, step));
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 0; w < kThreads / 32; ++w) most = fmaxf(most, part[w]);
  scale[blockIdx.y * stride + blockIdx.x] = most > 0.0F ? most / kMaxFp8 : 1.0F;
}

__global__ void round_to_blocks_kernel(const __nv_bfloat16* x, int64_t n, int64_t k, uint8_t* codes,
                                       const float* scale, int64_t stride) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n * k) return;
  const float s = scale[i / k / kFp8Block * stride + i % k / kFp8Block];
  codes[i] = __nv_fp8_e4m3(__bfloat162float(x[i]) / s).__x;
}

template <class T>
__global__ void add_bias_kernel(const float* bias, int64_t m, int64_t n, T* y, int64_t y_stride) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= m * n) return;
  T* to = y + i / n * y_stride + i % n;
  *to = static_cast<T>(static_cast<float>(*to) + bias[i % n]);
}

}  // namespace

Status quantize_fp8(const void* x, int64_t m, int64_t k, void* codes, float* scale, bool one_scale,
                    Stream stream) {
  if (m == 0) return {};
  const auto* from = static_cast<const __nv_bfloat16*>(x);
  const auto grid = static_cast<unsigned>(m);
  float* whole = one_scale ? scale + m : nullptr;
  if (one_scale) {
    RK_RETURN_IF_ERROR(zero_on_card(whole, sizeof(float), stream));
    amax_kernel<<<grid, kThreads, 0, stream>>>(from, k, whole);
  }
  quantize_fp8_kernel<<<grid, kThreads, 0, stream>>>(from, k, static_cast<uint8_t*>(codes), scale,
                                                     whole);
  return cuda_status("quantize_fp8");
}

Status quantize_fp8_blocks(const void* x, int64_t m, int64_t k, void* codes, float* scale,
                           Stream stream) {
  if (m == 0) return {};
  const int64_t groups = (k + kFp8Block - 1) / kFp8Block;
  const unsigned grid = blocks_for(m * groups * kBlockLanes, kThreads);
  quantize_fp8_blocks_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const __nv_bfloat16*>(x), m,
                                                            k, static_cast<uint8_t*>(codes), scale);
  return cuda_status("quantize_fp8_blocks");
}

Status weights_to_fp8_blocks(const void* bf16, const WeightPiece& piece, Stream stream) {
  const auto* x = static_cast<const __nv_bfloat16*>(bf16);
  const int64_t rows = (piece.n + kFp8Block - 1) / kFp8Block;
  const int64_t columns = (piece.k + kFp8Block - 1) / kFp8Block;
  RK_RETURN_IF_ERROR(zero_on_card(piece.scale, rows * piece.scale_stride * 4, stream));
  const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(rows));
  block_amax_kernel<<<grid, kThreads, 0, stream>>>(x, piece.n, piece.k, piece.scale,
                                                   piece.scale_stride);
  round_to_blocks_kernel<<<blocks_for(piece.n * piece.k, kThreads), kThreads, 0, stream>>>(
      x, piece.n, piece.k, static_cast<uint8_t*>(piece.data), piece.scale, piece.scale_stride);
  return cuda_status("weights_to_fp8_blocks");
}

Status add_bias(const float* bias, int64_t m, int64_t n, void* y, int64_t y_stride, bool y_f32,
                Stream stream) {
  const unsigned grid = blocks_for(m * n, kThreads);
  if (y_f32) {
    add_bias_kernel<<<grid, kThreads, 0, stream>>>(bias, m, n, static_cast<float*>(y), y_stride);
  } else {
    add_bias_kernel<<<grid, kThreads, 0, stream>>>(bias, m, n, static_cast<__nv_bfloat16*>(y),
                                                   y_stride);
  }
  return cuda_status("add_bias");
}

}  // namespace rk::kernels
