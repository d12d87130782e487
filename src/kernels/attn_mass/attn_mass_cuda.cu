// Attention mass for every card from compute capability 8.0 on: scores are keys x queries, so a
// key's sum is a row sum that its warp keeps in registers. A warp owns 32 keys and, up to head dim
// 128, holds them as matrix fragments; tiles of queries pass through two buffers that all warps
// share, the next one rotated while this one is multiplied (docs/kernels.md).
#include <algorithm>

#include "kernels/attn_mass/attn_mass_cuda.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/seg_attn/seg_attn_sm80.cuh"

namespace rk::kernels {
namespace {

using sm80::chunk_offset;

constexpr int kWarpKeys = 32;
constexpr float kLog2E = 1.44269504088896F;

template <class T>
struct Params {
  const T *q, *k;
  int64_t q_stride, k_stride;  // of a token, of a page; elements
  const int32_t* q_pos;
  const float* lse;
  const DeviceSequence* sequence;
  const AttnMassTile* tiles;
  float* mass;
  int64_t mass_stride;
  const float *cos, *sin;
  int rotary_dim;
  bool half_split;
  int layer, num_kv_heads, group, num_rows;  // num_rows: packed, of a KV head
  float scale_log2;
};

template <int D>
struct Form {
  static constexpr int kKeys = attn_mass_tile_rows(D);
  static constexpr int kWarps = kKeys / kWarpKeys, kThreads = kWarps * 32;
  static constexpr int kQueries = D == 256 ? 32 : 64;  // of a buffer
  static constexpr bool kHeld = D <= 128;              // keys live in registers
  static constexpr int kKeyBytes = kKeys * D * 2, kQueryBytes = kQueries * D * 2;
  // Keys that are held leave their room to the queries.
  static constexpr int kBytes = kHeld ? std::max(kKeyBytes, 2 * kQueryBytes)  //
                                      : kKeyBytes + 2 * kQueryBytes;
  static constexpr int kBlocks = D == 256 ? 1 : 2;  // of a multiprocessor
};

template <int kQueries>
struct Shared {
  float lse[2][kQueries];  // times log2(e); +inf: the query adds nothing
  int q_pos[2][kQueries];
};

template <class T, int D>
struct Block {
  using F = Form<D>;
  static constexpr int kChunks = D / 8, kSteps = D / 16;

  const Params<T>& a;
  Shared<F::kQueries>& shared;
  char* keys;
  char* queries;  // two buffers
  int kv_head;
  AttnMassTile tile;
  Run run;
  HeadSight sight;
  const int32_t* pages;  // of the run's first row on
  int lo, hi;            // rows of the tile that the run has

  uint32_t held[2][F::kHeld ? kSteps : 1][4];
  float sum[2][2];

  __device__ __forceinline__ int warp_row() const { return threadIdx.x / 32 * kWarpKeys; }
  __device__ __forceinline__ int position(int row) const {
    return run.offset + tile.first_row + row;
  }

  /// The first tile of queries from `from` on that sees a row; `all`: every pair of it is visible.
  __device__ __forceinline__ int next_seen(int from, bool* all) const {
    const int first = position(lo), last = position(hi - 1);
    const int num = (a.num_rows + F::kQueries - 1) / F::kQueries;
    for (int i = from; i < num; ++i) {
      const int p_min = a.q_pos[i * F::kQueries / a.group];
      const int p_max = a.q_pos[(min((i + 1) * F::kQueries, a.num_rows) - 1) / a.group];
      const bool full = sight.window < 0;
      if (first > p_max) continue;
      if (!full && first >= sight.sink && last <= p_min - sight.window) continue;
      *all = last <= p_min && (full || last < sight.sink || first > p_max - sight.window);
      return i;
    }
    return num;
  }

