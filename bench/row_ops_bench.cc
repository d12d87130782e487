// The memory-bound rest of a layer on the host, and sampling: every variant that runs here, in
// bytes read and written per second. Rows as in a prefill step of 128 of a 1.5B model.
#include <benchmark/benchmark.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/kv_copy/kv_copy.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"
#include "kernels/row_code/row_code.h"
#include "kernels/sample/sample.h"
#include "kernels/swiglu/swiglu.h"

namespace rk::kernels {
namespace {

constexpr int64_t kRows = 128, kHidden = 1536, kFfn = 8960, kDim = 128, kHeads = 12, kKvHeads = 2;
constexpr int64_t kVocab = 151936;

std::vector<float> normal(int64_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> of;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) x = of(random);
  return out;
}

void run(benchmark::State& state, const std::string& op, const char* variant, int64_t bytes,
         const std::function<Status(Context&)>& body) {
  const ForcedVariants forced = {{op, variant}};
  Context ctx;
  ctx.forced = &forced;
  for (auto _ : state) {
    const Status status = body(ctx);
    if (!status.ok()) {
      state.SkipWithError(status.message().c_str());
      break;
    }
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}

void norm_bench(benchmark::State& state, const char* variant) {
  auto x = normal(kRows * kHidden), w = normal(kHidden), y = x;
  const View rows(x.data(), DType::kF32, {kRows, kHidden});
  const View out(y.data(), DType::kF32, {kRows, kHidden});
  run(state, "norm", variant, 2 * kRows * kHidden * 4, [&](Context& ctx) {
    return rms_norm({rows, View(w.data(), DType::kF32, {kHidden}), 1e-6F, out}, ctx);
  });
}

void swiglu_bench(benchmark::State& state, const char* variant) {
  auto x = normal(kRows * 2 * kFfn), y = normal(kRows * kFfn);
  const View in(x.data(), DType::kF32, {kRows, 2 * kFfn});
  const View out(y.data(), DType::kF32, {kRows, kFfn});
  run(state, "swiglu", variant, 3 * kRows * kFfn * 4, [&](Context& ctx) {
    return swiglu({in, out}, ctx);
  });
}

void rope_bench(benchmark::State& state, const char* variant) {
  auto x = normal(kRows * kHeads * kDim);
  std::vector<double> inv_freq(kDim / 2);
  for (size_t i = 0; i < inv_freq.size(); ++i) inv_freq[i] = std::pow(1e4, -2.0 * i / kDim);
  const auto table = RopeTable::create(inv_freq, kRows, 1.0, RopePairs::kHalfSplit).value();
  std::vector<int32_t> pos(kRows);
  for (size_t i = 0; i < pos.size(); ++i) pos[i] = static_cast<int32_t>(i);
  const View rows(x.data(), DType::kF32, {kRows, kHeads, kDim});
  run(state, "rope", variant, 2 * kRows * kHeads * kDim * 4,
      [&](Context& ctx) { return rope(rows, pos.data(), table.view(), ctx); });
}

void kv_write_bench(benchmark::State& state, const char* variant) {
  auto k = normal(kRows * kKvHeads * kDim);
  std::vector<uint16_t> pages(static_cast<size_t>(kRows * kKvHeads * kDim));
  auto other = pages;
  std::vector<int64_t> slots(kRows * kKvHeads);
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int64_t>(i);
  const View in(k.data(), DType::kF32, {kRows, kKvHeads, kDim});
  const View k_pages(pages.data(), DType::kF16, {kRows * kKvHeads / 16, 16, kDim});
  const View v_pages(other.data(), DType::kF16, {kRows * kKvHeads / 16, 16, kDim});
  run(state, "kv_copy", variant, 2 * kRows * kKvHeads * kDim * 6, [&](Context& ctx) {
    return kv_write({in, in, k_pages, v_pages, slots}, ctx);
  });
}

// Pages of f16 and their codes, as a document at rest and in use; more than the caches hold. Bytes
// are those of both sides.
void row_code_bench(benchmark::State& state, const char* variant, RowCode code, bool encode,
                    bool with_constant) {
  constexpr int64_t kPages = 32768, kPageRows = 16, kHeadDim = 64;
  const int64_t block = row_block_bytes(code, kPageRows, kHeadDim), page = kPageRows * kHeadDim;
  std::vector<uint16_t> rows(static_cast<size_t>(kPages * page), f32_to_f16(0.7F));
  std::vector<uint8_t> blocks(static_cast<size_t>(kPages * block));
  const auto constant = normal(kHeadDim);
  std::vector<double> inv_freq(kHeadDim / 2, 0.1);
  const auto table = RopeTable::create(inv_freq, 512, 1.0, RopePairs::kHalfSplit).value();
  std::vector<RowCodePage> pages;
  for (int64_t i = 0; i < kPages; ++i) {
    pages.push_back({rows.data() + i * page, blocks.data() + i * block,
                     with_constant ? constant.data() : nullptr,
                     static_cast<int32_t>(i % 32 * kPageRows), kPageRows});
  }
  RowCodeArgs args{code, DType::kF16, kHeadDim, kPageRows, pages, table.view()};
  ThreadPool threads;
  const ForcedVariants forced = {{"row_code", variant}};
  Context ctx{&threads, &forced};
  for (auto _ : state) {
    const Status status = encode ? encode_rows(args, ctx) : decode_rows(args, ctx);
    if (!status.ok()) {
      state.SkipWithError(status.message().c_str());
      break;
    }
  }
  state.SetBytesProcessed(state.iterations() * kPages * (2 * page + block));
}

void sample_bench(benchmark::State& state, bool greedy) {
  const auto logits = normal(kVocab);
  SampleOptions options;
  options.temperature = greedy ? 0.0F : 0.8F;
  options.top_k = greedy ? 0 : 40;
  options.top_p = greedy ? 1.0F : 0.95F;
  uint64_t draw = 0;
  for (auto _ : state) benchmark::DoNotOptimize(sample(logits, options, {}, draw++).value());
  state.SetBytesProcessed(state.iterations() * kVocab * 4);
}

#define RK_ROW_OP(op)                              \
  BENCHMARK_CAPTURE(op##_bench, avx512, "avx512"); \
  BENCHMARK_CAPTURE(op##_bench, avx2, "avx2");     \
  BENCHMARK_CAPTURE(op##_bench, ref, "ref")
RK_ROW_OP(norm);
RK_ROW_OP(swiglu);
RK_ROW_OP(rope);
RK_ROW_OP(kv_write);
#define RK_ROW_CODE(name, code)                                                                  \
  BENCHMARK_CAPTURE(row_code_bench, decode_##name, "avx512", code, false, false)->UseRealTime(); \
  BENCHMARK_CAPTURE(row_code_bench, decode_##name##_avx2, "avx2", code, false, false)            \
      ->UseRealTime();                                                                           \
  BENCHMARK_CAPTURE(row_code_bench, decode_##name##_constant, "avx512", code, false, true)       \
      ->UseRealTime();                                                                           \
  BENCHMARK_CAPTURE(row_code_bench, encode_##name, "avx512", code, true, false)->UseRealTime()
RK_ROW_CODE(int8, RowCode::kInt8);
RK_ROW_CODE(int4, RowCode::kInt4);
RK_ROW_CODE(fp8, RowCode::kFp8);
BENCHMARK_CAPTURE(sample_bench, greedy, true);
BENCHMARK_CAPTURE(sample_bench, top_k_top_p, false);

}  // namespace
}  // namespace rk::kernels
