// Linear layers of few rows: bound by the bytes of the weights, which stream through a ring of
// shared memory that each warp fills for itself with asynchronous copies; the tensor cores do the
// arithmetic straight from the layout of weight_layout.h. Integer codes enter the products as exact
// bf16 integers and a group's scale and minimum are applied to its f32 sum, so nothing is lost
// beyond the stored f16 scales.
//
// The units of a weight, in order of tiles and then K, are divided evenly over the blocks. A tile
// that several blocks share is summed by the one that finishes last, in block order.
//
// For every card from Ampere on; on Hopper packed weights take few_codes where they can (twice the
// instructions here: ncu counts 430 a unit of int8, 57 % of issue slots busy).
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/gemm/gemm_cuda_kernels.h"

namespace rk::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kStages = 4;
constexpr int kPitch = kUnitRows + 1;  // of a column of sums in shared memory
constexpr int kBlocksPerSm = 2;

struct Params {
  const char* data;
  const float* scale;  // fp8: of rows, or of blocks, then of stride scale_stride
  const __nv_bfloat16* x;
  const float* bias;
  void* y;
  float* parts;
  int32_t* counters;
  int64_t y_stride, scale_stride;
  int units, n, k, m, chunks, row_warps, row_tiles;
  bool y_f32, accumulate, sixteens;
};

constexpr auto kBf16 = CudaWeightForm::kBf16;
constexpr auto kFp8 = CudaWeightForm::kFp8;
constexpr auto kFp8Blocks = CudaWeightForm::kFp8Blocks;
constexpr auto kInt8 = CudaWeightForm::kInt8G32;
constexpr auto kInt4 = CudaWeightForm::kInt4G32;

template <CudaWeightForm kForm>
constexpr int kUnitK = unit_k(kForm);
template <CudaWeightForm kForm>
constexpr int kUnitBytes = unit_bytes(kForm);
template <CudaWeightForm kForm>
constexpr bool kPacked = is_packed(kForm);
template <CudaWeightForm kForm>
constexpr bool kIsFp8 = is_fp8(kForm);

// Copies one unit into a warp's slot, 16 bytes a lane at a time.
template <CudaWeightForm kForm>
__device__ __forceinline__ void load_unit(const Params& p, uint32_t slot, int row_tile, int chunk,
                                          int lane) {
  if constexpr (kPacked<kForm>) {
    const char* unit =
        p.data + (int64_t{row_tile} * p.chunks + chunk) * kUnitBytes<kForm> + 16 * lane;
#pragma unroll
    for (int i = 0; i < kUnitBytes<kForm>; i += 512) {
      if (i + 512 <= kUnitBytes<kForm> || lane < (kUnitBytes<kForm> - i) / 16) {
        copy_async_16(slot + i + 16 * lane, unit + i, true);
      }
    }
  } else {
    constexpr int kElement = kForm == kBf16 ? 2 : 1;
    const int at = chunk * kUnitK<kForm> + lane % 4 * (16 / kElement);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = min(row_tile * kUnitRows + 8 * r + lane / 4, p.n - 1);
      const bool valid = at < p.k;
      const char* from = p.data + (int64_t{row} * p.k + (valid ? at : 0)) * kElement;
      copy_async_16(slot + 512 * r + 16 * lane, from, valid);
    }
  }
}

// The right-hand operands of a unit: row g of x at the elements that this lane's words hold.
template <CudaWeightForm kForm, int kColumns>
__device__ __forceinline__ void load_x(const Params& p, int chunk, int lane,
                                       uint32_t (&x)[kColumns][kUnitK<kForm> / 8]) {
  const int t = lane % 4;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int row = 8 * c + lane / 4;
    const __nv_bfloat16* from = p.x + int64_t{row} * p.k;
    if constexpr (kForm == kInt8) {
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const int at = chunk * 64 + 16 * w + 4 * t;
        const bool valid = row < p.m && at < p.k;
        const uint2 v = valid ? *reinterpret_cast<const uint2*>(from + at) : uint2{0, 0};
        x[c][2 * w] = v.x;
        x[c][2 * w + 1] = v.y;
      }
    } else {
#pragma unroll
      for (int w = 0; w < kUnitK<kForm> / 32; ++w) {
        const int at = chunk * kUnitK<kForm> + (kIsFp8<kForm> ? 16 * t + 8 * w : 32 * w + 8 * t);
        const bool valid = row < p.m && at < p.k;
        const uint4 v = valid ? *reinterpret_cast<const uint4*>(from + at) : uint4{0, 0, 0, 0};
        x[c][4 * w] = v.x;
        x[c][4 * w + 1] = v.y;
        x[c][4 * w + 2] = v.z;
        x[c][4 * w + 3] = v.w;
      }
    }
  }
}

