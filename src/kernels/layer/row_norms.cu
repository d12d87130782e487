// Row norms on the card: one block a row, 8 elements a thread at a time, summed in f32.
#include <cuda_bf16.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/layer/layer_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    row_norms_kernel(const __nv_bfloat16* __restrict__ x, float* __restrict__ norms, int64_t width,
                     int64_t stride, bool aligned) {
  __shared__ float part[kThreads / 32];
  x += blockIdx.x * stride;
  const int64_t vectors = aligned ? width / 8 : 0;
  float sum = 0.0F;
  for (int64_t i = threadIdx.x; i < vectors; i += kThreads) {
    const uint4 bits = reinterpret_cast<const uint4*>(x)[i];
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = unpack_pair<__nv_bfloat16>(words[j]);
      sum += pair.x * pair.x + pair.y * pair.y;
    }
  }
  for (int64_t i = 8 * vectors + threadIdx.x; i < width; i += kThreads) {
    const float v = __bfloat162float(x[i]);
    sum += v * v;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kThreads / 32; ++i) sum += part[i];
  norms[blockIdx.x] = sqrtf(sum);
}

}  // namespace

Status row_norms_cuda(const View& x, float* norms, Stream stream) {
  if (x.rank != 2 || x.dtype != DType::kBf16 || x.stride[1] != 1) {
    return invalid_argument("row_norms_cuda: bf16 [T, N] wanted, is ", x.describe());
  }
  if (x.dim[0] == 0) return {};
  const bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride[0] % 8 == 0;
  row_norms_kernel<<<static_cast<unsigned>(x.dim[0]), kThreads, 0, stream>>>(
      x.ptr<__nv_bfloat16>(), norms, x.dim[1], x.stride[0], aligned);
  return cuda_status("row_norms");
}

}  // namespace rk::kernels
