// gemm over the shapes of SmolLM2-135M (Q4_1, Q8_0 head) and Qwen2.5-1.5B (Q4_K, Q6_K): GOP/s for
// prefill, GB/s of packed weights for decode, and the memory's own read bandwidth to hold it
// against.
//
//   bench/gemm_bench --benchmark_filter='Gemv|Read'
//
// Decode walks over copies of the weight worth 256 MiB, so that no cache helps. RK_GEMM=avx2 picks
// the variant.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <random>

#include "kernels/gemm/gemm.h"
#include "tensor/quant_block.h"

namespace rk::kernels {
namespace {

struct Shape {
  const char* name;
  DType dtype;
  int64_t n, k;
};
constexpr Shape kShapes[] = {
    {"135m_qkv_q4_1", DType::kQ4_1, 960, 576},       {"135m_o_q4_1", DType::kQ4_1, 576, 576},
    {"135m_gateup_q4_1", DType::kQ4_1, 3072, 576},   {"135m_down_q4_1", DType::kQ4_1, 576, 1536},
    {"135m_head_q8_0", DType::kQ8_0, 49152, 576},    {"1.5b_qkv_q4_k", DType::kQ4_K, 2048, 1536},
    {"1.5b_gateup_q4_k", DType::kQ4_K, 17920, 1536}, {"1.5b_down_q6_k", DType::kQ6_K, 1536, 8960},
    {"0.5b_gateup_q5_0", DType::kQ5_0, 9728, 896},   {"f16", DType::kF16, 3072, 1536},
};

const ForcedVariants& forced() {
  static const ForcedVariants variants = [] {
    const char* name = std::getenv("RK_GEMM");
    return name == nullptr ? ForcedVariants{} : ForcedVariants{{"gemm", name}};
  }();
  return variants;
}

/// As many packed copies of one random weight as fill `bytes`, at least one.
std::vector<std::unique_ptr<PackedWeight>> weights(const Shape& s, Context& ctx, int64_t bytes) {
  std::vector<float> row(static_cast<size_t>(s.k));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 0.05F);
  for (float& v : row) v = normal(random);
  const int64_t row_bytes = dtype_bytes(s.dtype, s.k);
  std::vector<std::byte> file(static_cast<size_t>(s.n * row_bytes));
  for (int64_t i = 0; i < s.n; ++i) {
    quantize(s.dtype, row.data(), file.data() + i * row_bytes, s.k);
  }
  const View part(file.data(), s.dtype, {s.n, s.k});
  std::vector<std::unique_ptr<PackedWeight>> out;
  for (int64_t have = 0; out.empty() || have < bytes; have += out.back()->num_bytes()) {
    out.push_back(std::move(pack_weight({&part, 1}, ctx)).value());
  }
  return out;
}

void run(benchmark::State& state, const Shape& s, int64_t m, int num_threads, int64_t bytes) {
  ThreadPool pool(num_threads);
  Context ctx{.pool = &pool, .forced = &forced()};
  const auto copies = weights(s, ctx, bytes);
  std::vector<float> x(static_cast<size_t>(m * s.k)), y(static_cast<size_t>(m * s.n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.01F * static_cast<float>(i % 199) - 1.0F;
  size_t next = 0;
  for (auto _ : state) {
    const GemmArgs args{.x = View(x.data(), DType::kF32, {m, s.k}),
                        .w = copies[next++ % copies.size()].get(),
                        .y = View(y.data(), DType::kF32, {m, s.n})};
    if (!gemm(args, ctx).ok()) return state.SkipWithError("gemm failed");
  }
  const double ops = 2.0 * static_cast<double>(m * s.n * s.k), per = 1e-9;
  using benchmark::Counter;
  state.counters["GOP/s"] = Counter(ops * per, Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = Counter(static_cast<double>(copies[0]->num_bytes()) * per,
                                   Counter::kIsIterationInvariantRate);
}

void read_memory(benchmark::State& state, int num_threads) {
  ThreadPool pool(num_threads);
  const int64_t num = int64_t{256 << 20} / 8;
  std::vector<uint64_t> memory(static_cast<size_t>(num), 1);
  std::vector<uint64_t> sums(static_cast<size_t>(num_threads) * 8);
  for (auto _ : state) {
    pool.parallel_for(num, num / (num_threads * 8), [&](int64_t begin, int64_t end, int thread) {
      uint64_t sum[8] = {};
      for (int64_t i = begin; i + 8 <= end; i += 8) {
        for (int64_t j = 0; j < 8; ++j) sum[j] ^= memory[static_cast<size_t>(i + j)];
        __builtin_prefetch(&memory[static_cast<size_t>(i)] + 256);
      }
      for (const uint64_t v : sum) sums[static_cast<size_t>(thread) * 8] += v;
    });
  }
  benchmark::DoNotOptimize(sums.data());
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(num) * 8e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

const int registered = [] {
  for (const int threads : {1, 2}) {
    const std::string suffix = "/threads:" + std::to_string(threads);
    benchmark::RegisterBenchmark(("ReadMemory" + suffix).c_str(), read_memory, threads)
        ->UseRealTime();
    for (const Shape& s : kShapes) {
      for (const int64_t m : {1, 4, 32, 512}) {
        const std::string name =
            std::string(m == 1 ? "Gemv/" : "Gemm/") + s.name + "/M:" + std::to_string(m) + suffix;
        const int64_t bytes = m > 32 ? 0 : int64_t{256} << 20;
        benchmark::RegisterBenchmark(name.c_str(), run, s, m, threads, bytes)
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  return 0;
}();

}  // namespace
}  // namespace rk::kernels