__device__ __forceinline__ uint32_t subtract_pairs(uint32_t a, uint32_t b) {
  const __nv_bfloat162 d = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                   *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&d);
}

// Bytes 0 and 2 of a word of int8 codes as bf16: 128 + the low seven bits, less 128 or 256.
__device__ __forceinline__ uint32_t int8_pair(uint32_t word) {
  return subtract_pairs((word & 0x007f007fU) | 0x43004300U, (word & 0x00800080U) | 0x43004300U);
}
// Nibbles p and p + 4 as bf16, 128 too large: what is subtracted with the minimum.
__device__ __forceinline__ uint32_t int4_pair(uint32_t word, int p) {
  return (word >> (4 * p) & 0x000f000fU) | 0x43004300U;
}
// Two e4m3 bytes as bf16: the bits moved into place stand for 2^-120 of the value.
__device__ __forceinline__ uint32_t fp8_pair(uint32_t word, uint32_t select) {
  const uint32_t high = __byte_perm(word, 0, select);  // each byte above a zero byte
  const uint32_t bits = (high & 0x80008000U) | ((high & 0x7f007f00U) >> 4);
  const uint32_t power = 0x7b807b80U;  // 2^120
  const __nv_bfloat162 v = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits),
                                   *reinterpret_cast<const __nv_bfloat162*>(&power));
  return *reinterpret_cast<const uint32_t*>(&v);
}

__device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1) {
  const uint32_t a[4] = {a0, a1, a2, a3};
  mma_16816<__nv_bfloat16>(c, a, b0, b1);
}

__device__ __forceinline__ float2 half_pair(uint32_t bits) { return unpack_pair<__half>(bits); }

// acc += rows of half 0 and 1 scaled: c[0..1] belong to row g, c[2..3] to row g + 8.
__device__ __forceinline__ void add_scaled(float (&acc)[4], const float (&sum)[4], float s0,
                                           float s1) {
  acc[0] += s0 * sum[0];
  acc[1] += s0 * sum[1];
  acc[2] += s1 * sum[2];
  acc[3] += s1 * sum[3];
}

template <CudaWeightForm kForm, int kColumns>
__device__ __forceinline__ void multiply(const Params& p, const char* slot, int lane,
                                         const uint32_t (&x)[kColumns][kUnitK<kForm> / 8],
                                         float unit_scale, float (&acc)[2][kColumns][4]) {
  uint32_t w[2][2][4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint4 v = *reinterpret_cast<const uint4*>(slot + 512 * i + 16 * lane);
    w[i / 2][i % 2][0] = v.x;
    w[i / 2][i % 2][1] = v.y;
    w[i / 2][i % 2][2] = v.z;
    w[i / 2][i % 2][3] = v.w;
  }
  if constexpr (kForm == kBf16) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        mma(acc[i][c], w[i][0][0], w[i][1][0], w[i][0][1], w[i][1][1], x[c][0], x[c][1]);
        mma(acc[i][c], w[i][0][2], w[i][1][2], w[i][0][3], w[i][1][3], x[c][2], x[c][3]);
      }
    }
  } else if constexpr (kIsFp8<kForm>) {
    float scaled[2][kColumns][4] = {};  // kFp8Blocks: the unit's own sum
    auto& sum = kForm == kFp8Blocks ? scaled : acc;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t a0 = fp8_pair(w[i][0][j], 0x1404), a1 = fp8_pair(w[i][1][j], 0x1404);
        const uint32_t a2 = fp8_pair(w[i][0][j], 0x3424), a3 = fp8_pair(w[i][1][j], 0x3424);
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          mma(sum[i][c], a0, a1, a2, a3, x[c][2 * j], x[c][2 * j + 1]);
      }