  __device__ __forceinline__ void load_keys() const {
    const uint32_t to = shared_address(keys);
#pragma unroll 4
    for (int i = 0; i < F::kKeys * kChunks / F::kThreads; ++i) {
      const int unit = threadIdx.x + i * F::kThreads, row = unit / kChunks, chunk = unit % kChunks;
      int page = -1;
      if (row >= lo && row < hi) page = pages[(tile.first_row + row) / kPageRows];
      const T* from = a.k + (page < 0 ? 0 : page * a.k_stride + row % kPageRows * D + chunk * 8);
      copy_async_16(to + chunk_offset<D>(row, chunk), from, page >= 0);
    }
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
  }
  __device__ __forceinline__ void load_fragment(int block, int d, uint32_t (&to)[4]) const {
    const int lane = threadIdx.x % 32;
    load_matrices(to, shared_address(keys) +
                          chunk_offset<D>(warp_row() + block * 16 + lane % 16, 2 * d + lane / 16));
  }
  __device__ __forceinline__ void hold_keys() {
#pragma unroll
    for (int block = 0; block < 2; ++block) {
#pragma unroll
      for (int d = 0; d < kSteps; ++d) load_fragment(block, d, held[block][d]);
    }
    __syncthreads();  // queries come where the keys lay
  }

  /// Brings a tile of queries, turned by their distance to the run; rows beyond the last are zeros.
  __device__ __forceinline__ void load_queries(int index, int buffer) const {
    char* to = queries + buffer * F::kQueryBytes;
    const int first = index * F::kQueries;
#pragma unroll 2
    for (int unit = threadIdx.x; unit < F::kQueries * kChunks; unit += F::kThreads) {
      const int row = unit / kChunks, chunk = unit % kChunks, m = first + row;
      uint4 value = {0, 0, 0, 0};
      if (m < a.num_rows) {
        const int token = m / a.group, head = kv_head * a.group + m % a.group;
        value = sm80::rotated_chunk<T, D>(a, a.q + token * a.q_stride + head * int64_t{D}, chunk,
                                          max(a.q_pos[token] - run.offset, 0));
      }
      *reinterpret_cast<uint4*>(to + chunk_offset<D>(row, chunk)) = value;
    }
    if (threadIdx.x < F::kQueries) {
      const int m = first + static_cast<int>(threadIdx.x);
      float lse = -INFINITY;
      int q_pos = -1;
      if (m < a.num_rows) {
        const int64_t token = m / a.group;
        lse = a.lse[(token * a.num_kv_heads + kv_head) * a.group + m % a.group];
        q_pos = a.q_pos[token];
      }
      shared.lse[buffer][threadIdx.x] = lse == -INFINITY ? INFINITY : lse * kLog2E;
      shared.q_pos[buffer][threadIdx.x] = q_pos;
    }
  }

  __device__ __forceinline__ bool visible(int at, int q_pos) const {
    return at <= q_pos && (sight.window < 0 || at < sight.sink || at > q_pos - sight.window);
  }

  /// Adds the weights of 32 queries on this warp's keys.
  template <bool kAll>
  __device__ __forceinline__ void add(const float (&s)[2][4][4], int buffer, int first) {
    const int lane = threadIdx.x % 32, top = position(warp_row() + lane / 4);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int column = first + n * 8 + lane % 4 * 2;
      const float2 lse = *reinterpret_cast<const float2*>(&shared.lse[buffer][column]);
      const int2 q_pos = *reinterpret_cast<const int2*>(&shared.q_pos[buffer][column]);
#pragma unroll
      for (int block = 0; block < 2; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float p =
              fast_exp2(fmaf(s[block][n][i], a.scale_log2, -(i % 2 == 0 ? lse.x : lse.y)));
          const int at = top + block * 16 + i / 2 * 8;
          if (kAll || visible(at, i % 2 == 0 ? q_pos.x : q_pos.y)) sum[block][i / 2] += p;
        }
      }
    }
  }

