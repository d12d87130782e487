// The Hopper variant's entry: describes the pools to the copy engine and takes the dtype's kernel.
#include "kernels/seg_attn/seg_attn_sm90_launch.cuh"

namespace rk::kernels {
namespace sm90 {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled encoder() {
  static const EncodeTiled function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                         &result) != cudaSuccess) {
      return EncodeTiled{nullptr};
    }
    return reinterpret_cast<EncodeTiled>(found);
  }();
  return function;
}

}  // namespace

/// The pool [N, 16, D] as columns of a half, rows of a group of eight, halves, groups, pages: a box
/// lands as the atoms that wgmma reads.
bool map_pages(CUtensorMap* map, const View& pool, int pages) {
  const auto dim = static_cast<int>(pool.dim[2]);
  const auto row = static_cast<cuuint64_t>(dim) * 2;
  const cuuint64_t dims[] = {64, 8, static_cast<cuuint64_t>(dim) / 64, 2,
                             static_cast<cuuint64_t>(pool.dim[0])};
  const cuuint64_t strides[] = {row, 128, 8 * row, static_cast<cuuint64_t>(pool.stride[0]) * 2};
  const cuuint32_t box[] = {64, 8, static_cast<cuuint32_t>(dim) / 64, 2,
                            static_cast<cuuint32_t>(pages)};
  const cuuint32_t steps[] = {1, 1, 1, 1, 1};
  const auto type = pool.dtype == DType::kBf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                               : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  return encoder()(map, type, 5, pool.data, dims, strides, box, steps,
                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace sm90

Status seg_attn_sm90(const SegAttnCudaArgs& a, Stream stream) {
  if (a.max_items == 0) return {};
  if (sm90::encoder() == nullptr)
    return unimplemented("seg_attn=sm90: the driver has no tensor maps");
  if (a.rope.rotary_dim % 16 != 0) {
    return unimplemented("seg_attn=sm90: rotary_dim ", a.rope.rotary_dim,
                         " is not of whole sixteens");
  }
  sm90::Params p = {};
  p.q = a.q.data;
  p.o = a.o.data;
  p.lse = a.lse;
  p.q_stride = a.q.stride[0], p.o_stride = a.o.stride[0];
  p.q_pos = a.q_pos;
  p.sequences = a.sequences;
  p.items = a.items;
  p.counts = a.counts;
  p.part_o = a.part_o, p.part_lse = a.part_lse;
  p.next_item = a.next_item;
  p.layer = a.layer, p.num_kv_heads = a.num_kv_heads;
  p.group = static_cast<int>(a.q.dim[1]) / a.num_kv_heads;
  p.cos = a.rope.cos, p.sin = a.rope.sin;
  p.num_positions = static_cast<int>(a.rope.num_positions);
  p.rotary_dim = a.rope.rotary_dim;
  p.interleaved = a.rope.pairs == RopePairs::kInterleaved;
  p.scale = a.scale;
  p.old_rows_ready = a.old_rows_ready;
  return a.q.dtype == DType::kBf16 ? sm90::launch_bf16(a, p, stream)
                                   : sm90::launch_f16(a, p, stream);
}

}  // namespace rk::kernels
