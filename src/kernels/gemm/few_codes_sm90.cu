// y = x w^T of few rows on Hopper, packed weights: decode. Bound by the weights' bytes.
//
// Each warp owns an even share of the weight's units (weight_layout.h), in order of tiles and then
// K, and streams it through a ring of shared memory that one lane fills by bulk copies, before the
// kernel waits for the one before it (no kernel writes weights).
//
// The products are of integers, 32 of K by one instruction of the tensor cores: codes as they lie
// (bytes, or nibbles masked apart) times x in 16 bits, q = 256 h + l with a scale for every 32
// elements. h and l are two columns of the instruction's eight, so it takes four rows of x at once;
// their sum is exact, and weight's scale, x's scale and minimum times sum of x are applied in f32.
// 16 bits beside the largest of 32 elements keep more of x than bf16 does.
//
// What surrounds the product comes with it: every block quantises x for itself, after the RMS norm
// where it is asked for, and SwiGLU of a weight of two halves, whose tiles a warp takes in pairs.
// A tile that several warps share is summed in order of warps and blocks, whatever came first.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/cuda/silu.cuh"
#include "kernels/gemm/few_codes_sm90.cuh"
#include "kernels/gemm/gemm_cuda_kernels.h"

namespace rk::kernels {
namespace {

// c = a[16 rows, 32] b[32, 8 columns], and the same over 16 of K: bytes.
__device__ __forceinline__ void multiply_32(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                            uint32_t a3, uint2 b) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%10,%10,%10};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y), "r"(0));
}
__device__ __forceinline__ void multiply_16(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%7,%7,%7,%7};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a0), "r"(a1), "r"(b), "r"(0));
}

__device__ __forceinline__ float whole_sum(int high, int low) {
  return static_cast<float>(256 * high + low);
}

__device__ __forceinline__ float2 scales_of(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

// What a warp's lane 0 asks for next.
template <Codes kCodes, bool kGated>
struct Units {
  const Params& p;
  int left, tile, chunk;

  __device__ void ask(uint8_t* to, uint64_t* full) {
    if (left == 0) return;
    constexpr int kBytes = kUnitBytes<kCodes>;
    ptx::barrier_arrive_expect(full, kGated ? 2 * kBytes : kBytes);
    const char* from = p.data + (int64_t{tile} * p.chunks + chunk) * kBytes;
    ptx::load_bytes(to, from, kBytes, full);
    if constexpr (kGated) {
      ptx::load_bytes(to + kBytes, from + int64_t{p.tiles} * p.chunks * kBytes, kBytes, full);
    }
    --left;
    if (++chunk == p.chunks) chunk = 0, ++tile;
  }
};

// Sums of a warp's tile: rows g + 8 i of one or both halves, row 4 c + t of x.
template <int kHalves, int kColumns>
using Sums = float[kHalves][kColumns][4];

template <Codes kCodes, int kHalves, int kColumns>
__device__ __forceinline__ void multiply(const Params& p, const uint8_t* unit, const uint8_t* codes,
                                         const float2* x_sums, int chunk, int lane,
                                         Sums<kHalves, kColumns>& acc) {
  constexpr int kBytes = kUnitBytes<kCodes>;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    uint32_t w[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 v = *reinterpret_cast<const uint4*>(unit + half * kBytes + 512 * i + 16 * lane);
      w[i][0] = v.x, w[i][1] = v.y, w[i][2] = v.z, w[i][3] = v.w;
    }
#pragma unroll
    for (int j = 0; j < kGroups<kCodes>; ++j) {
      const int at = (chunk * kGroups<kCodes> + j) * p.m;
      uint2 b[kColumns];
      float2 x[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {  // columns beyond the last row repeat it
        const int row = min(4 * c + g / 2, p.m - 1);
        b[c] = *reinterpret_cast<const uint2*>(codes + (at + row) * 64 + g % 2 * 32 + t * 8);
        x[c] = x_sums[at + min(4 * c + t, p.m - 1)];
      }
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const uint2 scales = *reinterpret_cast<const uint2*>(unit + half * kBytes + kUnitCodeBytes +
                                                             32 * kGroups<kCodes> * i +
                                                             8 * kGroups<kCodes> * g + 8 * j);
        const float2 s0 = scales_of(scales.x), s1 = scales_of(scales.y);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          float(&to)[4] = acc[half][c];
          int v[4];
          if constexpr (kCodes == Codes::kInt8Sixteens) {
            multiply_16(v, w[i][2 * j], w[i + 1][2 * j], b[c].x);
            to[i] += whole_sum(v[0], v[1]) * (s0.x * x[c].x);
            to[i + 1] += whole_sum(v[2], v[3]) * (s1.x * x[c].x);
            multiply_16(v, w[i][2 * j + 1], w[i + 1][2 * j + 1], b[c].y);
            to[i] += whole_sum(v[0], v[1]) * (s0.y * x[c].x);
            to[i + 1] += whole_sum(v[2], v[3]) * (s1.y * x[c].x);
          } else {
            if constexpr (kCodes == Codes::kInt4) {
              constexpr uint32_t kLow = 0x0f0f0f0fU;
              multiply_32(v, w[i][j] & kLow, w[i + 1][j] & kLow, w[i][j] >> 4 & kLow,
                          w[i + 1][j] >> 4 & kLow, b[c]);
            } else {
              multiply_32(v, w[i][2 * j], w[i + 1][2 * j], w[i][2 * j + 1], w[i + 1][2 * j + 1],
                          b[c]);
            }
            to[i] += whole_sum(v[0], v[1]) * (s0.x * x[c].x) + s0.y * x[c].y;
            to[i + 1] += whole_sum(v[2], v[3]) * (s1.x * x[c].x) + s1.y * x[c].y;
          }
        }
      }
    }
  }
}

