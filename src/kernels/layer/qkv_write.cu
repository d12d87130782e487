// What follows the QKV projection, in one pass: D / 8 lanes own one head of one row, 8 elements
// each, so that a head is read and written with 16-byte accesses and never leaves the registers but
// for the turn by half a head, which goes through shared memory.
#include <cuda_bf16.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/layer/layer_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 256;

struct Params {
  __nv_bfloat16* qkv;
  int64_t qkv_stride, num_items;
  int num_heads, num_kv_heads, layer, first_head, heads_a_row;
  const float *q_norm, *k_norm;
  float eps;
  const int32_t *row_index, *sequence, *page_index, *page_slot;
  const uint8_t* in_stored;
  const DeviceSequence* sequences;
  RopeView rope;
  __nv_bfloat16 *k_pages, *v_pages;
  int64_t page_stride, row_stride;
};

__device__ __forceinline__ void load_8(const __nv_bfloat16* from, float (&x)[8]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_pair<__nv_bfloat16>(words[i]);
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
}
__device__ __forceinline__ void store_8(__nv_bfloat16* to, const float (&x)[8]) {
  *reinterpret_cast<uint4*>(to) = {
      pack_pair<__nv_bfloat16>(x[0], x[1]), pack_pair<__nv_bfloat16>(x[2], x[3]),
      pack_pair<__nv_bfloat16>(x[4], x[5]), pack_pair<__nv_bfloat16>(x[6], x[7])};
}

template <int kLanes>
__device__ __forceinline__ void norm_8(float (&x)[8], const float* weight, float eps) {
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += x[i] * x[i];
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
  const float scale = rsqrtf(sum / static_cast<float>(8 * kLanes) + eps);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] *= scale * weight[i];
}

// Turns elements d .. d+7 of a head; `head` is this head's place in shared memory.
__device__ __forceinline__ void rotate_8(float (&x)[8], float* head, int d, int row,
                                         const RopeView& rope) {
  const int half = rope.rotary_dim / 2;
  const float* cos = rope.cos + int64_t{row} * half;
  const float* sin = rope.sin + int64_t{row} * half;
  if (rope.pairs == RopePairs::kInterleaved) {
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const int pair = (d + i) / 2;
      if (pair >= half) continue;
      const float a = x[i], b = x[i + 1], c = cos[pair], s = sin[pair];
      x[i] = a * c - b * s;
      x[i + 1] = b * c + a * s;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) head[d + i] = x[i];
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int at = d + i;
    if (at >= 2 * half) continue;
    const int pair = at < half ? at : at - half;
    const float other = at < half ? -head[at + half] : head[at - half];
    x[i] = x[i] * cos[pair] + other * sin[pair];
  }
}

// Items are (row, head) with the row's heads side by side: q heads where they are normed, k, v.
template <int kLanes>
__global__ void __launch_bounds__(kThreads) qkv_write_kernel(const Params p) {
  __shared__ float turned[kThreads * 8];
  start_next_kernel();
  const int64_t first = int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes;
  const bool live = first < p.num_items;
  const int64_t item = live ? first : 0;  // a whole warp takes part in the shuffles
  const int64_t t = item / p.heads_a_row;
  const int head = p.first_head + static_cast<int>(item % p.heads_a_row);
  const int d = threadIdx.x % kLanes * 8;
  __nv_bfloat16* from = p.qkv + t * p.qkv_stride + int64_t{head} * (8 * kLanes) + d;
  const bool is_q = head < p.num_heads;
  const bool is_k = !is_q && head < p.num_heads + p.num_kv_heads;
  // Where the row goes was known before the step: looked up while the product before still runs.
  const int sequence = p.sequence[t], row_index = is_k ? p.row_index[t] : 0;
  int64_t page = -1, slot = 0;
  if (!is_q && live && sequence >= 0) {
    const int g = head - p.num_heads - (is_k ? 0 : p.num_kv_heads);
    const DeviceSequence& s = p.sequences[sequence];
    const int64_t kv_head = int64_t{p.layer} * p.num_kv_heads + g;
    const bool stays =
        p.in_stored != nullptr && p.in_stored[t] != 0 && s.keeps_stored[kv_head] != 0;
    if (!stays) page = s.pages[kv_head * s.page_stride + p.page_index[t]];
    slot = p.page_slot[t];
  }
  await_kernel_before();
  float x[8];
  load_8(from, x);
  const float* weight = is_q ? p.q_norm : is_k ? p.k_norm : nullptr;
  if (__any_sync(~0U, weight != nullptr)) {
    float normed[8], ones[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      normed[i] = x[i];
      ones[i] = weight != nullptr ? weight[d + i] : 1.0F;
    }
    norm_8<kLanes>(normed, ones, p.eps);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = weight != nullptr ? normed[i] : x[i];
  }
  if (is_q && live && sequence >= 0) store_8(from, x);
  if (__any_sync(~0U, is_k) && p.rope.rotary_dim > 0) {
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = x[i];
    rotate_8(y, turned + threadIdx.x / kLanes * (8 * kLanes), d, row_index, p.rope);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = is_k ? y[i] : x[i];
  }
  if (page < 0) return;
  store_8((is_k ? p.k_pages : p.v_pages) + page * p.page_stride + slot * p.row_stride + d, x);
}

