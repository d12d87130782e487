// One block a row. Weights are recomputed in every pass instead of stored: the row stays in L2 and
// a pass is a few microseconds. Greedy is one pass, temperature alone two; top-k and top-p add four
// each, a radix selection as in sample.cc. No fused multiply-add anywhere: the host has none.
#include <climits>

#include "kernels/cuda/launch.cuh"
#include "kernels/sample/sample_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr float kInf = __builtin_huge_valf();
using Mass = unsigned long long;  // NOLINT: what atomicAdd takes; weights in units of 2^-34

// exp_negative() of base/fast_exp.h and on_grid() of sample.cc, operation by operation.
__device__ float exp_negative(float x) {
  const float clamped = x > -87.0F ? x : -87.0F;
  const float scaled = __fsub_rn(__fmul_rn(clamped, 1.44269504F), 0.5F);
  const int n = static_cast<int>(scaled);
  const auto whole = static_cast<float>(n);
  const float r = __fadd_rn(__fsub_rn(clamped, __fmul_rn(whole, 0.693359375F)),
                            __fmul_rn(whole, 2.12194440e-4F));
  float p = 1.9875691500e-4F;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3F);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3F);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2F);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1F);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1F);
  const float sum = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0F);
  const float value = __fmul_rn(sum, __int_as_float((n + 127) << 23));
  return x > -87.0F ? value : 0.0F;
}
__device__ float on_grid(float weight) {
  constexpr float kBound = 0x1.0p-11F;
  return weight < kBound ? __fsub_rn(__fadd_rn(weight, kBound), kBound) : weight;
}

__device__ uint32_t order_key(float x) {
  const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0F));
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}
__device__ double random_unit(uint64_t seed, uint64_t draw) {
  const uint64_t bits = mix(mix(seed + 0x9e3779b97f4a7c15ULL) + (draw + 1) * 0x9e3779b97f4a7c15ULL);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

// The candidates: finite logits whose (key, id) is at or above the threshold in sample.cc's order,
// and whose weight is at least `least`.
struct Row {
  const float* logits;
  int vocab;
  float max, temperature;
  uint32_t key = 0;  // above it all; at it, ids up to last_id
  int last_id = INT_MAX;
  float least = 0.0F;

  __device__ bool has(int id) const {
    const float x = logits[id];
    if (!(fabsf(x) < kInf)) return false;
    const uint32_t k = order_key(x);
    return k > key || (k == key && id <= last_id);
  }
  __device__ float weight(int id) const {
    return on_grid(exp_negative(__fdiv_rn(__fsub_rn(logits[id], max), temperature)));
  }
  __device__ Mass mass(int id) const {
    if (!has(id)) return 0;
    const float w = weight(id);
    return w < least ? 0 : static_cast<Mass>(w * 0x1.0p34F);
  }
};

struct Shared {
  Mass mass[256];
  unsigned used[256];
  Mass part[kWarps];
  float value[kWarps];
  int id[kWarps];
  Mass above;
  uint32_t key;
  int last_id;
};

__device__ Mass warp_sum(Mass v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0U, v, step);
  return v;
}

__device__ void apply(const SampleRow& row, const SampleAdjust* adjust, float* logits) {
  for (int i = row.adjust_begin + threadIdx.x; i < row.adjust_end; i += kThreads) {
    const SampleAdjust a = adjust[i];
    if (i > row.adjust_begin && adjust[i - 1].token == a.token) continue;
    float x = logits[a.token];
    if (a.seen != 0) {
      x = x > 0 ? __fdiv_rn(x, row.repetition_penalty) : __fmul_rn(x, row.repetition_penalty);
    }
    if (a.count > 0) {
      x = __fsub_rn(x, __fadd_rn(row.presence_penalty,
                                 __fmul_rn(row.frequency_penalty, static_cast<float>(a.count))));
    }
    for (int j = i; j < row.adjust_end && adjust[j].token == a.token; ++j) {
      x = __fadd_rn(x, adjust[j].bias);
    }
    logits[a.token] = x;
  }
  __syncthreads();
}