#pragma unroll
      for (int c = 0; kForm == kFp8Blocks && c < kColumns; ++c) {
        add_scaled(acc[i][c], scaled[i][c], unit_scale, unit_scale);
      }
    }
  } else {
    constexpr int kGroups = kForm == kInt4 ? 4 : 2;
    constexpr uint32_t kOnes = 0x3f803f80U;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      float sum_x[kColumns][4] = {};
      if (kForm == kInt4 || !p.sixteens) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          mma(sum_x[c], kOnes, kOnes, kOnes, kOnes, x[c][4 * j], x[c][4 * j + 1]);
          mma(sum_x[c], kOnes, kOnes, kOnes, kOnes, x[c][4 * j + 2], x[c][4 * j + 3]);
        }
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint2 scales = *reinterpret_cast<const uint2*>(
            slot + kUnitCodeBytes + 64 * kGroups * i + 8 * kGroups * (lane / 4) + 8 * j);
        const float2 s0 = half_pair(scales.x), s1 = half_pair(scales.y);
        uint32_t a[8];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if constexpr (kForm == kInt4) {
            a[4 * h] = int4_pair(w[i][0][j], 2 * h);
            a[4 * h + 1] = int4_pair(w[i][1][j], 2 * h);
            a[4 * h + 2] = int4_pair(w[i][0][j], 2 * h + 1);
            a[4 * h + 3] = int4_pair(w[i][1][j], 2 * h + 1);
          } else {
            const uint32_t even = w[i][0][2 * j + h], odd = w[i][1][2 * j + h];
            a[4 * h] = int8_pair(even);
            a[4 * h + 1] = int8_pair(odd);
            a[4 * h + 2] = int8_pair(even >> 8);
            a[4 * h + 3] = int8_pair(odd >> 8);
          }
        }
        constexpr float kExcess = kForm == kInt4 ? 128.0F : 0.0F;
        const float m0 = s0.y - kExcess * s0.x, m1 = s1.y - kExcess * s1.x;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          float low[4] = {}, high[4] = {};
          mma(low, a[0], a[1], a[2], a[3], x[c][4 * j], x[c][4 * j + 1]);
          if (kForm == kInt8 && p.sixteens) {
            mma(high, a[4], a[5], a[6], a[7], x[c][4 * j + 2], x[c][4 * j + 3]);
            add_scaled(acc[i][c], low, s0.x, s1.x);
            add_scaled(acc[i][c], high, s0.y, s1.y);
          } else {
            mma(low, a[4], a[5], a[6], a[7], x[c][4 * j + 2], x[c][4 * j + 3]);
            add_scaled(acc[i][c], low, s0.x, s1.x);
            add_scaled(acc[i][c], sum_x[c], m0, m1);
          }
        }
      }
    }
  }
}

template <CudaWeightForm kForm>
__device__ __forceinline__ void store(const Params& p, int col, int row, float v) {
  if constexpr (kForm == kFp8) v *= p.scale[row];
  if (p.bias != nullptr) v += p.bias[row];
  const int64_t at = col * p.y_stride + row;
  if (!p.y_f32) {
    static_cast<__nv_bfloat16*>(p.y)[at] = __float2bfloat16(v);
  } else {
    float* y = static_cast<float*>(p.y) + at;
    *y = p.accumulate ? *y + v : v;
  }
}

// The block's sums of a tile are in shared memory; they go to y, or to where the last block of the
// tile finds them. `slot` is which of this block's two places for parts.
template <CudaWeightForm kForm, int kColumns>
__device__ void finish_tile(const Params& p, const float* sums, int tile, int slot, bool whole) {
  __shared__ int is_last;
  const int shift = 5 + __ffs(p.row_warps) - 1, rows = 1 << shift, split = kWarps / p.row_warps;
  const int most = rows * 8 * kColumns, num = rows * p.m;
  float* mine = p.parts + (int64_t{blockIdx.x} * 2 + slot) * most;
  for (int i = threadIdx.x; i < num; i += kThreads) {
    const int col = i >> shift, row = i & (rows - 1);
    const float* from = sums + (row / kUnitRows * 8 * kColumns + col) * kPitch + row % kUnitRows;
    float v = 0.0F;
    for (int s = 0; s < split; ++s) v += from[s * p.row_warps * 8 * kColumns * kPitch];
    const int n = tile * rows + row;
    if (!whole) {
      mine[i] = v;
    } else if (n < p.n) {
      store<kForm>(p, col, n, v);
    }
  }
  if (whole) return;
  const int64_t grid = gridDim.x, begin = int64_t{tile} * p.chunks, end = begin + p.chunks - 1;
  const auto first = static_cast<int>(((begin + 1) * grid - 1) / p.units);
  const auto last = static_cast<int>(((end + 1) * grid - 1) / p.units);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(p.counters + tile, 1) == last - first;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  // All but the first block began in this tile: their part of it is in their first place.
  const int64_t first_slot = first * int64_t{p.units} / grid < begin ? 1 : 0;
  for (int i = threadIdx.x; i < num; i += kThreads) {
    const float* parts = p.parts + i;
    float v = __ldcg(parts + (2 * first + first_slot) * most);
#pragma unroll 4
    for (int b = first + 1; b <= last; ++b) v += __ldcg(parts + int64_t{2} * b * most);
    const int n = tile * rows + (i & (rows - 1));
    if (n < p.n) store<kForm>(p, i >> shift, n, v);
  }
  if (threadIdx.x == 0) p.counters[tile] = 0;
}

