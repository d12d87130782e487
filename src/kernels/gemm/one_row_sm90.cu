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
#include "kernels/gemm/gemm_cuda_kernels.h"

namespace rk::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kPiece = 1024;                             // elements of a copy
constexpr int kMaxStages = 12;                           // copies a warp has under way, at most
constexpr int kNormVectors = 8;                          // of four elements, each thread
constexpr int kMaxNormed = 4 * kNormVectors * kThreads;  // elements of a row that is normed
constexpr int kStageBytes = kWarps * kPiece * 2;
// A block has a multiprocessor to itself, so that a kernel's blocks spread over the card even where
// they come while another's leave.
constexpr int kSharedBytes = 220 * 1024;
constexpr int stages_of(int64_t k) {
  const int64_t fit = (kSharedBytes - 2 * k) / kStageBytes;
  return static_cast<int>(fit < kMaxStages ? fit : kMaxStages);
}

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

// The row as bf16 in shared memory.
template <bool kNorm>
__device__ void load_x(const Params& p, uint4* x) {
  if constexpr (!kNorm) {
    for (int i = threadIdx.x; i < p.k / 8; i += kThreads) {
      x[i] = static_cast<const uint4*>(p.x)[i];
    }
  } else {
    __shared__ float part[kWarps];
    float4 v[kNormVectors];
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kNormVectors; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads;
      v[i] = at < p.k / 4 ? static_cast<const float4*>(p.x)[at] : float4{0, 0, 0, 0};
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
      const float4 w = reinterpret_cast<const float4*>(p.norm)[at];
      reinterpret_cast<uint2*>(x)[at] = {
          ptx::pack<__nv_bfloat16>(v[i].x * scale * w.x, v[i].y * scale * w.y),
          ptx::pack<__nv_bfloat16>(v[i].z * scale * w.z, v[i].w * scale * w.w)};
    }
  }
}

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
  if constexpr (kNorm) {
    if (threadIdx.x * 32 < static_cast<unsigned>(p.k)) ptx::prefetch(p.norm + threadIdx.x * 32);
  }
  await_kernel_before();
  load_x<kNorm>(p, x);
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
    if constexpr (kGated) v = v / (1.0F + __expf(-v)) * sums[1];
    if (p.bias != nullptr) v += p.bias[row];
    if (p.y_f32) {
      static_cast<float*>(p.y)[row] = v + old;
    } else {
      static_cast<__nv_bfloat16*>(p.y)[row] = __float2bfloat16(v);
    }
  }
}

template <bool kNorm, bool kGated>
Status launch(const Params& p, int num_sms, Stream stream) {
  const auto kernel = one_row_kernel<kNorm, kGated>;
  static const cudaError_t raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (raised != cudaSuccess) return internal("cuda: one_row: ", cudaGetErrorString(raised));
  const int grid = std::min(num_sms, (p.outputs + kWarps - 1) / kWarps);
  return launch_early("one_row", kernel, static_cast<unsigned>(grid), kThreads,
                      p.stages * kStageBytes + 2 * p.k, stream, p);
}

}  // namespace

bool one_row_can(const WeightPiece& piece, bool norm) {
  static const bool hopper = [] {
    int card = 0, major = 0;
    return cudaGetDevice(&card) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card) == cudaSuccess &&
           major == 9;
  }();
  return hopper && piece.form == CudaWeightForm::kBf16 && piece.k % 8 == 0 &&
         piece.k <= (norm ? kMaxNormed : kOneRowMaxK) && piece.n < (1 << 30);
}

Status one_row(const WeightPiece& piece, const OneRowArgs& a, Stream stream) {
  const Params p{.w = static_cast<const __nv_bfloat16*>(piece.data),
                 .x = a.x,
                 .norm = a.norm,
                 .bias = a.bias,
                 .y = a.y,
                 .stages = stages_of(piece.k),
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
