// Checks what the host can see of the arguments and takes the fastest variant that the card runs.
#include <cuda_runtime.h>

#include "kernels/seg_attn/head_rows.h"
#include "kernels/seg_attn/seg_attn_cuda_variants.h"

namespace rk::kernels {
namespace {

struct CudaVariant {
  const char* name;
  bool (*runs_on)(int major);  ///< cards of this compute capability
  Status (*run)(const SegAttnCudaArgs& args, Stream stream);
};

constexpr CudaVariant kVariants[] = {
    // fastest first
    {"sm90", [](int major) { return major == 9; }, seg_attn_sm90},
    {"sm80", [](int major) { return major >= 8; }, seg_attn_sm80},
};

bool pages(const View& v, const View& q) {
  return rows_of_heads(v) && v.dim[1] == 16 && v.dim[2] == q.dim[2] && v.dtype == q.dtype;
}

Status check(const SegAttnCudaArgs& a) {
  const int64_t dim = a.q.dim[2];
  if ((a.q.dtype != DType::kBf16 && a.q.dtype != DType::kF16) || a.o.dtype != a.q.dtype ||
      !rows_of_heads(a.q) || !rows_of_heads(a.o) || a.q.dim != a.o.dim ||
      (dim != 64 && dim != 128 && dim != 256)) {
    return invalid_argument("seg_attn_cuda: q ", a.q.describe(), ", o ", a.o.describe(),
                            "; wanted bf16 or f16 [T, H, 64|128|256] twice, 16-byte aligned rows");
  }
  if (!pages(a.k_pages, a.q) || !pages(a.v_pages, a.q) || a.k_pages.dim != a.v_pages.dim) {
    return invalid_argument("seg_attn_cuda: k_pages ", a.k_pages.describe(), ", v_pages ",
                            a.v_pages.describe(), " for q ", a.q.describe(),
                            "; wanted pages of 16 rows of its dtype");
  }
  if (a.num_kv_heads < 1 || a.q.dim[1] % a.num_kv_heads != 0 || a.layer < 0) {
    return invalid_argument("seg_attn_cuda: layer ", a.layer, ", ", a.num_kv_heads,
                            " KV heads for ", a.q.dim[1], " query heads");
  }
  const int rotary_dim = a.rope.rotary_dim;
  if (rotary_dim < 0 || rotary_dim % 2 != 0 || rotary_dim > dim ||
      (rotary_dim > 0 && (a.rope.cos == nullptr || a.rope.sin == nullptr))) {
    return invalid_argument("seg_attn_cuda: rotary_dim ", rotary_dim, " for head dim ", dim);
  }
  if (a.max_items < 0 || a.max_merges < 0 || a.max_item_rows < 0 ||
      a.max_item_rows > kSegAttnTileRows) {
    return invalid_argument("seg_attn_cuda: at most ", a.max_items, " items of ", a.max_item_rows,
                            " rows and ", a.max_merges, " merges; an item has at most ",
                            kSegAttnTileRows, " rows");
  }
  if (a.q_pos == nullptr || a.sequences == nullptr || a.items == nullptr || a.counts == nullptr ||
      a.next_item == nullptr ||
      (a.max_merges > 0 && (a.merges == nullptr || a.part_o == nullptr || a.part_lse == nullptr))) {
    return invalid_argument("seg_attn_cuda: the plan, its sequences or its workspace is missing");
  }
  return {};
}

}  // namespace

Status seg_attn_cuda(const SegAttnCudaArgs& args, std::string_view variant, Stream stream) {
  if (args.max_items == 0) return {};
  RK_RETURN_IF_ERROR(check(args));
  int card = 0, major = 0;
  cudaError_t error = cudaGetDevice(&card);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card);
  }
  if (error != cudaSuccess) return internal("cuda: seg_attn: ", cudaGetErrorString(error));
  Status status = invalid_argument("seg_attn_cuda: no variant \"", variant, "\"");
  for (const CudaVariant& v : kVariants) {
    if (!variant.empty() && variant != v.name) continue;
    if (!v.runs_on(major)) {
      status =
          unimplemented("seg_attn_cuda: ", v.name, " cannot run on compute capability ", major);
      continue;
    }
    status = v.run(args, stream);
    if (status.code() != Code::kUnimplemented) break;
  }
  RK_RETURN_IF_ERROR(status);
  return seg_attn_merge(args, stream);
}

}  // namespace rk::kernels