// The largest finite logit and the lowest id that has it; every thread gets both.
__device__ void find_max(const float* logits, int vocab, Shared& s, float& max, int& id) {
  float best = -kInf;
  int at = INT_MAX;
#pragma unroll 4
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    const float x = logits[i];
    if (x > best && x < kInf) best = x, at = i;
  }
  const auto merge = [&] {
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(~0U, best, step);
      const int other_at = __shfl_xor_sync(~0U, at, step);
      if (other > best || (other == best && other_at < at)) best = other, at = other_at;
    }
  };
  merge();
  if (threadIdx.x % 32 == 0) s.value[threadIdx.x / 32] = best, s.id[threadIdx.x / 32] = at;
  __syncthreads();
  best = s.value[threadIdx.x % 32];
  at = s.id[threadIdx.x % 32];
  merge();
  __syncthreads();
  max = best;
  id = at;
}

// keep_best() of sample.cc: lowers the threshold until the candidates above it weigh `wanted`
// (units; or count so many, where by_count). Ends with all threads agreed.
__device__ void keep_best(Row& row, double wanted, bool by_count, Shared& s) {
  uint32_t prefix = 0;
  Mass above = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int b = threadIdx.x; b < 256; b += kThreads) s.mass[b] = 0, s.used[b] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < row.vocab; i += kThreads) {
      if (!row.has(i)) continue;
      const uint32_t key = order_key(row.logits[i]);
      if (shift < 24 && key >> (shift + 8) != prefix >> (shift + 8)) continue;
      const uint32_t bucket = key >> shift & 255U;
      atomicAdd(&s.mass[bucket], by_count ? Mass{1} : row.mass(i));
      atomicAdd(&s.used[bucket], 1U);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int chosen = -1, lowest = 0;
      for (int b = 255; b >= 0 && chosen < 0; --b) {
        if (s.used[b] == 0) continue;
        lowest = b;
        if (static_cast<double>(above + s.mass[b]) >= wanted) {
          chosen = b;
        } else {
          above += s.mass[b];
        }
      }
      if (chosen < 0) chosen = lowest, above -= s.mass[chosen];
      s.above = above;
      s.key = prefix | static_cast<uint32_t>(chosen) << shift;
      s.last_id = static_cast<int>(s.used[chosen]);  // candidates that tie, after the last pass
    }
    __syncthreads();
    above = s.above;
    prefix = s.key;
  }
  // Candidates of one key weigh alike; how many of them it takes, in order of id.
  const auto ties = s.last_id;
  const Mass each = s.mass[prefix & 255U] / static_cast<Mass>(ties);
  __syncthreads();
  int take = 1;
  while (take < ties && static_cast<double>(above + each * take) < wanted) ++take;
  int last_id = INT_MAX;
  if (take < ties) {
    if (threadIdx.x < 32) {
      int seen = 0;
      for (int begin = 0; begin < row.vocab && last_id == INT_MAX; begin += 32) {
        const int id = begin + static_cast<int>(threadIdx.x);
        const bool tie = id < row.vocab && row.has(id) && order_key(row.logits[id]) == prefix;
        unsigned mask = __ballot_sync(~0U, tie);
        if (seen + __popc(mask) >= take) {
          for (; seen + 1 < take; ++seen) mask &= mask - 1;
          last_id = begin + __ffs(mask) - 1;
        }
        seen += __popc(mask);
      }
      if (threadIdx.x == 0) s.last_id = last_id;
    }
    __syncthreads();
    last_id = s.last_id;
  }
  __syncthreads();
  row.key = prefix;
  row.last_id = last_id;
}

