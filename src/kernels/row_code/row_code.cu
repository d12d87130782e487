// Pages to codes and back on the card. Bound by memory: decoding, which a prompt waits for, moves 8
// elements a thread with 16-byte stores; encoding, once per document, takes a warp per row.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/row_code/row_code_cuda.h"

namespace rk::kernels {
namespace {

constexpr int kThreads = 256, kGroup = kRowCodeGroup;

struct Params {
  RowCode k, v;
  __nv_bfloat16 *k_pages, *v_pages;
  const int32_t* pages;
  uint8_t* blocks;
  int64_t pages_per_head, k_bytes, v_bytes;
  int page_rows, dim, num_rows;
  const float* key_constant;
  RopeView rope;
};

// What one block of threads works on: K or V of one page.
struct Half {
  RowCode code;
  __nv_bfloat16* rows;
  __half* params;
  uint8_t* codes;
  const float* constant;  // of K, or null
  int first_row, num_rows, params_a_row;
};

__device__ Half half_of(const Params& p) {
  const int64_t i = blockIdx.x, elements = int64_t{p.pages[i]} * p.page_rows * p.dim;
  const bool is_k = blockIdx.y == 0;
  Half h;
  h.code = is_k ? p.k : p.v;
  h.rows = (is_k ? p.k_pages : p.v_pages) + elements;
  uint8_t* block = p.blocks + i * (p.k_bytes + p.v_bytes) + (is_k ? 0 : p.k_bytes);
  h.params = reinterpret_cast<__half*>(block);
  h.params_a_row = h.code == RowCode::kInt4 ? 2 * (p.dim / kGroup) : 1;
  h.codes = block + 2 * h.params_a_row * p.page_rows;
  h.constant =
      is_k && p.key_constant != nullptr ? p.key_constant + i / p.pages_per_head * p.dim : nullptr;
  h.first_row = static_cast<int>(i % p.pages_per_head) * p.page_rows;
  h.num_rows = min(p.page_rows, p.num_rows - h.first_row);
  return h;
}

// Element d of R(row) constant.
__device__ float turned(const float* constant, const RopeView& rope, int row, int d) {
  if (d >= rope.rotary_dim) return constant[d];
  const int half = rope.rotary_dim / 2;
  const bool pairs = rope.pairs == RopePairs::kInterleaved;
  const int i = pairs ? d / 2 : d % half;
  const bool first = pairs ? d % 2 == 0 : d < half;
  const int other = pairs ? d ^ 1 : (first ? d + half : d - half);
  const float c = rope.cos[int64_t{row} * half + i], s = rope.sin[int64_t{row} * half + i];
  return constant[d] * c + (first ? -constant[other] : constant[other]) * s;
}

__device__ float bounded(float x, float low, float high) {  // NaN is low
  x = x > low ? x : low;
  return x < high ? x : high;
}

// The least f16 that is not below x >= 0, at most the greatest finite one.
__device__ __half f16_above(float x) {
  if (!(x > 0.0F)) return __ushort_as_half(0);
  return x < 65504.0F ? __float2half_ru(x) : __ushort_as_half(0x7bff);
}
// The greatest f16 that is not above x.
__device__ __half f16_below(float x) {
  if (!(x > -65504.0F)) return __ushort_as_half(0xfbff);
  if (x <= 0.0F) return __ushort_as_half(__half_as_ushort(f16_above(-x)) | 0x8000U);
  return x < 65504.0F ? __float2half_rd(x) : __ushort_as_half(0x7bff);
}

__device__ uint8_t to_e4m3(float x) {  // row_code_ref.cc says why
  const unsigned h = __half_as_ushort(__float2half_rn(bounded(x, -448.0F, 448.0F) * (1.0F / 256)));
  const unsigned magnitude = h & 0x7fffU;
  return static_cast<uint8_t>((h >> 8 & 0x80U) | (magnitude + 0x3fU + (magnitude >> 7 & 1U)) >> 7);
}
__device__ float from_e4m3(unsigned code) {  // / 256
  return __half2float(
      __ushort_as_half(static_cast<unsigned short>((code & 0x80U) << 8 | (code & 0x7fU) << 7)));
}

__device__ float warp_least(float x) {
  for (int step = 16; step > 0; step /= 2) x = fminf(x, __shfl_xor_sync(~0U, x, step));
  return x;
}
__device__ float warp_largest(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0U, x, step));
  return x;
}

