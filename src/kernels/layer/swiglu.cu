// SwiGLU on the card: 8 elements a thread, each read and written once.
#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/silu.cuh"
#include "kernels/layer/layer_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void swiglu_kernel(const __nv_bfloat16* gate_up, __nv_bfloat16* y, int64_t rows,
                              int width, int64_t in_stride, int64_t out_stride) {
  start_next_kernel();
  await_kernel_before();
  const int64_t d = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 8;
  if (d >= width) return;
  for (int64_t t = blockIdx.y; t < rows; t += gridDim.y) {
    const uint4 gate = *reinterpret_cast<const uint4*>(gate_up + t * in_stride + d);
    const uint4 up = *reinterpret_cast<const uint4*>(gate_up + t * in_stride + width + d);
    const uint32_t g[4] = {gate.x, gate.y, gate.z, gate.w}, u[4] = {up.x, up.y, up.z, up.w};
    uint32_t out[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 a = unpack_pair<__nv_bfloat16>(g[i]), b = unpack_pair<__nv_bfloat16>(u[i]);
      out[i] = pack_pair<__nv_bfloat16>(silu_times(a.x, b.x), silu_times(a.y, b.y));
    }
    *reinterpret_cast<uint4*>(y + t * out_stride + d) = {out[0], out[1], out[2], out[3]};
  }
}

__global__ void swiglu_any_kernel(const __nv_bfloat16* gate_up, __nv_bfloat16* y, int64_t rows,
                                  int width, int64_t in_stride, int64_t out_stride) {
  start_next_kernel();
  await_kernel_before();
  const int64_t d = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (d >= width) return;
  for (int64_t t = blockIdx.y; t < rows; t += gridDim.y) {
    const float gate = __bfloat162float(gate_up[t * in_stride + d]);
    const float up = __bfloat162float(gate_up[t * in_stride + width + d]);
    y[t * out_stride + d] = __float2bfloat16(silu_times(gate, up));
  }
}

}  // namespace

Status swiglu_cuda(const View& gate_up, const View& y, Stream stream) {
  const int64_t rows = y.dim[0], width = y.dim[1];
  if (gate_up.rank != 2 || y.rank != 2 || gate_up.dtype != DType::kBf16 ||
      y.dtype != DType::kBf16 || gate_up.dim[0] != rows || gate_up.dim[1] != 2 * width ||
      gate_up.stride[1] != 1 || y.stride[1] != 1) {
    return invalid_argument("swiglu_cuda: bf16 [T, 2F] and [T, F] wanted, are ", gate_up.describe(),
                            " and ", y.describe());
  }
  if (rows == 0 || width == 0) return {};
  const auto* in = gate_up.ptr<__nv_bfloat16>();
  auto* out = y.ptr<__nv_bfloat16>();
  const int64_t is = gate_up.stride[0], os = y.stride[0];
  const int n = static_cast<int>(width);
  const auto misaligned = (reinterpret_cast<uintptr_t>(in) | reinterpret_cast<uintptr_t>(out)) % 16;
  const auto high = static_cast<unsigned>(std::min<int64_t>(rows, 32768));
  if (width % 8 != 0 || is % 8 != 0 || os % 8 != 0 || misaligned != 0) {
    return launch_early("swiglu", swiglu_any_kernel, dim3(blocks_for(width, kThreads), high),
                        kThreads, 0, stream, in, out, rows, n, is, os);
  }
  return launch_early("swiglu", swiglu_kernel, dim3(blocks_for(width / 8, kThreads), high),
                      kThreads, 0, stream, in, out, rows, n, is, os);
}

}  // namespace rk::kernels