// Sums of the 32 equal pieces of [begin, end), one a warp; `piece` ids each, a multiple of 32.
__device__ void piece_sums(const Row& row, int begin, int end, int piece, Shared& s) {
  const int warp = threadIdx.x / 32, from = begin + warp * piece, to = min(from + piece, end);
  Mass sum = 0;
  for (int i = from + static_cast<int>(threadIdx.x) % 32; i < to; i += 32) sum += row.mass(i);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) s.part[warp] = sum;
  __syncthreads();
}

__device__ Mass total_mass(const Row& row, Shared& s) {
  piece_sums(row, 0, row.vocab, (row.vocab + kThreads - 1) / kThreads * 32, s);
  Mass total = 0;
  for (int w = 0; w < kWarps; ++w) total += s.part[w];
  __syncthreads();
  return total;
}

// The first candidate at which the running sum, in order of id, exceeds `unit` of the whole.
__device__ int draw_from(const Row& row, double unit, Shared& s) {
  int begin = 0, end = row.vocab;
  Mass before = 0;
  double target = -1.0;
  while (true) {
    const int piece = (end - begin + kThreads - 1) / kThreads * 32;
    piece_sums(row, begin, end, piece, s);
    if (target < 0.0) {
      Mass total = 0;
      for (int w = 0; w < kWarps; ++w) total += s.part[w];
      target = unit * static_cast<double>(total);
    }
    int chosen = 0;
    Mass reached = before, at = before;
    for (int w = 0; w < kWarps; ++w) {
      if (s.part[w] == 0) continue;
      chosen = w;
      at = reached;
      reached += s.part[w];
      if (static_cast<double>(reached) > target) break;
    }
    __syncthreads();
    before = at;
    begin += chosen * piece;
    end = min(begin + piece, end);
    if (piece == 32) break;
  }
  int last = begin;
  for (int id = begin; id < end; ++id) {
    const Mass m = row.mass(id);
    if (m == 0) continue;
    last = id;
    before += m;
    if (static_cast<double>(before) > target) break;
  }
  return last;
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(float* logits, int64_t stride, int vocab, const SampleRow* rows,
                  const SampleAdjust* adjust, int32_t* tokens) {
  __shared__ Shared s;
  await_kernel_before();
  logits += blockIdx.x * stride;
  const SampleRow options = rows[blockIdx.x];
  apply(options, adjust, logits);
  float max;
  int best;
  find_max(logits, vocab, s, max, best);
  if (max == -kInf || options.temperature == 0.0F || options.top_k == 1) {
    if (threadIdx.x == 0) tokens[blockIdx.x] = max == -kInf ? -1 : best;
    return;
  }
  Row row{logits, vocab, max, options.temperature};
  if (options.top_k > 0 && options.top_k < vocab) keep_best(row, options.top_k, true, s);
  if (options.top_p < 1.0F) {
    const auto total = static_cast<double>(total_mass(row, s));
    keep_best(row, static_cast<double>(options.top_p) * total, false, s);
  }
  row.least = options.min_p;
  const int token = draw_from(row, random_unit(options.seed, options.draw), s);
  if (threadIdx.x == 0) tokens[blockIdx.x] = token;
}

}  // namespace

Status sample_cuda(const View& logits, const SampleRow* rows, const SampleAdjust* adjust,
                   int32_t* tokens, Stream stream) {
  constexpr int64_t kMaxVocab = int64_t{1} << 19;
  if (logits.rank != 2 || logits.dtype != DType::kF32 || logits.stride[1] != 1 ||
      logits.dim[1] <= 0 || logits.dim[1] > kMaxVocab) {
    return invalid_argument("sample_cuda: logits f32 [R, V] wanted, V up to ", kMaxVocab, "; are ",
                            logits.describe());
  }
  if (logits.dim[0] == 0) return {};
  return launch_early("sample", sample_kernel, static_cast<unsigned>(logits.dim[0]), kThreads, 0,
                      stream, logits.ptr<float>(), logits.stride[0],
                      static_cast<int>(logits.dim[1]), rows, adjust, tokens);
}

}  // namespace rk::kernels
