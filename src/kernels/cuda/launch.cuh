// What every launch needs. Included by .cu and .cuh files only.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "base/status.h"

namespace rk::kernels {

/// The error of the launch before, if any: it marks the engine unhealthy.
inline Status cuda_status(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return {};
  return internal("cuda: ", kernel, ": ", cudaGetErrorString(error));
}

inline unsigned blocks_for(int64_t num, int per_block) {
  return static_cast<unsigned>((num + per_block - 1) / per_block);
}

/// Lets the next kernel of the stream begin, where launch_early() started it, once every block of
/// this one has come here.
__device__ inline void start_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// Waits until the kernel before is done and its writes are seen. What launch_early() starts must
/// come here in every block, before it touches anything that a kernel may be writing or reading:
/// only so is all that came before the kernel before done too.
__device__ inline void await_kernel_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Launches a kernel whose start may overlap the end of the kernel before (from Hopper on;
/// elsewhere in plain stream order). Copies and fills are never overlapped.
template <class... Params, class... Args>
Status launch_early(const char* name, void (*kernel)(Params...), dim3 grid, unsigned threads,
                    int shared_bytes, cudaStream_t stream, Args&&... args) {
  static const bool can = [] {
    int card = 0, major = 0;
    cudaGetDevice(&card);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card);
    return major >= 9;
  }();
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = can ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
  return cuda_status(name);
}

}  // namespace rk::kernels
