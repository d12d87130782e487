// The fast variants' host side. Work is cut by rows and KV head, never by queries, so every piece
// owns its part of the output and sums do not depend on who computed them.
#include <algorithm>
#include <vector>

#include "kernels/attn_mass/attn_mass_tile.h"
#include "kernels/attn_mass/attn_mass_variants.h"
#include "kernels/seg_attn/seg_attn_plan.h"

namespace rk::kernels {
namespace {

constexpr int64_t kPieceRows = 512;  // queries are rotated one by one once a piece

struct Piece {
  int64_t kv_head;
  int64_t rows_begin, rows_end;  // entries of `rows`
};

struct Call {
  const AttnMassArgs& args;
  int64_t group, tile_tokens;
  std::vector<TileRows> rows;
  std::vector<Piece> pieces;
};

// At most kPieceRows of what the queries of head g may see to each piece.
void cut(Call& call, int64_t g) {
  const AttnMassArgs& a = call.args;
  std::vector<TileRows> seen;
  visible_rows(a.heads[g], a.k_pages.dim[1], a.q_pos.front(), a.q_pos.back(), seen);
  int64_t taken = 0;
  Piece piece{g, static_cast<int64_t>(call.rows.size()), 0};
  const auto finish = [&] {
    piece.rows_end = static_cast<int64_t>(call.rows.size());
    if (piece.rows_end > piece.rows_begin) call.pieces.push_back(piece);
    piece.rows_begin = piece.rows_end;
    taken = 0;
  };
  for (TileRows r : seen) {
    while (r.row_begin < r.row_end) {
      if (taken == kPieceRows) finish();
      TileRows part = r;
      part.row_end =
          static_cast<int32_t>(std::min<int64_t>(r.row_end, r.row_begin + (kPieceRows - taken)));
      taken += part.row_end - part.row_begin;
      call.rows.push_back(part);
      r.row_begin = part.row_end;
    }
  }
  finish();
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

AttnTile tile_of(const Call& call, const Piece& piece, int64_t token) {
  const AttnMassArgs& a = call.args;
  const HeadRows& head = a.heads[piece.kv_head];
  const int64_t h = piece.kv_head * call.group, dim = a.q.dim[2];
  AttnTile tile{};
  tile.q = a.q.ptr<const float>() + token * a.q.stride[0] + h * a.q.stride[1];
  tile.q_token_stride = a.q.stride[0];
  tile.q_head_stride = a.q.stride[1];
  tile.lse = a.lse.ptr<float>() + token * a.lse.stride[0] + h * a.lse.stride[1];
  tile.lse_token_stride = a.lse.stride[0];
  tile.lse_head_stride = a.lse.stride[1];
  tile.q_pos = a.q_pos.data() + token;
  tile.num_tokens = static_cast<int>(std::min(call.tile_tokens, a.q.dim[0] - token));
  tile.group = static_cast<int>(call.group);
  tile.dim = static_cast<int>(dim);
  tile.rows = call.rows.data() + piece.rows_begin;
  tile.num_rows = piece.rows_end - piece.rows_begin;
  tile.pages = head.pages.data();
  tile.k = tile.v = a.k_pages.data;
  tile.k_page_stride = tile.v_page_stride = a.k_pages.stride[0];
  tile.page_rows = a.k_pages.dim[1];
  tile.stored = a.k_pages.dtype == DType::kF32   ? StoredAs::kF32
                : a.k_pages.dtype == DType::kF16 ? StoredAs::kF16
                                                 : StoredAs::kBf16;
  tile.sink = head.sink;
  tile.window = head.window;
  tile.cos = a.rope.cos;
  tile.sin = a.rope.sin;
  tile.half_rotary = a.rope.rotary_dim / 2;
  tile.interleaved = a.rope.pairs == RopePairs::kInterleaved;
  tile.scale = a.scale;
  tile.scratch = thread_scratch(mass_scratch_floats(call.tile_tokens * call.group, dim));
  return tile;
}

Status run(const AttnMassArgs& args, Context& ctx, void (*add)(const MassTile&)) {
  static thread_local std::vector<float> parts;  // [G, positions]
  const auto num_kv_heads = static_cast<int64_t>(args.heads.size());
  const int64_t group = args.q.dim[1] / num_kv_heads, positions = int64_t{args.q_pos.back()} + 1;
  Call call{args, group, std::max<int64_t>(1, kMassTileQueries / group), {}, {}};
  for (int64_t g = 0; g < num_kv_heads; ++g) cut(call, g);
  parts.assign(static_cast<size_t>(num_kv_heads * positions), 0.0F);
  float* const out = parts.data();
  parallel_for(ctx, static_cast<int64_t>(call.pieces.size()), 1,
               [&call, add, out, positions](int64_t begin, int64_t end, int) {
                 for (int64_t i = begin; i < end; ++i) {
                   const Piece& piece = call.pieces[static_cast<size_t>(i)];
                   for (int64_t t = 0; t < call.args.q.dim[0]; t += call.tile_tokens) {
                     add({tile_of(call, piece, t), out + piece.kv_head * positions});
                   }
                 }
               });
  for (int64_t p = 0; p < positions; ++p) {
    double sum = 0.0;
    for (int64_t g = 0; g < num_kv_heads; ++g) sum += out[g * positions + p];
    args.mass[p] += sum;
  }
  return {};
}

}  // namespace

bool attn_mass_fast_supports(const AttnMassArgs& args) {
  const int64_t group = args.q.dim[1] / static_cast<int64_t>(args.heads.size());
  return args.q.dim[2] % 8 == 0 && args.q.dim[2] <= 1024 && group <= 512;
}

Status attn_mass_avx512(const AttnMassArgs& args, Context& ctx) {
  return run(args, ctx, attn_mass_tile_avx512);
}

Status attn_mass_avx2(const AttnMassArgs& args, Context& ctx) {
  return run(args, ctx, attn_mass_tile_avx2);
}

}  // namespace rk::kernels
