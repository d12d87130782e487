// RMSNorm on the card: one block a row, the row stays in registers between the sum and the
// product, so memory is read once.
#include <cuda_bf16.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/layer/layer_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kMaxWarps = 32;

// Sum over the block; every thread gets it. All threads call it once per launch.
__device__ float block_sum(float v) {
  __shared__ float part[kMaxWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, num_warps = blockDim.x / 32;
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0U, v, step);
  if (lane == 0) part[warp] = v;
  __syncthreads();
  v = lane < num_warps ? part[lane] : 0.0F;
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0U, v, step);
  return v;
}

// kVectors float4 a thread. Requires: 4 divides n and the strides.
template <int kVectors>
__global__ void rms_norm_kernel(const float* x, const float* __restrict__ weight, __nv_bfloat16* y,
                                int n, int64_t x_stride, int64_t y_stride, float eps,
                                const int32_t* rows) {
  start_next_kernel();
  await_kernel_before();
  x += (rows != nullptr ? rows[blockIdx.x] : int64_t{blockIdx.x}) * x_stride;
  y += blockIdx.x * y_stride;
  float4 v[kVectors];
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = 4 * (threadIdx.x + i * blockDim.x);
    v[i] = at < n ? *reinterpret_cast<const float4*>(x + at) : float4{0, 0, 0, 0};
    sum += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
  }
  const float scale = rsqrtf(block_sum(sum) / static_cast<float>(n) + eps);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = 4 * (threadIdx.x + i * blockDim.x);
    if (at >= n) continue;
    const float4 w = *reinterpret_cast<const float4*>(weight + at);
    *reinterpret_cast<uint2*>(y + at) = {
        pack_pair<__nv_bfloat16>(v[i].x * scale * w.x, v[i].y * scale * w.y),
        pack_pair<__nv_bfloat16>(v[i].z * scale * w.z, v[i].w * scale * w.w)};
  }
}

// Any length and alignment; for shapes that no model has.
__global__ void rms_norm_any_kernel(const float* x, const float* weight, __nv_bfloat16* y, int n,
                                    int64_t x_stride, int64_t y_stride, float eps,
                                    const int32_t* rows) {
  start_next_kernel();
  await_kernel_before();
  x += (rows != nullptr ? rows[blockIdx.x] : int64_t{blockIdx.x}) * x_stride;
  y += blockIdx.x * y_stride;
  float sum = 0.0F;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i] * x[i];
  const float scale = rsqrtf(block_sum(sum) / static_cast<float>(n) + eps);
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    y[i] = __float2bfloat16(x[i] * scale * weight[i]);
}

}  // namespace

Status rms_norm_cuda(const RmsNormCudaArgs& a, Stream stream) {
  const int64_t num_rows = a.y.dim[0], n = a.x.dim[1];
  if (a.x.rank != 2 || a.x.dtype != DType::kF32 || a.x.stride[1] != 1 || a.y.rank != 2 ||
      a.y.dtype != DType::kBf16 || a.y.stride[1] != 1 || a.y.dim[1] != n ||
      (a.rows == nullptr && a.y.dim[0] != a.x.dim[0]) || a.weight.dtype != DType::kF32 ||
      a.weight.num_elements() != n || n > 32768) {
    return invalid_argument(
        "rms_norm_cuda: x f32 [T, N], weight f32 [N] and y bf16 [T, N] wanted, "
        "N up to 32768; are ",
        a.x.describe(), ", ", a.weight.describe(), ", ", a.y.describe());
  }
  if (num_rows == 0 || n == 0) return {};
  const auto* x = a.x.ptr<float>();
  const auto* w = a.weight.ptr<float>();
  auto* y = a.y.ptr<__nv_bfloat16>();
  const auto grid = static_cast<unsigned>(num_rows);
  const int length = static_cast<int>(n);
  const int64_t xs = a.x.stride[0], ys = a.y.stride[0];
  const auto aligned = [](const void* p, uintptr_t to) {
    return reinterpret_cast<uintptr_t>(p) % to == 0;
  };
  if (n % 4 != 0 || xs % 4 != 0 || ys % 4 != 0 || !aligned(x, 16) || !aligned(w, 16) ||
      !aligned(y, 8)) {
    return launch_early("rms_norm", rms_norm_any_kernel, grid, 256, 0, stream, x, w, y, length, xs,
                        ys, a.eps, a.rows);
  }
  // Few rows: many threads, short latency. Many rows: small blocks, several a multiprocessor.
  const int64_t vectors = n / 4, most = num_rows < 256 ? 1024 : 256;
  const int64_t each = (vectors + most - 1) / most;
  const auto run = [&](auto kernel, int64_t per_thread) {
    const int64_t threads = ((vectors + per_thread - 1) / per_thread + 31) / 32 * 32;
    return launch_early("rms_norm", kernel, grid, static_cast<unsigned>(threads), 0, stream, x, w,
                        y, length, xs, ys, a.eps, a.rows);
  };
  if (each <= 1) return run(rms_norm_kernel<1>, 1);
  if (each <= 2) return run(rms_norm_kernel<2>, 2);
  if (each <= 4) return run(rms_norm_kernel<4>, 4);
  return run(rms_norm_kernel<8>, 8);
}

}  // namespace rk::kernels
