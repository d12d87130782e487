// Rows, table entries and pages moved on the card, and random fills.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/layer/layer_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMaxGridY = 32768;

// Unit is what one thread moves at a time; strides and width count units.
template <class Unit>
__global__ void gather_rows_kernel(const Unit* x, const int32_t* __restrict__ rows, Unit* y,
                                   int64_t num, int64_t width, int64_t x_stride, int64_t y_stride) {
  start_next_kernel();
  await_kernel_before();
  const int64_t d = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (d >= width) return;
  for (int64_t i = blockIdx.y; i < num; i += gridDim.y) {
    y[i * y_stride + d] = x[rows[i] * x_stride + d];
  }
}

template <class Unit>
Status gather(const View& x, const int32_t* rows, const View& y, int64_t element, Stream stream) {
  const int64_t per = static_cast<int64_t>(sizeof(Unit)) / element, width = y.dim[1] / per;
  const dim3 grid(blocks_for(width, kThreads),
                  static_cast<unsigned>(std::min<int64_t>(y.dim[0], kMaxGridY)));
  return launch_early("gather_rows", gather_rows_kernel<Unit>, grid, kThreads, 0, stream,
                      x.ptr<Unit>(), rows, y.ptr<Unit>(), y.dim[0], width, x.stride[0] / per,
                      y.stride[0] / per);
}

template <class Unit>
__device__ __forceinline__ Unit sum(const Unit& a, const Unit& b);
template <>
__device__ __forceinline__ float sum(const float& a, const float& b) {
  return a + b;
}
template <>
__device__ __forceinline__ float4 sum(const float4& a, const float4& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

template <class Unit>
__global__ void add_rows_kernel(const Unit* __restrict__ y, const int32_t* __restrict__ rows,
                                Unit* __restrict__ x, int64_t num, int64_t width, int64_t y_stride,
                                int64_t x_stride) {
  const int64_t d = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (d >= width) return;
  for (int64_t i = blockIdx.y; i < num; i += gridDim.y) {
    Unit& to = x[rows[i] * x_stride + d];
    to = sum(to, y[i * y_stride + d]);
  }
}

template <class Unit>
void add_rows(const View& y, const int32_t* rows, const View& x, Stream stream) {
  constexpr int64_t kPer = sizeof(Unit) / sizeof(float);
  const int64_t width = y.dim[1] / kPer;
  const dim3 grid(blocks_for(width, kThreads),
                  static_cast<unsigned>(std::min<int64_t>(y.dim[0], kMaxGridY)));
  add_rows_kernel<Unit><<<grid, kThreads, 0, stream>>>(
      y.ptr<Unit>(), rows, x.ptr<Unit>(), y.dim[0], width, y.stride[0] / kPer, x.stride[0] / kPer);
}

__global__ void scatter_i32_kernel(const int64_t* __restrict__ index,
                                   const int32_t* __restrict__ value, int64_t num, int32_t* to) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < num) to[index[i]] = value[i];
}

__global__ void copy_pages_kernel(uint4* k, uint4* v, const int32_t* __restrict__ from,
                                  const int32_t* __restrict__ to, int64_t units) {
  uint4* pages = blockIdx.y == 0 ? k : v;
  const int64_t source = from[blockIdx.x] * units, target = to[blockIdx.x] * units;
  for (int64_t d = threadIdx.x; d < units; d += kThreads) pages[target + d] = pages[source + d];
}

__device__ uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

__device__ void put(float* to, float v) { *to = v; }
__device__ void put(__half* to, float v) { *to = __float2half(v); }
__device__ void put(__nv_bfloat16* to, float v) { *to = __float2bfloat16(v); }

// Box and Muller: two normal values from one hash of (seed, pair).
template <class T>
__global__ void fill_normal_kernel(T* x, int64_t num, uint64_t seed, float deviation) {
  const uint64_t key = mix(seed + 0x9e3779b97f4a7c15ULL);
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; 2 * i < num; i += step) {
    const uint64_t bits = mix(key + static_cast<uint64_t>(i + 1) * 0x9e3779b97f4a7c15ULL);
    const float u = (static_cast<float>(bits >> 40) + 0.5F) * 0x1.0p-24F;
    const float angle = static_cast<float>(bits & 0xffffffU) * 0x1.0p-23F;  // in half turns
    const float radius = deviation * sqrtf(-2.0F * logf(u));
    float s, c;
    sincospif(angle, &s, &c);
    put(x + 2 * i, radius * c);
    if (2 * i + 1 < num) put(x + 2 * i + 1, radius * s);
  }
}

