// Means of pages: stored rows of several computations of one document become one.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/layer/layer_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void mean_pages_kernel(uint4* k, uint4* v, const int32_t* __restrict__ from,
                                  const int32_t* __restrict__ to, int num_from, float share,
                                  int64_t units) {
  uint4* pages = blockIdx.y == 0 ? k : v;
  from += int64_t{blockIdx.x} * num_from;
  for (int64_t d = threadIdx.x; d < units; d += kThreads) {
    float2 sum[4] = {};
    for (int i = 0; i < num_from; ++i) {
      const uint4 x = pages[from[i] * units + d];
      const uint32_t bits[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 pair = unpack_pair<T>(bits[j]);
        sum[j].x += pair.x;
        sum[j].y += pair.y;
      }
    }
    pages[to[blockIdx.x] * units + d] = {pack_pair<T>(sum[0].x * share, sum[0].y * share),
                                         pack_pair<T>(sum[1].x * share, sum[1].y * share),
                                         pack_pair<T>(sum[2].x * share, sum[2].y * share),
                                         pack_pair<T>(sum[3].x * share, sum[3].y * share)};
  }
}

}  // namespace

Status mean_pages_cuda(const View& k_pages, const View& v_pages, const int32_t* from,
                       const int32_t* to, int num_from, int64_t num, Stream stream) {
  const int64_t elements = k_pages.dim[1] * k_pages.dim[2];
  if (k_pages.rank != 3 || v_pages.dtype != k_pages.dtype || v_pages.dim != k_pages.dim ||
      k_pages.stride[0] != elements || v_pages.stride != k_pages.stride || elements % 8 != 0 ||
      (k_pages.dtype != DType::kBf16 && k_pages.dtype != DType::kF16) || num_from < 1) {
    return invalid_argument("mean_pages_cuda: ", num_from,
                            " pages (1 or more), dense [N, P, D] of K and V, bf16 or f16, whole "
                            "16-byte units each wanted; are ",
                            k_pages.describe(), " and ", v_pages.describe());
  }
  if (num == 0) return {};
  const auto kernel =
      k_pages.dtype == DType::kF16 ? mean_pages_kernel<__half> : mean_pages_kernel<__nv_bfloat16>;
  kernel<<<dim3(static_cast<unsigned>(num), 2), kThreads, 0, stream>>>(
      k_pages.ptr<uint4>(), v_pages.ptr<uint4>(), from, to, num_from,
      1.0F / static_cast<float>(num_from), elements / 8);
  return cuda_status("mean_pages");
}

}  // namespace rk::kernels
