// y = x w^T of one row on Hopper, bf16 weights: decode of one sequence. Bound by the weights'
// bytes.
//
// One block a multiprocessor with a share of the rows of w; each warp streams every eighth of them
// through a ring of shared memory that one lane fills by bulk copies. The rings are filled before
// the kernel waits for the one before it (no kernel writes weights), so the memory does not rest
// while small kernels run. The sums are f32 on the ordinary cores:
// one multiplication a weight.
//
// What surrounds the product comes with it: the RMS norm of x (every block does it again, x is
// small), and SwiGLU of a weight of two halves, whose rows a warp takes in pairs.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/cuda/silu.cuh"
#include "kernels/gemm/gemm_cuda_kernels.h"

namespace rk::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kPiece = 1024;                             // elements of a copy
constexpr int kMaxStages = 8;                            // copies a warp has under way, at most
constexpr int kNormVectors = 8;                          // of four elements, each thread
constexpr int kMaxNormed = 4 * kNormVectors * kThreads;  // elements of a row that is normed
constexpr int kStageBytes = kWarps * kPiece * 2;
// A block takes more than half of a multiprocessor, so that a kernel's blocks spread over the card
// even where they come while another's leave.
constexpr int kMostBytes = 220 * 1024;
int stages_of(int k) { return std::min(kMaxStages, (kMostBytes - 2 * k) / kStageBytes); }

struct Params {
  const __nv_bfloat16* w;
  const void* x;
  const float* norm;
  const float* bias;
  void* y;
  int stages;
  int outputs, k;  // of a weight with two halves, outputs are half its rows
  float eps;
  bool y_f32, accumulate;
};

__device__ __forceinline__ float2 unpack(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000U)};
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0U, v, step);
  return v;
}

// The weights of the norm, which no kernel writes, and then the row as bf16 in shared memory.
template <bool kNorm>
struct RowLoader {
  const Params& p;
  float4 norm[kNorm ? kNormVectors : 1];

  __device__ void load_norm() {
    if constexpr (!kNorm) return;
#pragma unroll
    for (int i = 0; i < kNormVectors; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads;
      if (at < p.k / 4) norm[i] = reinterpret_cast<const float4*>(p.norm)[at];
    }
  }

  __device__ void load(uint4* x) const {
    if constexpr (!kNorm) {
      copy(x);
    } else {
      load_normed(reinterpret_cast<uint2*>(x));
    }
  }

 private:
  __device__ void copy(uint4* x) const {
    constexpr int kBatch = 8;  // loads under way
    const int num = p.k / 8;
    for (int begin = static_cast<int>(threadIdx.x); begin < num; begin += kBatch * kThreads) {
      uint4 v[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int at = begin + i * kThreads;
        if (at < num) v[i] = static_cast<const uint4*>(p.x)[at];
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int at = begin + i * kThreads;
        if (at < num) x[at] = v[i];
      }
    }
  }

  __device__ void load_normed(uint2* x) const {
    __shared__ float part[kWarps];
    float4 v[kNormVectors];
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kNormVectors; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads;
      v[i] = at < p.k / 4 ? static_cast<const float4*>(p.x)[at] : float4{0, 0, 0, 0};
    }
#pragma unroll
    for (int i = 0; i < kNormVectors; ++i) {
      sum += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) sum += part[i];
    const float scale = rsqrtf(sum / static_cast<float>(p.k) + p.eps);
#pragma unroll
    for (int i = 0; i < kNormVectors; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads;
      if (at >= p.k / 4) continue;
      x[at] = {ptx::pack<__nv_bfloat16>(v[i].x * scale * norm[i].x, v[i].y * scale * norm[i].y),
               ptx::pack<__nv_bfloat16>(v[i].z * scale * norm[i].z, v[i].w * scale * norm[i].w)};
    }
  }
};

// What a warp's lane 0 asks for next: pieces of a row, of its twin in the other half, of the row
// eight further.
template <bool kGated>
struct Pieces {
  const Params& p;
  int row, end, at = 0, half = 0;

  __device__ void ask(uint8_t* to, uint64_t* full) {
    if (row >= end) return;
    const int bytes = min(kPiece, p.k - at) * 2;
    const __nv_bfloat16* from = p.w + (row + int64_t{half} * p.outputs) * p.k + at;
    ptx::barrier_arrive_expect(full, bytes);
    ptx::load_bytes(to, from, bytes, full);
    at += kPiece;
    if (at < p.k) return;
    at = 0;
    if (kGated && half == 0) {
      half = 1;
    } else {
      half = 0;
      row += kWarps;
    }
  }
};