template <class T>
void fill(const View& x, uint64_t seed, float deviation, Stream stream) {
  const int64_t num = x.num_elements();
  const unsigned grid = std::min(blocks_for((num + 1) / 2, kThreads), 132U * 16);
  fill_normal_kernel<T><<<grid, kThreads, 0, stream>>>(x.ptr<T>(), num, seed, deviation);
}

}  // namespace

Status gather_rows_cuda(const View& x, const int32_t* rows, const View& y, Stream stream) {
  const int64_t element = dtype_info(x.dtype).block_bytes;
  if (x.rank != 2 || y.rank != 2 || x.dtype != y.dtype || dtype_info(x.dtype).block_elems != 1 ||
      x.dim[1] != y.dim[1] || x.stride[1] != 1 || y.stride[1] != 1) {
    return invalid_argument("gather_rows_cuda: [*, N] and [num, N] of one plain dtype wanted, are ",
                            x.describe(), " and ", y.describe());
  }
  if (y.dim[0] == 0 || y.dim[1] == 0) return {};
  const auto bits = static_cast<int64_t>(
      reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(y.data) |
      static_cast<uintptr_t>((x.stride[0] | y.stride[0] | x.dim[1]) * element));
  if (bits % 16 == 0) return gather<uint4>(x, rows, y, element, stream);
  if (bits % 4 == 0) return gather<uint32_t>(x, rows, y, element, stream);
  if (element == 1) return gather<uint8_t>(x, rows, y, element, stream);
  return gather<uint16_t>(x, rows, y, element, stream);
}

Status add_rows_cuda(const View& y, const int32_t* rows, const View& x, Stream stream) {
  if (x.rank != 2 || y.rank != 2 || x.dtype != DType::kF32 || y.dtype != DType::kF32 ||
      x.dim[1] != y.dim[1] || x.stride[1] != 1 || y.stride[1] != 1) {
    return invalid_argument("add_rows_cuda: f32 [num, N] and [*, N] wanted, are ", y.describe(),
                            " and ", x.describe());
  }
  if (y.dim[0] == 0 || y.dim[1] == 0) return {};
  const auto addresses = reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(y.data);
  if (addresses % 16 == 0 && (x.stride[0] | y.stride[0] | x.dim[1]) % 4 == 0) {
    add_rows<float4>(y, rows, x, stream);
  } else {
    add_rows<float>(y, rows, x, stream);
  }
  return cuda_status("add_rows");
}

Status scatter_i32_cuda(const int64_t* index, const int32_t* value, int64_t num, int32_t* to,
                        Stream stream) {
  if (num == 0) return {};
  scatter_i32_kernel<<<blocks_for(num, kThreads), kThreads, 0, stream>>>(index, value, num, to);
  return cuda_status("scatter_i32");
}

Status copy_pages_cuda(const View& k_pages, const View& v_pages, const int32_t* from,
                       const int32_t* to, int64_t num, Stream stream) {
  const int64_t bytes = dtype_bytes(k_pages.dtype, k_pages.dim[1] * k_pages.dim[2]);
  if (k_pages.rank != 3 || v_pages.dtype != k_pages.dtype || v_pages.dim != k_pages.dim ||
      k_pages.stride[0] != k_pages.dim[1] * k_pages.dim[2] || v_pages.stride != k_pages.stride ||
      bytes % 16 != 0) {
    return invalid_argument(
        "copy_pages_cuda: dense [N, P, D] pages of K and V wanted, whole "
        "16-byte units each; are ",
        k_pages.describe(), " and ", v_pages.describe());
  }
  if (num == 0) return {};
  copy_pages_kernel<<<dim3(static_cast<unsigned>(num), 2), kThreads, 0, stream>>>(
      k_pages.ptr<uint4>(), v_pages.ptr<uint4>(), from, to, bytes / 16);
  return cuda_status("copy_pages");
}

Status fill_normal_cuda(const View& x, uint64_t seed, float deviation, Stream stream) {
  if (x.num_elements() == 0) return {};
  switch (x.dtype) {
    case DType::kF32:
      fill<float>(x, seed, deviation, stream);
      break;
    case DType::kF16:
      fill<__half>(x, seed, deviation, stream);
      break;
    case DType::kBf16:
      fill<__nv_bfloat16>(x, seed, deviation, stream);
      break;
    default:
      return invalid_argument("fill_normal_cuda: f32, f16 or bf16 wanted, is ", x.describe());
  }
  return cuda_status("fill_normal");
}

}  // namespace rk::kernels
