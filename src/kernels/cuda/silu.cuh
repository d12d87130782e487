// SiLU as every kernel that multiplies gate and up has it.
#pragma once

namespace rk::kernels {

__device__ __forceinline__ float silu_times(float gate, float up) {
  return gate / (1.0F + __expf(-gate)) * up;
}

}  // namespace rk::kernels
