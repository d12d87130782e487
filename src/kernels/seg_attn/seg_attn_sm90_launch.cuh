// SegPagedAttention for Hopper: a persistent, warp-specialised kernel (docs/kernels.md). Scores,
// sums and outputs accumulate in f32; probabilities are rounded to the pages' dtype. One .cu a
// dtype.
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/seg_attn/seg_attn_cuda_variants.h"
#include "kernels/seg_attn/seg_attn_sm90_load.cuh"
#include "kernels/seg_attn/seg_attn_sm90_multiply.cuh"

namespace rk::kernels::sm90 {

template <class F>
__device__ void begin_block(const Params& p, Shared<F>& s) {
  // Rows of a tile that no page fills are masked; their values must only be finite.
  auto* values = reinterpret_cast<uint4*>(s.v);
  for (int i = threadIdx.x; i < F::kStages * F::kTileBytes / 16; i += F::kThreads) {
    values[i] = make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  if (threadIdx.x == 0) {
    constexpr int kConsumers = 4 * F::kWarpgroups * kArrivals;
    for (int i = 0; i < F::kStages; ++i) {
      ptx::barrier_init(&s.k_full[i], 1);
      ptx::barrier_init(&s.v_full[i], 1);
      ptx::barrier_init(&s.k_empty[i], kConsumers);
      ptx::barrier_init(&s.v_empty[i], kConsumers);
    }
    for (int i = 0; i < F::kQBuffers; ++i) {
      ptx::barrier_init(&s.q_full[i], kLoaderThreads);
      ptx::barrier_init(&s.q_empty[i], kConsumers);
    }
    for (int i = 0; i < kClaims; ++i) ptx::barrier_init(&s.claimed[i], 1);
    ptx::barrier_init_fence();
  }
  __syncthreads();
}

template <class F>
__global__ void __launch_bounds__(F::kThreads, 1)
    seg_attn_kernel(const __grid_constant__ Params p) {
  extern __shared__ uint8_t memory[];
  const uint32_t skip = -ptx::shared_address(memory) & 1023;  // the swizzle counts from 1024 bytes
  auto& s = *reinterpret_cast<Shared<F>*>(memory + skip);
  start_next_kernel();
  begin_block<F>(p, s);
  if constexpr (!F::kStartsEarly) await_kernel_before();
  if (threadIdx.x == 32) ptx::prefetch(p.items + blockIdx.x);
  if (threadIdx.x < 128) {
    if constexpr (F::kWarpgroups == 2) ptx::give_registers<72>();
    if (threadIdx.x < 32) {
      Producer<F>{p, s}.run();
    } else {
      Loader<F>{p, s}.run();
    }
  } else {
    if constexpr (F::kWarpgroups == 2) ptx::take_registers<216>();
    Consumer<F>{p, s}.run();
  }
}

/// Describes boxes of `pages` pages of the pool to the copy engine; false if it cannot.
bool map_pages(CUtensorMap* map, const View& pool, int pages);

template <class F>
Status launch(const SegAttnCudaArgs& a, Params& p, Stream stream) {
  if (!map_pages(&p.k_page, a.k_pages, 1) || !map_pages(&p.v_page, a.v_pages, 1) ||
      !map_pages(&p.k_pages, a.k_pages, F::kPages) ||
      !map_pages(&p.v_pages, a.v_pages, F::kPages)) {
    return unimplemented("seg_attn=sm90: the copy engine cannot describe pages of ",
                         a.k_pages.stride[0], " elements");
  }
  constexpr int kBytes = sizeof(Shared<F>) + 1024;
  static_assert(kBytes <= 232448, "more shared memory than a block of sm_90 can have");
  static const int num_sms = [] {
    int device = 0, sms = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    cudaFuncSetAttribute(seg_attn_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    return sms;
  }();
  const int blocks = std::min(num_sms, a.max_items);
  return launch_early("seg_attn_sm90", seg_attn_kernel<F>, static_cast<unsigned>(blocks),
                      F::kThreads, kBytes, stream, p);
}

template <class T>
Status launch_of(const SegAttnCudaArgs& a, Params& p, Stream stream) {
  const bool few = a.max_item_rows <= 64;
  switch (a.q.dim[2]) {
    case 64:
      return few ? launch<Form<T, 64, 1>>(a, p, stream) : launch<Form<T, 64, 2>>(a, p, stream);
    case 128:
      return few ? launch<Form<T, 128, 1>>(a, p, stream) : launch<Form<T, 128, 2>>(a, p, stream);
    case 256:
      return few ? launch<Form<T, 256, 1>>(a, p, stream) : launch<Form<T, 256, 2>>(a, p, stream);
    default:
      return unimplemented("seg_attn=sm90: head dim ", a.q.dim[2], ", known are 64, 128, 256");
  }
}

Status launch_bf16(const SegAttnCudaArgs& a, Params& p, Stream stream);
Status launch_f16(const SegAttnCudaArgs& a, Params& p, Stream stream);

}  // namespace rk::kernels::sm90
