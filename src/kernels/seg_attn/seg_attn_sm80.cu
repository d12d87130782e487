// The portable variant of SegPagedAttention: mma.sync, ldmatrix and cp.async, so it runs on every
// card from compute capability 8.0 on. A persistent grid takes items in the plan's order; items of
// few rows and of many take different paths (seg_attn_sm80_{few,many}.cuh). Decode alone has a
// kernel of its own, which needs fewer registers and so keeps more copies in flight.
#include <algorithm>
#include <atomic>

#include "kernels/cuda/launch.cuh"
#include "kernels/seg_attn/seg_attn_cuda_variants.h"
#include "kernels/seg_attn/seg_attn_sm80_few.cuh"
#include "kernels/seg_attn/seg_attn_sm80_many.cuh"

namespace rk::kernels {
namespace sm80 {

// One block of the persistent grid: `work_on` is called with every item that it takes.
template <class T, class F>
__device__ __forceinline__ void for_each_item(const Params<T>& a, Work& work, int& next,
                                              F&& work_on) {
  const int count = a.counts[0];
  for (int index = blockIdx.x; index < count; index = next) {
    int claimed = 0;
    if (threadIdx.x == 0) {
      open_work(a, index, &work);
      claimed = atomicAdd(a.next_item, 1);  // as many claims as items; the last one resets
      if (claimed == count - 1) *a.next_item = 0;
    }
    __syncthreads();
    work_on();
    if (threadIdx.x == 0) next = claimed + static_cast<int>(gridDim.x);
    __syncthreads();
  }
}

// Lets the merge's blocks be launched; they wait for the end of this grid before they read.
__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

template <class T, int D, int kWarps, int kRing, int kBlocks>
__global__ void __launch_bounds__(kWarps * 32, kBlocks)
    seg_attn_sm80_many(const __grid_constant__ Params<T> a) {
  extern __shared__ __align__(512) char memory[];  // aligned to a row, for fragment addresses
  __shared__ Work work;
  __shared__ __align__(16) char planner[sizeof(TilePlanner)];
  __shared__ int next;
  allow_next_kernel();
  for_each_item(a, work, next, [&] {
    Many<T, D, kWarps, kRing>{a, work, memory, memory + kSegAttnTileRows * D * 2,
                              *reinterpret_cast<TilePlanner*>(planner)}
        .run();
  });
}

template <class T, int D, int kWarps, int kRing, int kBlocks>
__global__ void __launch_bounds__(kWarps * 32, kBlocks)
    seg_attn_sm80_few(const __grid_constant__ Params<T> a) {
  extern __shared__ __align__(512) char memory[];
  __shared__ Work work;
  __shared__ __align__(16) char shared[sizeof(FewShared<kWarps>)];
  __shared__ int next;
  allow_next_kernel();
  for_each_item(a, work, next, [&] {
    Few<T, D, kWarps, kRing>{a, work, memory, memory + kWarps * kFewRows * D * 2,
                             *reinterpret_cast<FewShared<kWarps>*>(shared)}
        .run();
  });
}

constexpr int kMaxCards = 64;

// Blocks of the kernel that the current card holds at once; 0 where it lacks the shared memory.
template <class Kernel>
cudaError_t resident_blocks(Kernel kernel, int threads, int bytes, int* blocks) {
  int card = 0, num_sms = 0, per_sm = 0, most = 0;
  cudaError_t error = cudaGetDevice(&card);
  if (error != cudaSuccess) return error;
  cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, card);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, card);
  *blocks = 0;
  cudaFuncAttributes attributes;
  error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  if (bytes + static_cast<int>(attributes.sharedSizeBytes) > most) return cudaSuccess;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel, threads, bytes);
  *blocks = per_sm * num_sms;
  return error;
}

