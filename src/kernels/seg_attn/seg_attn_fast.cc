// The fast variants' host side: pieces of work to threads, partial results merged.
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/seg_attn/seg_attn_plan.h"
#include "kernels/seg_attn/seg_attn_variants.h"

namespace rk::kernels {
namespace {

constexpr int64_t kMergeFloats = 1 << 16;  // that a thread is woken for at least

using TileFn = void (*)(const AttnTile& tile);

struct Call {
  const SegAttnArgs& args;
  const AttnPlan& plan;
  TileFn few, many;
  int64_t group;
  float* partial_o;    // [num_partial, D]
  float* partial_lse;  // [num_partial]
};

StoredAs stored_as(DType dtype) {
  return dtype == DType::kF32   ? StoredAs::kF32
         : dtype == DType::kF16 ? StoredAs::kF16
                                : StoredAs::kBf16;
}

float* thread_scratch(int64_t floats) {
  static thread_local std::vector<float> scratch;
  constexpr size_t kAlign = 64 / sizeof(float);
  if (scratch.size() < static_cast<size_t>(floats) + kAlign) {
    scratch.resize(static_cast<size_t>(floats) + kAlign);
  }
  const auto address = reinterpret_cast<uintptr_t>(scratch.data());
  return scratch.data() + (64 - address % 64) % 64 / sizeof(float);
}

AttnTile tile_of(const Call& call, const AttnPiece& piece) {
  const SegAttnArgs& a = call.args;
  const auto num_seqs = static_cast<int64_t>(a.q_begin.size()) - 1;
  const HeadRows& head =
      a.heads[piece.sequence * (static_cast<int64_t>(a.heads.size()) / num_seqs) + piece.kv_head];
  const int64_t t = piece.token_begin, h = piece.kv_head * call.group, dim = a.q.dim[2];
  AttnTile tile{};
  tile.q = a.q.ptr<const float>() + t * a.q.stride[0] + h * a.q.stride[1];
  tile.q_token_stride = a.q.stride[0];
  tile.q_head_stride = a.q.stride[1];
  if (piece.part < 0) {
    tile.o = a.o.ptr<float>() + t * a.o.stride[0] + h * a.o.stride[1];
    tile.o_token_stride = a.o.stride[0];
    tile.o_head_stride = a.o.stride[1];
    if (!a.lse.empty()) tile.lse = a.lse.ptr<float>() + t * a.lse.stride[0] + h * a.lse.stride[1];
    tile.lse_token_stride = a.lse.stride[0];
    tile.lse_head_stride = a.lse.stride[1];
  } else {
    tile.o = call.partial_o + piece.part * dim;
    tile.o_token_stride = call.group * dim;
    tile.o_head_stride = dim;
    tile.lse = call.partial_lse + piece.part;
    tile.lse_token_stride = call.group;
    tile.lse_head_stride = 1;
  }
  tile.q_pos = a.q_pos.data() + t;
  tile.num_tokens = piece.token_end - piece.token_begin;
  tile.group = static_cast<int>(call.group);
  tile.dim = static_cast<int>(dim);
  tile.rows = call.plan.rows.data() + piece.rows_begin;
  tile.num_rows = piece.rows_end - piece.rows_begin;
  tile.pages = head.pages.data();
  tile.k = a.k_pages.data;
  tile.v = a.v_pages.data;
  tile.k_page_stride = a.k_pages.stride[0];
  tile.v_page_stride = a.v_pages.stride[0];
  tile.page_rows = a.k_pages.dim[1];
  tile.stored = stored_as(a.k_pages.dtype);
  tile.sink = head.sink;
  tile.window = head.window;
  tile.cos = a.rope.cos;
  tile.sin = a.rope.sin;
  tile.half_rotary = a.rope.rotary_dim / 2;
  tile.interleaved = a.rope.pairs == RopePairs::kInterleaved;
  tile.scale = a.scale;
  tile.scratch = thread_scratch(tile_scratch_floats(call.plan.max_queries, dim));
  return tile;
}

// o = sum_i w_i o_i / sum_i w_i with w_i = exp(lse_i - max), lse = max + log sum_i w_i.
void merge_query(const Call& call, const AttnMerge& merge, int64_t token, int64_t head_in_group) {
  const SegAttnArgs& a = call.args;
  const int64_t dim = a.q.dim[2], queries = (merge.token_end - merge.token_begin) * call.group;
  const int64_t first = merge.part + (token - merge.token_begin) * call.group + head_in_group;
  const int64_t h = merge.kv_head * call.group + head_in_group;
  float* o = a.o.ptr<float>() + token * a.o.stride[0] + h * a.o.stride[1];
  float max = -std::numeric_limits<float>::infinity();
  for (int32_t i = 0; i < merge.num_parts; ++i) {
    max = std::max(max, call.partial_lse[first + i * queries]);
  }
  for (int64_t d = 0; d < dim; ++d) o[d] = 0.0F;
  float sum = 0.0F;
  for (int32_t i = 0; i < merge.num_parts; ++i) {
    const int64_t part = first + i * queries;
    const float weight = std::exp(call.partial_lse[part] - max);
    if (!(weight != 0.0F) || max == -std::numeric_limits<float>::infinity()) continue;
    sum += weight;
    for (int64_t d = 0; d < dim; ++d) o[d] += weight * call.partial_o[part * dim + d];
  }
  if (sum != 0.0F) {
    for (int64_t d = 0; d < dim; ++d) o[d] /= sum;
  }
  if (!a.lse.empty()) {
    a.lse.ptr<float>()[token * a.lse.stride[0] + h * a.lse.stride[1]] = max + std::log(sum);
  }
}

Status run(const SegAttnArgs& args, Context& ctx, TileFn few, TileFn many) {
  static thread_local AttnPlan plan;
  static thread_local std::vector<float> partial;
  plan.build(args);
  const int64_t dim = args.q.dim[2];
  const auto num_seqs = static_cast<int64_t>(args.q_begin.size()) - 1;
  partial.resize(static_cast<size_t>(plan.num_partial * (dim + 1)));
  const Call call{args,
                  plan,
                  few,
                  many,
                  args.q.dim[1] * num_seqs / static_cast<int64_t>(args.heads.size()),
                  partial.data(),
                  partial.data() + plan.num_partial * dim};
  parallel_for(ctx, static_cast<int64_t>(plan.pieces.size()), 1,
               [&call](int64_t begin, int64_t end, int) {
                 for (int64_t i = begin; i < end; ++i) {
                   const AttnTile tile = tile_of(call, call.plan.pieces[i]);
                   (tile.num_tokens * tile.group <= kMaxFew ? call.few : call.many)(tile);
                 }
               });
  const auto num_merges = static_cast<int64_t>(plan.merges.size());
  const int64_t chunks = std::max<int64_t>(1, plan.num_partial * dim / kMergeFloats);
  parallel_for(ctx, num_merges, (num_merges + chunks - 1) / chunks,
               [&call](int64_t begin, int64_t end, int) {
                 for (int64_t i = begin; i < end; ++i) {
                   const AttnMerge& merge = call.plan.merges[static_cast<size_t>(i)];
                   for (int64_t t = merge.token_begin; t < merge.token_end; ++t) {
                     for (int64_t h = 0; h < call.group; ++h) merge_query(call, merge, t, h);
                   }
                 }
               });
  return {};
}

}  // namespace

bool seg_attn_fast_supports(const SegAttnArgs& args) {
  const auto num_seqs = static_cast<int64_t>(args.q_begin.size()) - 1;
  const int64_t group = args.q.dim[1] * num_seqs / static_cast<int64_t>(args.heads.size());
  return args.q.dim[2] % 8 == 0 && args.q.dim[2] <= 1024 && group <= 512;
}

Status seg_attn_avx512(const SegAttnArgs& args, Context& ctx) {
  return run(args, ctx, attend_few_avx512, attend_many_avx512);
}

Status seg_attn_avx2(const SegAttnArgs& args, Context& ctx) {
  return run(args, ctx, attend_few_avx2, attend_many_avx2);
}

}  // namespace rk::kernels