__device__ __forceinline__ void store(const Params& p, int m, int n, float v) {
  if (n >= p.outputs) return;
  if (p.bias != nullptr) v += p.bias[n];
  const int64_t at = m * p.y_stride + n;
  if (!p.y_f32) {
    static_cast<__nv_bfloat16*>(p.y)[at] = __float2bfloat16(v);
  } else {
    float* y = static_cast<float*>(p.y) + at;
    *y = p.accumulate ? *y + v : v;
  }
}

// A tile that the warp has the whole of.
template <int kHalves, int kColumns>
__device__ __forceinline__ void store_tile(const Params& p, int tile, int lane,
                                           const Sums<kHalves, kColumns>& acc) {
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int m = 4 * c + lane % 4;
    if (m >= p.m) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float v =
          kHalves == 2 ? silu_times(acc[0][c][i], acc[kHalves - 1][c][i]) : acc[0][c][i];
      store(p, m, tile * kUnitRows + 8 * i + lane / 4, v);
    }
  }
}

// Sums of a tile's part, [row of x][half][row].
template <int kHalves, int kColumns>
__device__ __forceinline__ void keep_part(const Params& p, float* to, int lane,
                                          const Sums<kHalves, kColumns>& acc) {
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int m = 4 * c + lane % 4;
    if (m >= p.m) continue;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to[(m * kHalves + half) * kUnitRows + 8 * i + lane / 4] = acc[half][c][i];
      }
    }
  }
}

// One warp's: adds up a tile's parts in the block, `num` of them from `from` on, each `apart` from
// the next but the first, which may lie otherwise. The tile goes to y if the block has all of it;
// else the last block of the tile adds up all blocks' parts, in their order. `slot`: which of the
// block's two places for parts.
template <int kHalves>
__device__ void finish_tile(const Params& p, const float* first, const float* rest, int num_rest,
                            int apart, int tile, int slot, bool whole, int lane) {
  const int most = p.m * kHalves * kUnitRows;
  const auto in_block = [&](int i) {
    float v = first[i];
    for (int s = 0; s < num_rest; ++s) v += rest[s * apart + i];
    return v;
  };
  const auto put = [&](int m, float gate, float up) {
    store(p, m, tile * kUnitRows + lane, kHalves == 2 ? silu_times(gate, up) : gate);
  };
  if (whole) {
    for (int m = 0; m < p.m; ++m) {
      const int i = m * kHalves * kUnitRows + lane;
      put(m, in_block(i), kHalves == 2 ? in_block(i + kUnitRows) : 0.0F);
    }
    return;
  }
  float* mine = p.parts + (int64_t{blockIdx.x} * 2 + slot) * most;
  for (int i = lane; i < most; i += 32) mine[i] = in_block(i);
  const int64_t grid = gridDim.x, units = int64_t{p.tiles} * p.chunks;
  const int64_t begin = int64_t{tile} * p.chunks, end = begin + p.chunks - 1;
  const auto first_block = static_cast<int>(((begin + 1) * grid - 1) / units);
  const auto last_block = static_cast<int>(((end + 1) * grid - 1) / units);
  __threadfence();
  __syncwarp();
  int before = 0;
  if (lane == 0) before = atomicAdd(p.counters + tile, 1);
  if (__shfl_sync(~0U, before, 0) != last_block - first_block) return;
  __threadfence();
  const auto over_blocks = [&](int i) {
    // Only the first block has the tile's beginning; to the others it is what they begin with.
    float v = __ldcg(p.parts + (int64_t{first_block} * 2 + 1) * most + i);
#pragma unroll 4
    for (int b = first_block + 1; b <= last_block; ++b) {
      v += __ldcg(p.parts + int64_t{b} * 2 * most + i);
    }
    return v;
  };
  for (int m = 0; m < p.m; ++m) {
    const int i = m * kHalves * kUnitRows + lane;
    put(m, over_blocks(i), kHalves == 2 ? over_blocks(i + kUnitRows) : 0.0F);
  }
  if (lane == 0) p.counters[tile] = 0;
}