template <bool kNorm, bool kGated>
__global__ void __launch_bounds__(kThreads, 2) one_row_kernel(const Params p) {
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ uint64_t barriers[kWarps * kMaxStages];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto begin = static_cast<int>(int64_t{blockIdx.x} * p.outputs / gridDim.x);
  const auto end = static_cast<int>((int64_t{blockIdx.x} + 1) * p.outputs / gridDim.x);
  uint8_t* ring = shared + warp * (p.stages * kPiece * 2);
  uint64_t* full = barriers + warp * kMaxStages;
  auto* x = reinterpret_cast<uint4*>(shared + p.stages * kStageBytes);
  Pieces<kGated> pieces{p, begin + warp, end};
  start_next_kernel();
  if (lane == 0) {
    for (int i = 0; i < p.stages; ++i) ptx::barrier_init(full + i, 1);
    ptx::barrier_init_fence();
    for (int i = 0; i < p.stages; ++i) pieces.ask(ring + i * kPiece * 2, full + i);
  }
  RowLoader<kNorm> loader{p};
  loader.load_norm();
  await_kernel_before();
  loader.load(x);
  __syncthreads();

  int stage = 0;
  uint32_t parity = 0;
  for (int row = begin + warp; row < end; row += kWarps) {
    float old = 0.0F;
    if (p.accumulate && lane == 0) old = static_cast<const float*>(p.y)[row];
    float sums[2];
#pragma unroll
    for (int half = 0; half < (kGated ? 2 : 1); ++half) {
      float acc[4] = {};
      for (int at = 0; at < p.k; at += kPiece) {
        ptx::barrier_wait(full + stage, parity);
        uint8_t* piece = ring + stage * kPiece * 2;
        uint4 w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) w[i] = reinterpret_cast<const uint4*>(piece)[i * 32 + lane];
        __syncwarp();
        if (lane == 0) pieces.ask(piece, full + stage);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int vector = at / 8 + i * 32 + lane;
          if (vector * 8 >= p.k) break;  // what lies behind the row's last piece is older
          const uint4 v = x[vector];
          const uint32_t a[4] = {w[i].x, w[i].y, w[i].z, w[i].w}, b[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const float2 s = unpack(a[j]), t = unpack(b[j]);
            acc[j] = fmaf(s.x, t.x, acc[j]);
            acc[j] = fmaf(s.y, t.y, acc[j]);
          }
        }
        if (++stage == p.stages) stage = 0, parity ^= 1;
      }
      sums[half] = warp_sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
    }
    if (lane != 0) continue;
    float v = sums[0];
    if constexpr (kGated) v = silu_times(v, sums[1]);
    if (p.bias != nullptr) v += p.bias[row];
    if (p.y_f32) {
      static_cast<float*>(p.y)[row] = v + old;
    } else {
      static_cast<__nv_bfloat16*>(p.y)[row] = __float2bfloat16(v);
    }
  }
}

template <bool kNorm, bool kGated>
Status launch(Params p, int num_sms, Stream stream) {
  const auto kernel = one_row_kernel<kNorm, kGated>;
  static const cudaError_t raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes);
  if (raised != cudaSuccess) return internal("cuda: one_row: ", cudaGetErrorString(raised));
  p.stages = stages_of(p.k);
  const int grid = std::min(num_sms, (p.outputs + kWarps - 1) / kWarps);
  return launch_early("one_row", kernel, static_cast<unsigned>(grid), kThreads,
                      p.stages * kStageBytes + 2 * p.k, stream, p);
}

}  // namespace

bool one_row_can(const WeightPiece& piece, bool norm) {
  return on_hopper() && piece.form == CudaWeightForm::kBf16 && piece.k % 8 == 0 &&
         piece.k <= (norm ? kMaxNormed : kOneRowMaxK) && piece.n < (1 << 30);
}

Status one_row(const WeightPiece& piece, const OneRowArgs& a, Stream stream) {
  const Params p{.w = static_cast<const __nv_bfloat16*>(piece.data),
                 .x = a.x,
                 .norm = a.norm,
                 .bias = a.bias,
                 .y = a.y,
                 .outputs = static_cast<int>(a.gated ? piece.n / 2 : piece.n),
                 .k = static_cast<int>(piece.k),
                 .eps = a.eps,
                 .y_f32 = a.y_f32,
                 .accumulate = a.accumulate};
  if (a.norm != nullptr) {
    return a.gated ? launch<true, true>(p, a.num_sms, stream)
                   : launch<true, false>(p, a.num_sms, stream);
  }
  return a.gated ? launch<false, true>(p, a.num_sms, stream)
                 : launch<false, false>(p, a.num_sms, stream);
}

}  // namespace rk::kernels