template <auto kKernel, class T>
Status launch(const Params<T>& params, int threads, int bytes, int max_items, cudaStream_t stream) {
  static std::atomic<int> known[kMaxCards];  // blocks of each card, once asked
  int card = 0;
  cudaError_t error = cudaGetDevice(&card);
  int blocks = error == cudaSuccess ? known[card % kMaxCards].load() : 0;
  if (error == cudaSuccess && blocks == 0) {
    error = resident_blocks(kKernel, threads, bytes, &blocks);
    if (error == cudaSuccess && blocks == 0) {
      return unimplemented("seg_attn: sm80: a block needs ", bytes,
                           " bytes of shared memory, more than this card has");
    }
    known[card % kMaxCards].store(blocks);
  }
  if (error != cudaSuccess) return internal("cuda: seg_attn_sm80: ", cudaGetErrorString(error));
  kKernel<<<std::min(blocks, max_items), threads, bytes, stream>>>(params);
  return cuda_status("seg_attn_sm80");
}

template <class T, int D, int kWarps, int kRing, int kBlocks>
Status launch_many(const Params<T>& params, int max_items, cudaStream_t stream) {
  constexpr int kBytes = (kSegAttnTileRows + kRing * kTileKeys) * D * 2;
  return launch<seg_attn_sm80_many<T, D, kWarps, kRing, kBlocks>>(params, kWarps * 32, kBytes,
                                                                  max_items, stream);
}
template <class T, int D, int kWarps, int kRing, int kBlocks>
Status launch_few(const Params<T>& params, int max_items, cudaStream_t stream) {
  constexpr int kBytes = kWarps * (kFewRows + kRing * kPageRows) * D * 2;
  return launch<seg_attn_sm80_few<T, D, kWarps, kRing, kBlocks>>(params, kWarps * 32, kBytes,
                                                                 max_items, stream);
}

template <class T>
Status run(const SegAttnCudaArgs& a, cudaStream_t stream) {
  Params<T> p{};
  p.q = a.q.ptr<const T>();
  p.k = a.k_pages.ptr<const T>();
  p.v = a.v_pages.ptr<const T>();
  p.o = a.o.ptr<T>();
  p.lse = a.lse;
  p.q_stride = a.q.stride[0];
  p.k_stride = a.k_pages.stride[0];
  p.v_stride = a.v_pages.stride[0];
  p.o_stride = a.o.stride[0];
  p.q_pos = a.q_pos;
  p.sequences = a.sequences;
  p.items = a.items;
  p.counts = a.counts;
  p.next_item = a.next_item;
  p.part_o = a.part_o;
  p.part_lse = a.part_lse;
  p.cos = a.rope.cos;
  p.sin = a.rope.sin;
  p.rotary_dim = a.rope.rotary_dim;
  p.half_split = a.rope.pairs == RopePairs::kHalfSplit;
  p.layer = a.layer;
  p.num_kv_heads = a.num_kv_heads;
  p.group = static_cast<int>(a.q.dim[1]) / a.num_kv_heads;
  p.scale_log2 = a.scale * 1.44269504088896F;
  const int64_t dim = a.q.dim[2];
  if (a.max_item_rows <= kFewRows) {
    const Status status = dim == 64    ? launch_few<T, 64, 8, 6, 2>(p, a.max_items, stream)
                          : dim == 128 ? launch_few<T, 128, 8, 4, 1>(p, a.max_items, stream)
                                       : launch_few<T, 256, 4, 4, 1>(p, a.max_items, stream);
    if (status.code() != Code::kUnimplemented) return status;
  }
  return dim == 64    ? launch_many<T, 64, 4, 6, 3>(p, a.max_items, stream)
         : dim == 128 ? launch_many<T, 128, 4, 4, 2>(p, a.max_items, stream)
                      : launch_many<T, 256, 8, 3, 1>(p, a.max_items, stream);
}

}  // namespace sm80

Status seg_attn_sm80(const SegAttnCudaArgs& args, Stream stream) {
  if (args.max_items == 0) return {};
  if (args.q.dtype == DType::kF16) return sm80::run<__half>(args, stream);
  return sm80::run<__nv_bfloat16>(args, stream);
}

}  // namespace rk::kernels