// One warp, one row: lane holds elements lane, lane + 32, ...
__device__ void encode_row(const Params& p, const Half& h, int r, int lane) {
  const auto value = [&](int d) {
    const float x = __bfloat162float(h.rows[r * p.dim + d]);
    return h.constant == nullptr ? x : x - turned(h.constant, p.rope, h.first_row + r, d);
  };
  __half* params = h.params + r * h.params_a_row;
  if (h.code == RowCode::kInt4) {
    for (int g = 0; g < p.dim / kGroup; ++g) {
      const float x = value(g * kGroup + lane);
      const __half low = f16_below(warp_least(x));  // fminf leaves NaN out
      const float base = __half2float(low);
      const __half width = f16_above((warp_largest(x) - base) / 15.0F);
      const float step = __half2float(width), inverse = step > 0.0F ? 1.0F / step : 0.0F;
      const auto code = static_cast<unsigned>(rintf(bounded((x - base) * inverse, 0.0F, 15.0F)));
      const unsigned other = __shfl_down_sync(~0U, code, kGroup / 2);
      if (lane < kGroup / 2) {
        h.codes[r * p.dim / 2 + g * kGroup / 2 + lane] = static_cast<uint8_t>(code | other << 4);
      }
      if (lane == 0) {
        params[2 * g] = low;
        params[2 * g + 1] = width;
      }
    }
    return;
  }
  float largest = 0.0F;
  for (int d = lane; d < p.dim; d += 32) largest = fmaxf(largest, fabsf(value(d)));
  const __half scale =
      f16_above(warp_largest(largest) / (h.code == RowCode::kInt8 ? 127.0F : 448.0F));
  const float s = __half2float(scale), inverse = s > 0.0F ? 1.0F / s : 0.0F;
  for (int d = lane; d < p.dim; d += 32) {
    const float x = value(d) * inverse;
    h.codes[r * p.dim + d] =
        h.code == RowCode::kFp8
            ? to_e4m3(x)
            : static_cast<uint8_t>(static_cast<int8_t>(rintf(bounded(x, -127.0F, 127.0F))));
  }
  if (lane == 0) params[0] = scale;
}

__global__ void encode_kernel(Params p) {
  const Half h = half_of(p);
  const int lane = threadIdx.x % 32, warps = kThreads / 32;
  const int code_bytes = h.code == RowCode::kInt4 ? p.dim / 2 : p.dim;
  for (int r = threadIdx.x / 32; r < p.page_rows; r += warps) {
    if (r < h.num_rows) {
      encode_row(p, h, r, lane);
      continue;
    }
    for (int d = lane; d < code_bytes; d += 32) h.codes[r * code_bytes + d] = 0;
    for (int i = lane; i < h.params_a_row; i += 32) {
      h.params[r * h.params_a_row + i] = __ushort_as_half(0);
    }
  }
}

__device__ void codes_8(const Half& h, int dim, int r, int d, float (&x)[8]) {
  const int at = h.code == RowCode::kInt4 ? r * dim / 2 + d / kGroup * kGroup / 2 + d % (kGroup / 2)
                                          : r * dim + d;
  const uint2 bits = *reinterpret_cast<const uint2*>(h.codes + at);
  const int shift = d % kGroup >= kGroup / 2 ? 4 : 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const unsigned byte = (i < 4 ? bits.x : bits.y) >> (8 * (i % 4)) & 0xffU;
    if (h.code == RowCode::kInt8) {
      x[i] = static_cast<float>(static_cast<int8_t>(byte));
    } else if (h.code == RowCode::kFp8) {
      x[i] = from_e4m3(byte);
    } else {
      x[i] = static_cast<float>(byte >> shift & 15U);
    }
  }
}