Status check(const QkvWriteCudaArgs& a) {
  const View& q = a.qkv;
  const int64_t width = int64_t{a.num_heads + 2 * a.num_kv_heads} * a.head_dim;
  if (q.rank != 2 || q.dtype != DType::kBf16 || q.dim[1] != width || q.stride[1] != 1 ||
      q.stride[0] % 8 != 0) {
    return invalid_argument("qkv_write_cuda: qkv must be bf16 [T, ", width,
                            "] with rows at multiples of 8, is ", q.describe());
  }
  for (const View& pages : {a.k_pages, a.v_pages}) {
    if (pages.rank != 3 || pages.dtype != DType::kBf16 || pages.dim[2] != a.head_dim ||
        pages.stride[2] != 1 || pages.stride != a.k_pages.stride) {
      return invalid_argument("qkv_write_cuda: pages must be bf16 [N, P, ", a.head_dim, "], are ",
                              pages.describe());
    }
  }
  if (a.rope.rotary_dim < 0 || a.rope.rotary_dim > a.head_dim || a.rope.rotary_dim % 2 != 0) {
    return invalid_argument("qkv_write_cuda: rotary_dim ", a.rope.rotary_dim,
                            " does not fit head dim ", a.head_dim);
  }
  return {};
}

}  // namespace

Status qkv_write_cuda(const QkvWriteCudaArgs& a, Stream stream) {
  RK_RETURN_IF_ERROR(check(a));
  Params p{.qkv = a.qkv.ptr<__nv_bfloat16>(),
           .qkv_stride = a.qkv.stride[0],
           .num_heads = a.num_heads,
           .num_kv_heads = a.num_kv_heads,
           .layer = a.layer,
           .first_head = a.q_norm != nullptr ? 0 : a.num_heads,
           .q_norm = a.q_norm,
           .k_norm = a.k_norm,
           .eps = a.eps,
           .row_index = a.row_index,
           .sequence = a.sequence,
           .page_index = a.page_index,
           .page_slot = a.page_slot,
           .in_stored = a.in_stored,
           .sequences = a.sequences,
           .rope = a.rope,
           .k_pages = a.k_pages.ptr<__nv_bfloat16>(),
           .v_pages = a.v_pages.ptr<__nv_bfloat16>(),
           .page_stride = a.k_pages.stride[0],
           .row_stride = a.k_pages.stride[1]};
  p.heads_a_row = a.num_heads + 2 * a.num_kv_heads - p.first_head;
  p.num_items = a.qkv.dim[0] * p.heads_a_row;
  if (p.num_items == 0) return {};
  const int lanes = a.head_dim / 8;
  const unsigned grid = blocks_for(p.num_items, kThreads / (lanes > 0 ? lanes : 1));
  const auto run = [&](auto kernel) {
    return launch_early("qkv_write", kernel, grid, kThreads, 0, stream, p);
  };
  switch (a.head_dim) {
    case 64:
      return run(qkv_write_kernel<8>);
    case 128:
      return run(qkv_write_kernel<16>);
    case 256:
      return run(qkv_write_kernel<32>);
    default:
      return unimplemented("qkv_write_cuda: head dim ", a.head_dim, "; 64, 128 and 256 are built");
  }
}

}  // namespace rk::kernels
