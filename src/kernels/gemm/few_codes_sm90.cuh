// What a block of few_codes is told, and x in its shared memory: 16 bits an element. Only
// few_codes_sm90.cu includes this.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/gemm/gemm_cuda_kernels.h"

namespace rk::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kMaxStages = 8;
constexpr int kGroup = 32;  // elements of K with a scale
// A block takes more than half of a multiprocessor, so that a kernel's blocks spread over the card
// even where they come while another's leave.
constexpr int kLeastBytes = 120 * 1024, kMostBytes = 220 * 1024, kRingBytes = 136 * 1024;
constexpr int kLeastStages = 3;

enum class Codes : uint8_t { kInt4, kInt8, kInt8Sixteens };
constexpr CudaWeightForm form_of(Codes codes) {
  return codes == Codes::kInt4 ? CudaWeightForm::kInt4G32 : CudaWeightForm::kInt8G32;
}
template <Codes kCodes>
constexpr int kUnitBytes = unit_bytes(form_of(kCodes));
template <Codes kCodes>
constexpr int kGroups = unit_k(form_of(kCodes)) / kGroup;  // of a unit

struct Params {
  const char* data;
  const void* x;
  const float* norm;
  const float* bias;
  void* y;
  float* parts;
  int32_t* counters;
  int64_t y_stride;
  int stages, chunks, tiles;
  int outputs, k, m;  // of a weight with two halves, outputs are half its rows
  float eps;
  bool y_f32, accumulate;
};

// Where things lie in shared memory: rings, codes of x [group][row of x][h, l][t][8], and
// (scale, scale * sum of q) of x [group][row of x].
__host__ __device__ constexpr int x_bytes(int groups, int m) {
  return groups * m * (2 * kGroup + 8);
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0U, v, step);
  return v;
}

__device__ __forceinline__ float max_or_nan(float a, float b) {
  float out;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
  return out;
}

// x of this launch in 16 bits, by all threads. A thread takes the eight elements of a group that
// lane t of a warp multiplies.
template <Codes kCodes, bool kNorm>
struct XLoader {
  const Params& p;
  uint8_t* codes;
  float2* sums;

  __device__ void load() const {
    const int groups = p.chunks * kGroups<kCodes>, items = groups * p.m * 4;
    __shared__ float scale_of_row[kNorm ? kNormedCodeRows : 1];
    if constexpr (kNorm) find_scales(scale_of_row);
    constexpr int kBatch = kNorm ? 2 : 4;  // loads under way
    for (int begin = 0; begin < items; begin += kBatch * kThreads) {
      const int mine = begin + static_cast<int>(threadIdx.x);
      float v[kBatch][8];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) read(mine + i * kThreads, groups, scale_of_row, v[i]);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) quantise(mine + i * kThreads, items, groups, v[i]);
    }
  }

 private:
  __device__ void find_scales(float* scale_of_row) const {
    __shared__ float part[kWarps];
    for (int row = 0; row < p.m; ++row) {
      const auto* from = static_cast<const float4*>(p.x) + int64_t{row} * (p.k / 4);
      float sum = 0.0F;
#pragma unroll 8
      for (int i = static_cast<int>(threadIdx.x); i < p.k / 4; i += kThreads) {
        const float4 v = from[i];
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      }
      sum = warp_sum(sum);
      if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
      __syncthreads();
      sum = 0.0F;
#pragma unroll
      for (int i = 0; i < kWarps; ++i) sum += part[i];
      if (threadIdx.x == 0) scale_of_row[row] = rsqrtf(sum / static_cast<float>(p.k) + p.eps);
      __syncthreads();
    }
  }

  __device__ void read(int item, int groups, const float* scale_of_row, float (&v)[8]) const {
    const int row = item / 4 / groups, group = item / 4 % groups, t = item % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at =
          group * kGroup + (kCodes == Codes::kInt4 ? 8 * t + 4 * half : 4 * t + 16 * half);
      float4 q = {0, 0, 0, 0};
      if (row < p.m && at < p.k) {
        const int64_t place = int64_t{row} * p.k + at;
        if constexpr (kNorm) {
          const float4 w = *reinterpret_cast<const float4*>(p.norm + at);
          const float s = scale_of_row[row];
          q = *reinterpret_cast<const float4*>(static_cast<const float*>(p.x) + place);
          q = {q.x * s * w.x, q.y * s * w.y, q.z * s * w.z, q.w * s * w.w};
        } else {
          const uint2 b =
              *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(p.x) + place);
          q = {__uint_as_float(b.x << 16), __uint_as_float(b.x & 0xffff0000U),
               __uint_as_float(b.y << 16), __uint_as_float(b.y & 0xffff0000U)};
        }
      }
      v[4 * half] = q.x, v[4 * half + 1] = q.y, v[4 * half + 2] = q.z, v[4 * half + 3] = q.w;
    }
  }

  // All lanes of a warp call it. What is not finite makes the group's scale so, and with it y.
  __device__ void quantise(int item, int items, int groups, const float (&v)[8]) const {
    float most = 0.0F;
#pragma unroll
    for (const float e : v) most = max_or_nan(most, fabsf(e));
    most = max_or_nan(most, __shfl_xor_sync(~0U, most, 1));
    most = max_or_nan(most, __shfl_xor_sync(~0U, most, 2));
    constexpr float kLargest = 127 * 256;
    const float scale = most / kLargest, inverse = most > 1e-30F ? kLargest / most : 0.0F;
    uint32_t high[8], low[8];
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int q = __float2int_rn(v[i] * inverse);
      sum += q;
      const int h = (q + 128) >> 8;
      high[i] = static_cast<uint32_t>(h) & 255U;
      low[i] = static_cast<uint32_t>(q - 256 * h) & 255U;
    }
    sum += __shfl_xor_sync(~0U, sum, 1);
    sum += __shfl_xor_sync(~0U, sum, 2);
    if (item >= items) return;
    const int row = item / 4 / groups, group = item / 4 % groups, t = item % 4;
    const int at = group * p.m + row;
    auto* to = reinterpret_cast<uint2*>(codes + at * 64 + t * 8);
    to[0] = pack(high);
    to[4] = pack(low);
    if (t == 0) sums[at] = {scale, scale * static_cast<float>(sum)};
  }

  // As the weights' codes of a lane lie.
  __device__ static uint2 pack(const uint32_t (&v)[8]) {
    if constexpr (kCodes == Codes::kInt4) {
      return {v[0] | v[4] << 8 | v[1] << 16 | v[5] << 24,
              v[2] | v[6] << 8 | v[3] << 16 | v[7] << 24};
    } else {
      return {v[0] | v[2] << 8 | v[1] << 16 | v[3] << 24,
              v[4] | v[6] << 8 | v[5] << 16 | v[7] << 24};
    }
  }
};

}  // namespace
}  // namespace rk::kernels