  __device__ __forceinline__ void multiply(int buffer, bool all) {
    const int lane = threadIdx.x % 32;
    const uint32_t from = shared_address(queries + buffer * F::kQueryBytes);
#pragma unroll
    for (int first = 0; first < F::kQueries; first += 32) {
      float s[2][4][4];
#pragma unroll
      for (int i = 0; i < 32; ++i) s[i / 16][i / 4 % 4][i % 4] = 0.0F;
#pragma unroll
      for (int d = 0; d < kSteps; ++d) {
        uint32_t loaded[2][4];
        if constexpr (!F::kHeld) {
          load_fragment(0, d, loaded[0]);
          load_fragment(1, d, loaded[1]);
        }
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          uint32_t b[4];
          load_matrices(b, from + chunk_offset<D>(first + n * 16 + lane % 8 + lane / 16 * 8,
                                                  2 * d + lane / 8 % 2));
#pragma unroll
          for (int block = 0; block < 2; ++block) {
            const uint32_t(&k)[4] = F::kHeld ? held[block][F::kHeld ? d : 0] : loaded[block];
            mma_16816<T>(s[block][2 * n], k, b[0], b[1]);
            mma_16816<T>(s[block][2 * n + 1], k, b[2], b[3]);
          }
        }
      }
      if (all) {
        add<true>(s, buffer, first);
      } else {
        add<false>(s, buffer, first);
      }
    }
  }

  __device__ __forceinline__ void run_tile() {
    const int num = (a.num_rows + F::kQueries - 1) / F::kQueries;
    bool all = false;
    int index = next_seen(0, &all);
    if (index == num) return;
    for (int i = 0; i < 4; ++i) sum[i / 2][i % 2] = 0.0F;
    load_keys();
    if constexpr (F::kHeld) hold_keys();
    load_queries(index, 0);
    __syncthreads();
    for (int buffer = 0; index < num; buffer ^= 1) {
      bool next_all = false;
      const int next = next_seen(index + 1, &next_all);
      if (next < num) load_queries(next, buffer ^ 1);
      multiply(buffer, all);
      __syncthreads();
      index = next;
      all = next_all;
    }
    store();
  }

  __device__ __forceinline__ void store() const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float total = sum[i / 2][i % 2];
      total += __shfl_xor_sync(~0U, total, 1);
      total += __shfl_xor_sync(~0U, total, 2);
      const int row = warp_row() + i * 8 + lane / 4;
      if (lane % 4 == 0 && row >= lo && row < hi) {
        a.mass[kv_head * a.mass_stride + position(row)] += total;
      }
    }
  }
};

template <class T, int D>
__global__ void __launch_bounds__(Form<D>::kThreads, Form<D>::kBlocks)
    attn_mass_kernel(const __grid_constant__ Params<T> a) {
  using F = Form<D>;
  extern __shared__ __align__(512) char memory[];
  __shared__ __align__(16) Shared<F::kQueries> shared;
  const int kv_head = static_cast<int>(blockIdx.y), head = a.layer * a.num_kv_heads + kv_head;
  Block<T, D> block{a, shared, memory, F::kHeld ? memory : memory + F::kKeyBytes, kv_head};
  block.tile = a.tiles[blockIdx.x];
  block.run = a.sequence->runs[block.tile.run];
  block.sight = a.sequence->sight[head];
  block.pages = a.sequence->pages + head * a.sequence->page_stride + block.run.first_page -
                block.run.row_begin / kPageRows;
  block.lo = max(block.run.row_begin - block.tile.first_row, 0);
  // No query sees what is behind the last one, and it need not be on a page.
  const int last = a.q_pos[(a.num_rows - 1) / a.group] - block.run.offset;
  block.hi = min(min(block.run.row_end, last + 1) - block.tile.first_row, F::kKeys);
  if (block.lo >= block.hi) return;
  block.run_tile();
}

template <class T, int D>
Status launch(const AttnMassCudaArgs& args, const Params<T>& params, Stream stream) {
  const auto kernel = attn_mass_kernel<T, D>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Form<D>::kBytes);
  if (error != cudaSuccess) return internal("cuda: attn_mass: ", cudaGetErrorString(error));
  const dim3 grid(static_cast<unsigned>(args.num_tiles), static_cast<unsigned>(args.num_kv_heads));
  kernel<<<grid, Form<D>::kThreads, Form<D>::kBytes, stream>>>(params);
  return cuda_status("attn_mass");
}

