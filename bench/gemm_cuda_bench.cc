// Linear layers on the card, over the shapes of Qwen3-32B: GB/s of weight bytes for few rows,
// TFLOP/s for many. Each figure is the median of several timings by the host clock over a batch of
// launches, weights rotated so that no cache holds them. No card: says so and exits 0.
//
//   bench/gemm_cuda_bench [--quick]
//
// "own" is our kernel in slices of 16 rows, "lt" cuBLASLt; run() takes the faster by form and rows.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/gemm/gemm_cuda.h"
#include "kernels/layer/layer_cuda.h"
#include "tensor/buffer.h"

namespace rk::kernels {
namespace {

struct Shape {
  const char* name;
  int64_t n, k;
};
constexpr Shape kShapes[] = {
    {"qkv", 10240, 5120}, {"o", 5120, 8192}, {"gate_up", 51200, 5120}, {"down", 5120, 25600}};

const char* form_name(CudaWeightForm form) {
  switch (form) {
    case CudaWeightForm::kBf16:
      return "bf16";
    case CudaWeightForm::kFp8:
      return "fp8";
    case CudaWeightForm::kInt8G32:
      return "int8";
    default:
      return "int4";
  }
}

struct Timing {
  double median = 0.0, low = 0.0, high = 0.0;  // microseconds a call
};

template <class F>
Timing time_calls(Stream stream, int batch, F call) {
  std::vector<double> us;
  for (int i = 0; i < batch; ++i) call(i);
  if (!sync_stream(stream).ok()) return {};
  for (int round = 0; round < 7; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < batch; ++i) call(i);
    if (!sync_stream(stream).ok()) return {};
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    us.push_back(took.count() / batch);
  }
  std::sort(us.begin(), us.end());
  return {us[3], us.front(), us.back()};
}

int fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}

int bench_copy(Stream stream) {
  constexpr int64_t kBytes = int64_t{4} << 30;
  auto a = Buffer::allocate(kBytes, Memory::kCard), b = Buffer::allocate(kBytes, Memory::kCard);
  if (!a.ok() || !b.ok()) return 1;
  const Timing t = time_calls(
      stream, 5, [&](int) { (void)copy_on_card(b->data(), a->data(), kBytes, stream).ok(); });
  std::printf("copy of 4 GiB: %.0f GB/s read and written\n", 2e-3 * kBytes / t.median);
  return 0;
}

int bench_shape(GemmCuda& gemm, const char* path, Stream stream, const Shape& s,
                CudaWeightForm form, std::vector<int64_t> rows) {
  std::vector<std::unique_ptr<CudaWeight>> copies;
  for (int64_t bytes = 0; copies.size() < 2 || bytes < int64_t{400} << 20;) {
    auto w = gemm.random(s.n, s.k, form, copies.size(), 0.02F);
    if (!w.ok()) return fail(w.status());
    bytes += (*w)->num_bytes();
    copies.push_back(std::move(w).value());
  }
  const int64_t most = *std::max_element(rows.begin(), rows.end());
  auto x = Buffer::allocate(most * s.k * 2, Memory::kCard);
  auto y = Buffer::allocate(most * s.n * 2, Memory::kCard);
  if (!x.ok() || !y.ok()) return 1;
  (void)fill_normal_cuda(View(x->data(), DType::kBf16, {most, s.k}), 1, 1.0F, stream).ok();
  for (const int64_t m : rows) {
    if (const Status st = gemm.prepare(*copies[0], m, DType::kBf16, false, false); !st.ok()) {
      return fail(st);
    }
    Status status;
    const int batch = m <= 64 ? 60 : m <= 512 ? 20 : 6;
    const Timing t = time_calls(stream, batch, [&](int i) {
      const Status st = gemm.run({.x = View(x->data(), DType::kBf16, {m, s.k}),
                                  .w = copies[static_cast<size_t>(i) % copies.size()].get(),
                                  .y = View(y->data(), DType::kBf16, {m, s.n})});
      if (!st.ok()) status = st;
    });
    if (!status.ok()) return fail(status);
    const double bytes = static_cast<double>(copies[0]->num_bytes()), flop = 2e-6 * m * s.n * s.k;
    std::printf(
        "%-5s %-4s %-8s M=%-5ld %9.1f us (%.1f to %.1f) %7.0f GB/s of weights %7.1f TFLOP/s\n",
        form_name(form), path, s.name, static_cast<long>(m), t.median, t.low, t.high,
        1e-3 * bytes / t.median, flop / t.median);
  }
  return 0;
}

int run(bool quick) {
  if (num_cards() == 0) {
    std::printf("no CUDA card\n");
    return 0;
  }
  auto card = open_card(0);
  if (!card.ok()) return fail(card.status());
  const Stream stream = create_stream().value();
  GemmCuda::Options options{.expand_elements = int64_t{51200} * 5120,
                            .fp8_elements = int64_t{8192} * 25600};
  options.few_bf16_rows = options.few_fp8_rows = options.few_quant_rows = 64;
  auto gemm = GemmCuda::create(options, stream);
  options.few_bf16_rows = options.few_fp8_rows = options.few_quant_rows = 0;
  auto library = GemmCuda::create(options, stream);
  if (!gemm.ok() || !library.ok()) return fail(gemm.status());
  std::printf("%s, %d multiprocessors\n", card->name.c_str(), card->num_sms);
  int failed = bench_copy(stream);
  const std::vector<int64_t> few =
      quick ? std::vector<int64_t>{1, 8} : std::vector<int64_t>{1, 2, 4, 8, 16, 32, 64};
  const std::vector<int64_t> many{1, 4, 8, 16, 32, 64, 128, 512, 8192};
  for (const auto form : {CudaWeightForm::kBf16, CudaWeightForm::kFp8, CudaWeightForm::kInt8G32,
                          CudaWeightForm::kInt4G32}) {
    for (const Shape& s : kShapes) {
      failed += bench_shape(**gemm, "own", stream, s, form, few);
      if (!quick) failed += bench_shape(**library, "lt", stream, s, form, many);
    }
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace rk::kernels

int main(int argc, char** argv) {
  return rk::kernels::run(argc > 1 && std::strcmp(argv[1], "--quick") == 0);
}
