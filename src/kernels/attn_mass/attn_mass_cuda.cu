// Attention mass for every card from compute capability 8.0 on: scores are keys x queries, so a
// key's sum is a row sum that its warp keeps in registers. A warp owns 32 keys and holds them as
// matrix fragments; tiles of queries pass through two buffers that all warps share, the next one
// rotated while this one is multiplied (docs/kernels.md).
#include <algorithm>

#include "kernels/attn_mass/attn_mass_cuda.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/seg_attn/head_rows.h"
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
  static constexpr int kQueries = 64;  // of a buffer
  static constexpr int kQueryBytes = kQueries * D * 2;
  // Keys pass to registers through the memory that queries take then.
  static constexpr int kBytes = std::max(kKeys * D * 2, 2 * kQueryBytes);
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
  char* queries;  // two buffers; keys come this way before
  int kv_head;
  AttnMassTile tile;
  Run run;
  HeadSight sight;
  const int32_t* pages;  // of the run's first row on
  int lo, hi;            // rows of the tile that the run has

  uint32_t held[2][kSteps][4];
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
    const uint32_t to = shared_address(queries);
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
  __device__ __forceinline__ void hold_keys() {
    const int lane = threadIdx.x % 32;
    const uint32_t from = shared_address(queries);
#pragma unroll
    for (int block = 0; block < 2; ++block) {
#pragma unroll
      for (int d = 0; d < kSteps; ++d) {
        load_matrices(held[block][d], from + chunk_offset<D>(warp_row() + block * 16 + lane % 16,
                                                             2 * d + lane / 16));
      }
    }
    __syncthreads();  // queries come where the keys lay
  }

  /// Chunk `chunk` of the lower half of a row and its partner in the upper half, turned.
  __device__ __forceinline__ void turn_pair(const T* from, int chunk, const float* cos,
                                            const float* sin, char* to, int row) const {
    const uint4 low = reinterpret_cast<const uint4*>(from)[chunk];
    const uint4 high = reinterpret_cast<const uint4*>(from)[chunk + kChunks / 2];
    const uint32_t x[4] = {low.x, low.y, low.z, low.w}, y[4] = {high.x, high.y, high.z, high.w};
    float4 c[2], s[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      c[i] = reinterpret_cast<const float4*>(cos)[2 * chunk + i];
      s[i] = reinterpret_cast<const float4*>(sin)[2 * chunk + i];
    }
    uint32_t out[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 a0 = unpack_pair<T>(x[i]), b0 = unpack_pair<T>(y[i]);
      const float c0 = i % 2 == 0 ? c[i / 2].x : c[i / 2].z;
      const float c1 = i % 2 == 0 ? c[i / 2].y : c[i / 2].w;
      const float s0 = i % 2 == 0 ? s[i / 2].x : s[i / 2].z;
      const float s1 = i % 2 == 0 ? s[i / 2].y : s[i / 2].w;
      out[0][i] = pack_pair<T>(a0.x * c0 - b0.x * s0, a0.y * c1 - b0.y * s1);
      out[1][i] = pack_pair<T>(b0.x * c0 + a0.x * s0, b0.y * c1 + a0.y * s1);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<uint4*>(to + chunk_offset<D>(row, chunk + half * kChunks / 2)) = {
          out[half][0], out[half][1], out[half][2], out[half][3]};
    }
  }

  /// Brings a tile of queries, turned by their distance to the run; rows beyond the last are zeros.
  /// A row has as many threads as there are for it.
  __device__ __forceinline__ void load_queries(int index, int buffer) const {
    constexpr int kRowThreads = F::kThreads / F::kQueries;
    char* to = queries + buffer * F::kQueryBytes;
    const int row = threadIdx.x / kRowThreads, part = threadIdx.x % kRowThreads;
    const int m = index * F::kQueries + row;
    if (m >= a.num_rows) {
      for (int i = part; i < kChunks; i += kRowThreads) {
        *reinterpret_cast<uint4*>(to + chunk_offset<D>(row, i)) = {0, 0, 0, 0};
      }
      if (part == 0) shared.lse[buffer][row] = INFINITY, shared.q_pos[buffer][row] = -1;
      return;
    }
    const int token = m / a.group, head = kv_head * a.group + m % a.group;
    const int q_pos = a.q_pos[token], distance = max(q_pos - run.offset, 0);
    const T* from = a.q + token * a.q_stride + head * int64_t{D};
    if (part == 0) {
      const float lse = a.lse[token * (int64_t{a.num_kv_heads} * a.group) + head];
      shared.lse[buffer][row] = lse == -INFINITY ? INFINITY : lse * kLog2E;
      shared.q_pos[buffer][row] = q_pos;
    }
    if (a.half_split && a.rotary_dim == D) {
      const float* cos = a.cos + int64_t{distance} * (D / 2);
      const float* sin = a.sin + int64_t{distance} * (D / 2);
#pragma unroll
      for (int i = 0; i < kChunks / 2; i += kRowThreads) {
        turn_pair(from, i + part, cos, sin, to, row);
      }
    } else {
      for (int i = part; i < kChunks; i += kRowThreads) {
        *reinterpret_cast<uint4*>(to + chunk_offset<D>(row, i)) =
            sm80::rotated_chunk<T, D>(a, from, i, distance);
      }
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
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          uint32_t b[4];
          load_matrices(b, from + chunk_offset<D>(first + n * 16 + lane % 8 + lane / 16 * 8,
                                                  2 * d + lane / 8 % 2));
#pragma unroll
          for (int block = 0; block < 2; ++block) {
            mma_16816<T>(s[block][2 * n], held[block][d], b[0], b[1]);
            mma_16816<T>(s[block][2 * n + 1], held[block][d], b[2], b[3]);
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
    hold_keys();
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
__global__ void __launch_bounds__(Form<D>::kThreads, 2)
    attn_mass_kernel(const __grid_constant__ Params<T> a) {
  using F = Form<D>;
  extern __shared__ __align__(512) char memory[];
  __shared__ __align__(16) Shared<F::kQueries> shared;
  const int kv_head = static_cast<int>(blockIdx.y), head = a.layer * a.num_kv_heads + kv_head;
  Block<T, D> block{a, shared, memory, kv_head};
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

Status check(const AttnMassCudaArgs& a) {
  const int64_t dim = a.q.dim[2];
  if ((a.q.dtype != DType::kBf16 && a.q.dtype != DType::kF16) || !rows_of_heads(a.q) ||
      (dim != 64 && dim != 128 && dim != 256) || !rows_of_heads(a.k_pages) ||
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