template <class T>
Status run(const AttnMassCudaArgs& args, Stream stream) {
  Params<T> p = {};
  p.q = args.q.ptr<T>();
  p.k = args.k_pages.ptr<T>();
  p.q_stride = args.q.stride[0];
  p.k_stride = args.k_pages.stride[0];
  p.q_pos = args.q_pos;
  p.lse = args.lse;
  p.sequence = args.sequence;
  p.tiles = args.tiles;
  p.mass = args.mass;
  p.mass_stride = args.mass_stride;
  p.cos = args.rope.cos;
  p.sin = args.rope.sin;
  p.rotary_dim = args.rope.rotary_dim;
  p.half_split = args.rope.pairs == RopePairs::kHalfSplit;
  p.layer = args.layer;
  p.num_kv_heads = args.num_kv_heads;
  p.group = static_cast<int>(args.q.dim[1]) / args.num_kv_heads;
  p.num_rows = static_cast<int>(args.q.dim[0]) * p.group;
  p.scale_log2 = args.scale * kLog2E;
  switch (args.q.dim[2]) {
    case 64:
      return launch<T, 64>(args, p, stream);
    case 128:
      return launch<T, 128>(args, p, stream);
    default:
      return launch<T, 256>(args, p, stream);
  }
}

bool dense_rows(const View& v) {
  return v.rank == 3 && v.stride[2] == 1 && v.stride[1] == v.dim[2] && v.stride[0] % 8 == 0 &&
         reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
}

Status check(const AttnMassCudaArgs& a) {
  const int64_t dim = a.q.dim[2];
  if ((a.q.dtype != DType::kBf16 && a.q.dtype != DType::kF16) || !dense_rows(a.q) ||
      (dim != 64 && dim != 128 && dim != 256) || !dense_rows(a.k_pages) ||
      a.k_pages.dim[1] != kPageRows || a.k_pages.dim[2] != dim || a.k_pages.dtype != a.q.dtype) {
    return invalid_argument("attn_mass_cuda: q ", a.q.describe(), ", k_pages ",
                            a.k_pages.describe(), "; wanted bf16 or f16 [T, H, 64|128|256] and ",
                            "pages of 16 rows of its dtype, 16-byte aligned");
  }
  if (a.num_kv_heads < 1 || a.q.dim[1] % a.num_kv_heads != 0 || a.layer < 0) {
    return invalid_argument("attn_mass_cuda: layer ", a.layer, ", ", a.num_kv_heads,
                            " KV heads for ", a.q.dim[1], " query heads");
  }
  const int rotary_dim = a.rope.rotary_dim;
  if (rotary_dim < 0 || rotary_dim % 2 != 0 || rotary_dim > dim ||
      (rotary_dim > 0 && (a.rope.cos == nullptr || a.rope.sin == nullptr))) {
    return invalid_argument("attn_mass_cuda: rotary_dim ", rotary_dim, " for head dim ", dim);
  }
  if (a.q_pos == nullptr || a.lse == nullptr || a.sequence == nullptr || a.tiles == nullptr ||
      a.mass == nullptr || a.mass_stride < 1) {
    return invalid_argument("attn_mass_cuda: queries' positions, lse, their sequence, tiles or ",
                            "mass is missing");
  }
  return {};
}

}  // namespace

Status attn_mass_cuda(const AttnMassCudaArgs& args, Stream stream) {
  if (args.num_tiles == 0 || args.q.dim[0] == 0) return {};
  RK_RETURN_IF_ERROR(check(args));
  if (args.q.dtype == DType::kF16) return run<__half>(args, stream);
  return run<__nv_bfloat16>(args, stream);
}

}  // namespace rk::kernels
