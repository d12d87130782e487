#include "kernels/seg_attn/seg_attn_plan.h"

#include <algorithm>

namespace rk::kernels {
namespace {

constexpr int64_t kTileQueries = 96;    // two panels of 48 lanes (seg_attn_many.h)
constexpr int64_t kDecodeRows = 512;    // rows of a piece of few queries
constexpr int64_t kPrefillRows = 1024;  // and of many, where there are too few tiles to share out
constexpr int64_t kEnoughTiles = 16;

int64_t num_kv_heads(const SegAttnArgs& a) {
  return static_cast<int64_t>(a.heads.size()) / (static_cast<int64_t>(a.q_begin.size()) - 1);
}

int64_t tile_tokens(const SegAttnArgs& a) {
  return std::max<int64_t>(1, kTileQueries / (a.q.dim[1] / num_kv_heads(a)));
}

}  // namespace

void visible_rows(const HeadRows& head, int64_t page_rows, int64_t first, int64_t last,
                  std::vector<TileRows>& out) {
  for (const Run& run : head.runs) {
    const int64_t shift = run.first_page - run.row_begin / page_rows;
    const auto add = [&](int64_t begin, int64_t end) {
      if (begin >= end) return;
      out.push_back({shift, static_cast<int32_t>(begin), static_cast<int32_t>(end), run.offset});
    };
    const int64_t begin = run.row_begin;
    const int64_t end = std::min<int64_t>(run.row_end, last - run.offset + 1);
    if (head.window < 0) {
      add(begin, end);
      continue;
    }
    const int64_t sink_end =
        std::clamp<int64_t>(int64_t{head.sink} - run.offset, begin, std::max(begin, end));
    add(begin, sink_end);
    add(std::max(sink_end, first - head.window + 1 - run.offset), end);
  }
}

void AttnPlan::add_tile(const SegAttnArgs& args, int32_t b, int32_t g, int32_t begin, int32_t end,
                        int64_t rows_a_piece) {
  const int64_t queries = int64_t{end - begin} * (args.q.dim[1] / num_kv_heads(args));
  max_queries = std::max(max_queries, queries);
  const auto first_piece = pieces.size();
  const auto first_rows = static_cast<int32_t>(rows.size());
  visible_rows(args.heads[b * num_kv_heads(args) + g], args.k_pages.dim[1], args.q_pos[begin],
               args.q_pos[end - 1], rows);
  AttnPiece piece{b, g, begin, end, first_rows, first_rows};
  int64_t taken = 0;
  const auto finish = [&] {
    piece.rows_end = static_cast<int32_t>(rows.size());
    piece.cost = taken * queries;
    pieces.push_back(piece);
    piece.rows_begin = piece.rows_end;
    taken = 0;
  };
  uncut_.assign(rows.begin() + first_rows, rows.end());
  rows.resize(first_rows);
  for (TileRows r : uncut_) {
    while (r.row_begin < r.row_end) {
      if (taken == rows_a_piece) finish();
      TileRows head = r;
      const int64_t take = std::min<int64_t>(r.row_end - r.row_begin, rows_a_piece - taken);
      head.row_end = r.row_begin + static_cast<int32_t>(take);
      rows.push_back(head);
      taken += head.row_end - head.row_begin;
      r.row_begin = head.row_end;
    }
  }
  finish();
  const auto num_parts = static_cast<int32_t>(pieces.size() - first_piece);
  if (num_parts == 1) return;
  merges.push_back({g, begin, end, num_partial, num_parts});
  for (size_t i = first_piece; i < pieces.size(); ++i) {
    pieces[i].part = num_partial;
    num_partial += queries;
  }
}

void AttnPlan::build(const SegAttnArgs& args) {
  pieces.clear();
  merges.clear();
  rows.clear();
  num_partial = max_queries = 0;
  const int64_t group = args.q.dim[1] / num_kv_heads(args), heads = num_kv_heads(args);
  const auto num_seqs = static_cast<int32_t>(args.q_begin.size()) - 1;
  const auto tile = static_cast<int32_t>(tile_tokens(args));
  int64_t num_tiles = 0;
  for (int32_t b = 0; b < num_seqs; ++b) {
    num_tiles += (args.q_begin[b + 1] - args.q_begin[b] + tile - 1) / tile * heads;
  }
  for (int32_t b = 0; b < num_seqs; ++b) {
    const int64_t queries = (args.q_begin[b + 1] - args.q_begin[b]) * group;
    const int64_t limit = queries <= kMaxFew         ? kDecodeRows
                          : num_tiles < kEnoughTiles ? kPrefillRows
                                                     : INT64_MAX;
    for (int32_t g = 0; g < heads; ++g) {
      for (int32_t t = args.q_begin[b]; t < args.q_begin[b + 1]; t += tile) {
        add_tile(args, b, g, t, std::min(t + tile, args.q_begin[b + 1]), limit);
      }
    }
  }
  std::sort(pieces.begin(), pieces.end(), [](const AttnPiece& x, const AttnPiece& y) {
    if (x.cost != y.cost) return x.cost > y.cost;
    return std::pair(x.token_begin, std::pair(x.kv_head, x.rows_begin)) <
           std::pair(y.token_begin, std::pair(y.kv_head, y.rows_begin));
  });
}

}  // namespace rk::kernels
