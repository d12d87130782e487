// o[row] = sum_i w_i part_o[i][row] / sum_i w_i,  w_i = exp(part_lse[i][row] - max), lse[row] = max
// + log(sum_i w_i): the parts of a split item become its output. One warp a row; rows that no part
// shows anything become 0.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/seg_attn/seg_attn_cuda_variants.h"

namespace rk::kernels {
namespace {

constexpr int kWarps = 8;                           // rows a block takes at once
constexpr int kSlices = kSegAttnTileRows / kWarps;  // blocks that share a merge
constexpr int kMaxBlocks = 512;

template <class T, int D>
__device__ void merge_row(const SegAttnMerge& merge, int row, const float* part_o,
                          const float* part_lse, T* to, float* lse) {
  const int lane = threadIdx.x % 32;
  const int64_t first = int64_t{merge.part} * kSegAttnTileRows + row;
  float top = -INFINITY;
  for (int i = lane; i < merge.num_parts; i += 32) {
    top = fmaxf(top, part_lse[first + int64_t{i} * kSegAttnTileRows]);
  }
#pragma unroll
  for (int i = 16; i > 0; i /= 2) top = fmaxf(top, __shfl_xor_sync(~0U, top, i));
  constexpr int kPairs = D / 64;  // pairs of elements a lane holds
  float2 out[kPairs] = {};
  float total = 0.0F;
  if (top != -INFINITY) {
#pragma unroll 4
    for (int i = 0; i < merge.num_parts; ++i) {
      const int64_t at = first + int64_t{i} * kSegAttnTileRows;
      const float weight = expf(part_lse[at] - top);
      total += weight;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const float2 x = reinterpret_cast<const float2*>(part_o + at * D)[p * 32 + lane];
        out[p].x += weight * x.x;
        out[p].y += weight * x.y;
      }
    }
  }
  if (lse != nullptr && lane == 0) *lse = total > 0.0F ? top + logf(total) : -INFINITY;
  const float inverse = total > 0.0F ? 1.0F / total : 0.0F;
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    reinterpret_cast<uint32_t*>(to)[p * 32 + lane] =
        pack_pair<T>(out[p].x * inverse, out[p].y * inverse);
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kWarps * 32)
    seg_attn_merge_kernel(const SegAttnMerge* __restrict__ merges,
                          const int32_t* __restrict__ counts,
                          const DeviceSequence* __restrict__ sequences,
                          const float* __restrict__ part_o, const float* __restrict__ part_lse,
                          T* __restrict__ o, int64_t o_stride, float* __restrict__ lse, int group,
                          int num_heads) {
  start_next_kernel();
  await_kernel_before();
  const int count = counts[1];
  for (int i = blockIdx.x; i < count; i += gridDim.x) {
    const SegAttnMerge merge = merges[i];
    const int row = blockIdx.y * kWarps + threadIdx.x / 32, m = merge.m_begin + row;
    if (m >= merge.m_end) continue;
    const int64_t token = sequences[merge.sequence].q_begin + m / group;
    const int head = merge.kv_head * group + m % group;
    merge_row<T, D>(merge, row, part_o, part_lse, o + token * o_stride + head * int64_t{D},
                    lse == nullptr ? nullptr : lse + token * num_heads + head);
  }
}

template <class T, int D>
Status launch(const SegAttnCudaArgs& a, cudaStream_t stream) {
  const int slices = std::min((a.max_item_rows + kWarps - 1) / kWarps, kSlices);
  const dim3 grid(std::min(a.max_merges, kMaxBlocks), slices);
  return launch_early("seg_attn_merge", seg_attn_merge_kernel<T, D>, grid, kWarps * 32, 0, stream,
                      a.merges, a.counts, a.sequences, static_cast<const float*>(a.part_o),
                      static_cast<const float*>(a.part_lse), a.o.ptr<T>(), a.o.stride[0], a.lse,
                      static_cast<int>(a.q.dim[1]) / a.num_kv_heads, static_cast<int>(a.q.dim[1]));
}

template <class T>
Status run(const SegAttnCudaArgs& a, cudaStream_t stream) {
  switch (a.q.dim[2]) {
    case 64:
      return launch<T, 64>(a, stream);
    case 128:
      return launch<T, 128>(a, stream);
    default:
      return launch<T, 256>(a, stream);
  }
}

}  // namespace

Status seg_attn_merge(const SegAttnCudaArgs& args, Stream stream) {
  if (args.max_merges == 0) return {};
  if (args.q.dtype == DType::kF16) return run<__half>(args, stream);
  return run<__nv_bfloat16>(args, stream);
}

}  // namespace rk::kernels