// A warp takes every split-th unit of its block's range; loads run kStages units ahead, across
// tiles.
template <CudaWeightForm kForm, int kColumns>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm) few_rows_kernel(const Params p) {
  extern __shared__ __align__(16) char shared[];
  constexpr int kBytes = kUnitBytes<kForm>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int split = kWarps / p.row_warps, row_warp = warp % p.row_warps;
  const auto begin = static_cast<int>(int64_t{blockIdx.x} * p.units / gridDim.x);
  const auto end = static_cast<int>((int64_t{blockIdx.x} + 1) * p.units / gridDim.x);
  const char* ring = shared + warp * kStages * kBytes;
  const uint32_t ring_address = shared_address(ring);
  float* sums = reinterpret_cast<float*>(shared + kWarps * kStages * kBytes);

  const int first = begin + warp / p.row_warps;
  int loading = first, load_tile = first / p.chunks, load_chunk = first % p.chunks;
  const auto load_next = [&](int slot) {
    if (loading < end) {
      const int row_tile = min(load_tile * p.row_warps + row_warp, p.row_tiles - 1);
      load_unit<kForm>(p, ring_address + slot * kBytes, row_tile, load_chunk, lane);
    }
    copy_async_commit();
    loading += split;
    for (load_chunk += split; load_chunk >= p.chunks; load_chunk -= p.chunks) ++load_tile;
  };
  start_next_kernel();
#pragma unroll
  for (int s = 0; s < kStages; ++s) load_next(s);  // weights: no kernel writes them
  await_kernel_before();

  int unit = first, chunk = first % p.chunks, slot = 0;
  uint32_t next_x[kColumns][kUnitK<kForm> / 8];
  if (unit < end) load_x<kForm, kColumns>(p, chunk, lane, next_x);
  const auto scale_of = [&](int of_unit, int of_chunk) {
    if constexpr (kForm != kFp8Blocks) return 1.0F;
    const int row_tile = min(of_unit / p.chunks * p.row_warps + row_warp, p.row_tiles - 1);
    return __ldg(p.scale + row_tile / 4 * p.scale_stride + of_chunk / 2);
  };
  float next_scale = unit < end ? scale_of(unit, chunk) : 0.0F;
  const int first_tile = begin / p.chunks;
  for (int tile = first_tile; tile * p.chunks < end; ++tile) {
    const int tile_end = min((tile + 1) * p.chunks, end);
    float acc[2][kColumns][4] = {};
    while (unit < tile_end) {
      uint32_t x[kColumns][kUnitK<kForm> / 8];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int i = 0; i < kUnitK<kForm> / 8; ++i) x[c][i] = next_x[c][i];
      }
      const float scale = next_scale;
      unit += split;
      for (chunk += split; chunk >= p.chunks;) chunk -= p.chunks;
      if (unit < end) load_x<kForm, kColumns>(p, chunk, lane, next_x);
      if (unit < end) next_scale = scale_of(unit, chunk);
      copy_async_wait<kStages - 1>();
      __syncwarp();
      multiply<kForm, kColumns>(p, ring + slot * kBytes, lane, x, scale, acc);
      __syncwarp();
      load_next(slot);
      slot = slot + 1 == kStages ? 0 : slot + 1;
    }
    float* to = sums + warp * 8 * kColumns * kPitch;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int col = 8 * c + lane % 4 * 2 + e % 2, row = 16 * i + lane / 4 + e / 2 * 8;
          to[col * kPitch + row] = acc[i][c][e];
        }
      }
    }
    __syncthreads();
    const bool whole = begin <= tile * p.chunks && tile_end == (tile + 1) * p.chunks;
    finish_tile<kForm, kColumns>(p, sums, tile, tile == first_tile ? 0 : 1, whole);
    __syncthreads();
  }
  copy_async_wait<0>();
}

template <CudaWeightForm kForm, int kColumns>
Status launch(const Params& p, int grid, Stream stream) {
  constexpr int kBytes =
      kWarps * (kStages * kUnitBytes<kForm> + 8 * kColumns * kPitch * int{sizeof(float)});
  const auto kernel = few_rows_kernel<kForm, kColumns>;
  static const cudaError_t raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (raised != cudaSuccess) return internal("cuda: few_rows: ", cudaGetErrorString(raised));
  return launch_early("few_rows", kernel, static_cast<unsigned>(grid), kThreads, kBytes, stream, p);
}

}  // namespace

