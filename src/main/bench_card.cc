// The card's ceilings, and timing by recorded launches.
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/layer/layer_cuda.h"
#include "main/bench_kernels.h"
#include "tensor/buffer.h"

namespace rk::cli {

Result<Ceilings> card_ceilings() {
  constexpr int64_t kSide = 8192, kCopyBytes = int64_t{2} << 30;
  constexpr int kRuns = 10;
  RK_TRY(const Stream stream, create_stream());
  Ceilings out;
  {
    RK_TRY(const Buffer from, Buffer::allocate(kCopyBytes, Memory::kCard));
    RK_TRY(const Buffer to, Buffer::allocate(kCopyBytes, Memory::kCard));
    for (int i = -2; i < kRuns; ++i) {
      const double begin = now_ms();
      RK_RETURN_IF_ERROR(copy_on_card(to.data(), from.data(), kCopyBytes, stream));
      RK_RETURN_IF_ERROR(sync_stream(stream));
      if (i < 0) continue;
      const double speed = 2e3 * static_cast<double>(kCopyBytes) / (now_ms() - begin);
      out.bytes_per_s = std::max(out.bytes_per_s, speed);
    }
  }
  RK_TRY(auto gemm, kernels::GemmCuda::create({}, stream));
  RK_TRY(const auto w, gemm->random(kSide, kSide, kernels::CudaWeightForm::kBf16, 1, 0.02F));
  RK_TRY(const Buffer memory, Buffer::allocate(2 * kSide * kSide * 2, Memory::kCard));
  const View x(memory.data(), DType::kBf16, {kSide, kSide});
  const View y(memory.as<std::byte>() + kSide * kSide * 2, DType::kBf16, {kSide, kSide});
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(x, 2, 1.0F, stream));
  RK_RETURN_IF_ERROR(gemm->prepare(*w, kSide, DType::kBf16, false, false));
  for (int i = -3; i < kRuns; ++i) {
    const double begin = now_ms();
    RK_RETURN_IF_ERROR(gemm->run({x, w.get(), View(), y, false}));
    RK_RETURN_IF_ERROR(sync_stream(stream));
    const double flops = 2.0 * kSide * kSide * kSide / ((now_ms() - begin) * 1e-3);
    if (i >= 0) out.flops = std::max(out.flops, flops);
  }
  return out;
}

Result<Spread> time_on_card(Stream stream, int rounds, int calls,
                            const std::function<Status(int)>& call) {
  RK_RETURN_IF_ERROR(call(0));  // what a first call sets up cannot be recorded
  RK_RETURN_IF_ERROR(sync_stream(stream));
  RK_RETURN_IF_ERROR(begin_recording(stream));
  Status status;
  for (int i = 0; i < calls && status.ok(); ++i) status = call(i);
  auto graph = end_recording(stream);  // also after an error: it ends the recording
  RK_RETURN_IF_ERROR(status);
  RK_RETURN_IF_ERROR(graph.status());
  std::vector<double> ms;
  for (int i = -1; i < rounds; ++i) {
    const double begin = now_ms();
    RK_RETURN_IF_ERROR(replay(*graph, stream));
    RK_RETURN_IF_ERROR(sync_stream(stream));
    if (i >= 0) ms.push_back((now_ms() - begin) / calls);
  }
  return Spread::of(std::move(ms));
}

}  // namespace rk::cli
