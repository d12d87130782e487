// What every launch needs. Included by .cu and .cuh files only.
#pragma once

#include <cuda_runtime.h>

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

}  // namespace rk::kernels