__global__ void decode_kernel(Params p) {
  const Half h = half_of(p);
  const int eighths = p.dim / 8;
  for (int i = threadIdx.x; i < h.num_rows * eighths; i += kThreads) {
    const int r = i / eighths, d = i % eighths * 8;
    float x[8];
    codes_8(h, p.dim, r, d, x);
    const __half* params = h.params + r * h.params_a_row;
    const bool groups = h.code == RowCode::kInt4;
    const float base = groups ? __half2float(params[d / kGroup * 2]) : 0.0F;
    float scale = __half2float(groups ? params[d / kGroup * 2 + 1] : params[0]);
    if (h.code == RowCode::kFp8) scale *= 256.0F;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float add =
          h.constant == nullptr ? 0.0F : turned(h.constant, p.rope, h.first_row + r, d + j);
      x[j] = groups ? fmaf(x[j], scale, base) + add : fmaf(x[j], scale, add);
    }
    *reinterpret_cast<uint4*>(h.rows + r * p.dim + d) = {
        pack_pair<__nv_bfloat16>(x[0], x[1]), pack_pair<__nv_bfloat16>(x[2], x[3]),
        pack_pair<__nv_bfloat16>(x[4], x[5]), pack_pair<__nv_bfloat16>(x[6], x[7])};
  }
}

bool pages_of(const View& v) {
  return v.rank == 3 && v.dtype == DType::kBf16 && v.dim[2] % kGroup == 0 && v.dim[1] % 8 == 0 &&
         v.stride[1] == v.dim[2] && v.stride[0] == v.dim[1] * v.dim[2];
}

Status launch(const RowCodeCudaArgs& a, bool encode, Stream stream) {
  if (!pages_of(a.k_pages) || !pages_of(a.v_pages) || a.k_pages.dim != a.v_pages.dim ||
      reinterpret_cast<uintptr_t>(a.blocks) % 16 != 0 || a.rope.rotary_dim > a.k_pages.dim[2]) {
    return invalid_argument(
        "row_code: dense bf16 pages [N, P, D] with P of 8 and D of 32 and aligned blocks wanted; "
        "are ",
        a.k_pages.describe(), " and ", a.v_pages.describe());
  }
  const int64_t page_rows = a.k_pages.dim[1];
  if (a.num_rows < 1 || (a.num_rows + page_rows - 1) / page_rows != a.pages_per_head ||
      (a.key_constant != nullptr && a.rope.rotary_dim > 0 && a.num_rows > a.rope.num_positions)) {
    return invalid_argument("row_code: ", a.num_rows, " rows in ", a.pages_per_head, " pages of ",
                            page_rows, ", a table of ", a.rope.num_positions);
  }
  Params p{};
  p.k = a.k;
  p.v = a.v;
  p.k_pages = a.k_pages.ptr<__nv_bfloat16>();
  p.v_pages = a.v_pages.ptr<__nv_bfloat16>();
  p.pages = a.pages;
  p.blocks = a.blocks;
  p.pages_per_head = a.pages_per_head;
  p.page_rows = static_cast<int>(page_rows);
  p.dim = static_cast<int>(a.k_pages.dim[2]);
  p.k_bytes = row_block_bytes(a.k, page_rows, p.dim);
  p.v_bytes = row_block_bytes(a.v, page_rows, p.dim);
  p.num_rows = a.num_rows;
  p.key_constant = a.key_constant;
  p.rope = a.rope;
  const dim3 grid(static_cast<unsigned>(a.num_heads * a.pages_per_head), 2);
  if (encode) {
    encode_kernel<<<grid, kThreads, 0, stream>>>(p);
  } else {
    decode_kernel<<<grid, kThreads, 0, stream>>>(p);
  }
  return cuda_status("row_code");
}

}  // namespace

Status encode_rows_cuda(const RowCodeCudaArgs& args, Stream stream) {
  return launch(args, true, stream);
}
Status decode_rows_cuda(const RowCodeCudaArgs& args, Stream stream) {
  return launch(args, false, stream);
}

}  // namespace rk::kernels