FewRowsPlan few_rows_plan(CudaWeightForm form, int64_t n, int64_t k, int64_t m, int num_sms) {
  // More rows a tile where x is a larger part of what a block reads.
  const int row_warps = m <= 2 ? 1 : m <= 4 ? 2 : 4;
  FewRowsPlan plan{.row_warps = row_warps};
  plan.chunks = up_to(k, unit_k(form));
  plan.tiles = up_to(n, kUnitRows * row_warps);
  const int64_t units = plan.chunks * plan.tiles, split = kWarps / row_warps;
  // A block below two units a warp spends its time on starting and summing.
  const int64_t most = std::max<int64_t>(1, units / std::min<int64_t>(plan.chunks, 2 * split));
  plan.grid = static_cast<int>(std::min<int64_t>(most, int64_t{kBlocksPerSm} * num_sms));
  return plan;
}

int num_multiprocessors() {
  int card = 0, num = 0;
  cudaGetDevice(&card);
  cudaDeviceGetAttribute(&num, cudaDevAttrMultiProcessorCount, card);
  return std::max(num, 1);
}

bool on_hopper() {
  static const bool hopper = [] {
    int card = 0, major = 0;
    return cudaGetDevice(&card) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card) == cudaSuccess &&
           major == 9;
  }();
  return hopper;
}

int64_t few_rows_parts_bytes(int num_sms) {
  return int64_t{kBlocksPerSm} * num_sms * 2 * (kUnitRows * 4) * kFewRows * int64_t{sizeof(float)};
}

bool few_rows_can(const WeightPiece& piece) {
  if (piece.k % 8 != 0 || piece.k > (1 << 30) || piece.n > kFewRowsCounters * kUnitRows ||
      up_to(piece.n, kUnitRows) * up_to(piece.k, unit_k(piece.form)) > (1 << 30))
    return false;
  return !is_fp8(piece.form) || piece.k % 16 == 0;
}

Status few_rows(const WeightPiece& piece, const FewRowsArgs& a, Stream stream) {
  const FewRowsPlan plan = few_rows_plan(piece.form, piece.n, piece.k, a.m, a.num_sms);
  const Params p{.data = static_cast<const char*>(piece.data),
                 .scale = piece.scale,
                 .x = static_cast<const __nv_bfloat16*>(a.x),
                 .bias = a.bias == nullptr ? nullptr : a.bias + piece.row_begin,
                 .y = static_cast<char*>(a.y) + piece.row_begin * (a.y_f32 ? 4 : 2),
                 .parts = a.parts,
                 .counters = a.counters,
                 .y_stride = a.y_stride,
                 .scale_stride = piece.scale_stride,
                 .units = static_cast<int>(plan.chunks * plan.tiles),
                 .n = static_cast<int>(piece.n),
                 .k = static_cast<int>(piece.k),
                 .m = static_cast<int>(a.m),
                 .chunks = static_cast<int>(plan.chunks),
                 .row_warps = plan.row_warps,
                 .row_tiles = static_cast<int>(up_to(piece.n, kUnitRows)),
                 .y_f32 = a.y_f32,
                 .accumulate = a.accumulate,
                 .sixteens = piece.sixteens};
  const bool two = a.m > 8;
  switch (piece.form) {
    case CudaWeightForm::kBf16:
      return two ? launch<kBf16, 2>(p, plan.grid, stream) : launch<kBf16, 1>(p, plan.grid, stream);
    case CudaWeightForm::kFp8:
      return two ? launch<kFp8, 2>(p, plan.grid, stream) : launch<kFp8, 1>(p, plan.grid, stream);
    case CudaWeightForm::kFp8Blocks:
      return two ? launch<kFp8Blocks, 2>(p, plan.grid, stream)
                 : launch<kFp8Blocks, 1>(p, plan.grid, stream);
    case CudaWeightForm::kInt8G32:
      return two ? launch<kInt8, 2>(p, plan.grid, stream) : launch<kInt8, 1>(p, plan.grid, stream);
    case CudaWeightForm::kInt4G32:
      return two ? launch<kInt4, 2>(p, plan.grid, stream) : launch<kInt4, 1>(p, plan.grid, stream);
  }
  return internal("few_rows: unknown form");
}

}  // namespace rk::kernels