template <Codes kCodes, int kColumns, bool kNorm, bool kGated>
__global__ void __launch_bounds__(kThreads, 1) few_codes_kernel(const Params p) {
  constexpr int kHalves = kGated ? 2 : 1, kStageBytes = kHalves * kUnitBytes<kCodes>;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ uint64_t barriers[kWarps * kMaxStages];
  __shared__ int head_tile[kWarps + 1];  // the tile that a warp's head is part of; -1: none
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t units = int64_t{p.tiles} * p.chunks;
  const auto share = [&](int w) {
    return static_cast<int>((int64_t{blockIdx.x} * kWarps + w) * units /
                            (int64_t{gridDim.x} * kWarps));
  };
  const int begin = share(warp), end = share(warp + 1);
  uint8_t* ring = shared + warp * p.stages * kStageBytes;
  uint64_t* full = barriers + warp * kMaxStages;
  uint8_t* codes = shared + kWarps * p.stages * kStageBytes;
  auto* x_sums = reinterpret_cast<float2*>(codes + p.chunks * kGroups<kCodes> * p.m * 2 * kGroup);
  int tile = begin / p.chunks, chunk = begin % p.chunks;
  Units<kCodes, kGated> asked{p, end - begin, tile, chunk};
  start_next_kernel();
  if (lane == 0) {
    for (int i = 0; i < p.stages; ++i) ptx::barrier_init(full + i, 1);
    ptx::barrier_init_fence();
    for (int i = 0; i < p.stages; ++i) asked.ask(ring + i * kStageBytes, full + i);
  }
  await_kernel_before();
  XLoader<kCodes, kNorm>{p, codes, x_sums}.load();
  __syncthreads();

  // Of the tiles that the warp shares with others: `head` is what it began amid, acc in the end
  // what it did not finish.
  Sums<kHalves, kColumns> acc = {}, head = {};
  bool in_head = chunk != 0;
  if (lane == 0) head_tile[warp] = in_head ? tile : -1;
  int stage = 0;
  uint32_t parity = 0;
  for (int unit = begin; unit < end; ++unit) {
    ptx::barrier_wait(full + stage, parity);
    uint8_t* slot = ring + stage * kStageBytes;
    multiply<kCodes, kHalves, kColumns>(p, slot, codes, x_sums, chunk, lane, acc);
    __syncwarp();
    if (lane == 0) asked.ask(slot, full + stage);
    if (++stage == p.stages) stage = 0, parity ^= 1;
    if (++chunk < p.chunks) continue;
    if (!in_head) store_tile<kHalves, kColumns>(p, tile, lane, acc);
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (in_head) head[h][c][i] = acc[h][c][i];
          acc[h][c][i] = 0.0F;
        }
      }
    }
    in_head = false;
    chunk = 0;
    ++tile;
  }

  __syncthreads();  // the rings are read: parts take their place
  auto* parts = reinterpret_cast<float*>(shared);
  const int part = p.m * kHalves * kUnitRows;  // floats
  if (in_head) {
    keep_part<kHalves, kColumns>(p, parts + 2 * warp * part, lane, acc);
  } else {
    keep_part<kHalves, kColumns>(p, parts + 2 * warp * part, lane, head);
    keep_part<kHalves, kColumns>(p, parts + (2 * warp + 1) * part, lane, acc);
  }
  __syncthreads();
  const auto heads_of = [&](int from, int of_tile) {
    int num = 0;
    while (from + num < kWarps && head_tile[from + num] == of_tile) ++num;
    return num;
  };
  const int block_begin = share(0), block_end = share(kWarps);
  if (warp == 0 && head_tile[0] >= 0) {  // the tile before this block's first
    finish_tile<kHalves>(p, parts, parts + 2 * part, heads_of(1, head_tile[0]), 2 * part,
                         head_tile[0], 0, false, lane);
  }
  if (in_head || chunk == 0) return;
  finish_tile<kHalves>(p, parts + (2 * warp + 1) * part, parts + 2 * (warp + 1) * part,
                       heads_of(warp + 1, tile), 2 * part, tile, 1,
                       tile * p.chunks >= block_begin && (tile + 1) * p.chunks <= block_end, lane);
}

template <Codes kCodes>
int stages_of(int64_t k, int64_t m, bool gated) {
  const int stage = kWarps * kUnitBytes<kCodes> * (gated ? 2 : 1);
  const auto groups = static_cast<int>(up_to(k, unit_k(form_of(kCodes)))) * kGroups<kCodes>;
  const int room = kMostBytes - x_bytes(groups, static_cast<int>(m));
  return std::min({kMaxStages, kRingBytes / stage, room / stage});
}

int stages_of(const WeightPiece& piece, int64_t m, bool gated) {
  return piece.form == CudaWeightForm::kInt4G32 ? stages_of<Codes::kInt4>(piece.k, m, gated)
                                                : stages_of<Codes::kInt8>(piece.k, m, gated);
}

template <Codes kCodes, int kColumns, bool kNorm, bool kGated>
Status launch(const Params& p, int num_sms, Stream stream) {
  const auto kernel = few_codes_kernel<kCodes, kColumns, kNorm, kGated>;
  static const cudaError_t raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes);
  if (raised != cudaSuccess) return internal("cuda: few_codes: ", cudaGetErrorString(raised));
  const int64_t units = int64_t{p.tiles} * p.chunks;
  const auto grid = static_cast<unsigned>(std::clamp<int64_t>(units / kWarps, 1, num_sms));
  const int bytes = kWarps * p.stages * kUnitBytes<kCodes> * (kGated ? 2 : 1) +
                    x_bytes(p.chunks * kGroups<kCodes>, p.m);
  return launch_early("few_codes", kernel, grid, kThreads, std::max(bytes, kLeastBytes), stream, p);
}

template <Codes kCodes, bool kGated>
Status launch_for(const Params& p, int num_sms, Stream stream) {
  if (p.norm != nullptr) return launch<kCodes, 1, true, kGated>(p, num_sms, stream);
  if (p.m <= 4) return launch<kCodes, 1, false, kGated>(p, num_sms, stream);
  if (p.m <= 8) return launch<kCodes, 2, false, kGated>(p, num_sms, stream);
  return launch<kCodes, 4, false, kGated>(p, num_sms, stream);
}

template <Codes kCodes>
Status launch_for(const Params& p, bool gated, int num_sms, Stream stream) {
  return gated ? launch_for<kCodes, true>(p, num_sms, stream)
               : launch_for<kCodes, false>(p, num_sms, stream);
}

}  // namespace

bool few_codes_can(const WeightPiece& piece, int64_t m, bool gated) {
  const int64_t outputs = gated ? piece.n / 2 : piece.n;
  // Units of one warp at least; fewer are a matter of starting and ending.
  const int64_t units = up_to(outputs, kUnitRows) * up_to(piece.k, unit_k(piece.form));
  return on_hopper() && is_packed(piece.form) && m <= kFewRows && piece.k <= (1 << 20) &&
         units >= kWarps && units < (1 << 30) && outputs <= kFewRowsCounters * kUnitRows &&
         (!gated || outputs % kUnitRows == 0) && stages_of(piece, m, gated) >= kLeastStages;
}

Status few_codes(const WeightPiece& piece, const FewCodesArgs& a, Stream stream) {
  const auto outputs = static_cast<int>(a.gated ? piece.n / 2 : piece.n);
  const Params p{.data = static_cast<const char*>(piece.data),
                 .x = a.x,
                 .norm = a.norm,
                 .bias = a.bias == nullptr ? nullptr : a.bias + piece.row_begin,
                 .y = static_cast<char*>(a.y) + piece.row_begin * (a.y_f32 ? 4 : 2),
                 .parts = a.parts,
                 .counters = a.counters,
                 .y_stride = a.y_stride,
                 .stages = stages_of(piece, a.m, a.gated),
                 .chunks = static_cast<int>(up_to(piece.k, unit_k(piece.form))),
                 .tiles = static_cast<int>(up_to(outputs, kUnitRows)),
                 .outputs = outputs,
                 .k = static_cast<int>(piece.k),
                 .m = static_cast<int>(a.m),
                 .eps = a.eps,
                 .y_f32 = a.y_f32,
                 .accumulate = a.accumulate};
  if (piece.form == CudaWeightForm::kInt4G32) {
    return launch_for<Codes::kInt4>(p, a.gated, a.num_sms, stream);
  }
  return piece.sixteens ? launch_for<Codes::kInt8Sixteens>(p, a.gated, a.num_sms, stream)
                        : launch_for<Codes::kInt8>(p, a.gated, a.num_sms, stream);
}

}  // namespace rk::kernels
