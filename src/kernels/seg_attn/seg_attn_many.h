// Attention of many queries: they lie side by side in vector lanes, so scores, softmax and sums are
// vertical, and keys and values are read as they are stored, one broadcast element at a time:
//
//   S^T [keys, lanes] = K [keys, D] Q^T [D, lanes],  O^T [D, lanes] += V^T [D, keys] P^T [keys,
//   lanes]
//
// Lane r of a tile is (token r / group, head r % group). A panel is up to three vectors of lanes; a
// block of keys is converted to f32 once and serves all panels. Online softmax in base 2. For files
// compiled for an instruction set: internal linkage throughout.
#pragma once

#include "kernels/seg_attn/seg_attn_gather.h"

namespace rk::kernels {
namespace {

constexpr int kKeys = 64;                    // keys of a block
constexpr int kStep = kLanes == 16 ? 8 : 4;  // rows of a register tile
constexpr int kPanelVecs = 3;                // vectors of a full panel
constexpr int32_t kLowest = INT32_MIN, kHighest = INT32_MAX;

struct Panel {
  int num_vecs;
  float *base, *qt;                  // [D, lanes] queries in the first frame, and in another
  const float* q;                    // the one of them that is in the frame at hand
  float* ot;                         // [D, lanes]
  float *max, *sum;                  // [lanes]
  int32_t *position, *window_begin;  // [lanes] sees positions in (window_begin, position]
  int32_t first, last;               // positions of its first and last query
};

// s[key][lane] of keys [begin, end), in steps of kStep; kDim 0: run-time dim.
template <int kVecs, int kDim>
void scores(const float* kf, const float* qt, float* s, int begin, int end, int64_t run_dim) {
  const int64_t dim = kDim > 0 ? kDim : run_dim;
  constexpr int kPitch = kVecs * kLanes;
  for (int key = begin; key < end; key += kStep) {
    Vec acc[kStep][kVecs];
    for (auto& row : acc) {
      for (Vec& a : row) a = vzero();
    }
    const float* k = kf + key * dim;
    for (int64_t d = 0; d < dim; ++d) {
      Vec b[kVecs];
      for (int j = 0; j < kVecs; ++j) b[j] = vload(qt + d * kPitch + j * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) {
        const Vec a = vset(k[i * dim + d]);
#pragma GCC unroll 3
        for (int j = 0; j < kVecs; ++j) acc[i][j] = vfma(a, b[j], acc[i][j]);
      }
    }
    for (int i = 0; i < kStep; ++i) {
      for (int j = 0; j < kVecs; ++j) vstore(s + (key + i) * kPitch + j * kLanes, acc[i][j]);
    }
  }
}

// ot[d][lane] = ot * rescale + sum over keys [begin, end) of v[key][d] p[key][lane].
template <int kVecs, int kDim>
void weighted_sum(const float* vf, const float* p, const Vec* rescale, float* ot, int begin,
                  int end, int64_t run_dim) {
  const int64_t dim = kDim > 0 ? kDim : run_dim;
  constexpr int kPitch = kVecs * kLanes;
  for (int64_t d = 0; d < dim; d += kStep) {
    Vec acc[kStep][kVecs];
    for (int i = 0; i < kStep; ++i) {
      for (int j = 0; j < kVecs; ++j) {
        acc[i][j] = vmul(vload(ot + (d + i) * kPitch + j * kLanes), rescale[j]);
      }
    }
    for (int key = begin; key < end; ++key) {
      const float* v = vf + key * dim + d;
      Vec b[kVecs];
      for (int j = 0; j < kVecs; ++j) b[j] = vload(p + key * kPitch + j * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kStep; ++i) {
        const Vec a = vset(v[i]);
#pragma GCC unroll 3
        for (int j = 0; j < kVecs; ++j) acc[i][j] = vfma(a, b[j], acc[i][j]);
      }
    }
    for (int i = 0; i < kStep; ++i) {
      for (int j = 0; j < kVecs; ++j) vstore(ot + (d + i) * kPitch + j * kLanes, acc[i][j]);
    }
  }
}

template <int kVecs>
void hide(const Panel& panel, const int32_t* position, int32_t sink, float* s, int begin, int end) {
  constexpr int kPitch = kVecs * kLanes;
  const Vec hidden = vset(-__builtin_inff());
  for (int key = begin; key < end; ++key) {
    const VecI pos = vseti(position[key]);
    for (int j = 0; j < kVecs; ++j) {
      float* at = s + key * kPitch + j * kLanes;
      const VecI begins =
          position[key] < sink ? vseti(kLowest) : vloadi(panel.window_begin + j * kLanes);
      const Mask seen =
          vandnot(vgreater(pos, vloadi(panel.position + j * kLanes)), vgreater(pos, begins));
      vstore(at, vselect(seen, vload(at), hidden));
    }
  }
}

// Turns scores into weights relative to the running maximum; `rescale` is what earlier sums shrink
// by.
template <int kVecs>
void softmax(const Panel& panel, float* s, Vec* rescale, int begin, int end) {
  constexpr int kPitch = kVecs * kLanes;
  const Vec none = vset(-__builtin_inff());
  Vec max[kVecs], sum[kVecs];
  for (int j = 0; j < kVecs; ++j) max[j] = vload(panel.max + j * kLanes);
  for (int key = begin; key < end; ++key) {
    for (int j = 0; j < kVecs; ++j) max[j] = vmax(max[j], vload(s + key * kPitch + j * kLanes));
  }
  for (int j = 0; j < kVecs; ++j) {
    const Vec before = vload(panel.max + j * kLanes);
    vstore(panel.max + j * kLanes, max[j]);
    max[j] = vselect(vequal(max[j], none), vzero(), max[j]);
    rescale[j] = vexp2(vsub(before, max[j]));
    sum[j] = vmul(vload(panel.sum + j * kLanes), rescale[j]);
  }
  for (int key = begin; key < end; ++key) {
    for (int j = 0; j < kVecs; ++j) {
      float* at = s + key * kPitch + j * kLanes;
      const Vec p = vexp2(vsub(vload(at), max[j]));
      sum[j] = vadd(sum[j], p);
      vstore(at, p);
    }
  }
  for (int j = 0; j < kVecs; ++j) vstore(panel.sum + j * kLanes, sum[j]);
}

struct KeyRange {
  int begin, end;
  bool all_see;  // every query of the panel sees all of them
};

// The keys of a block that some query of the panel may see, from a multiple of kStep on.
inline KeyRange keys_seen(const AttnTile& tile, const Panel& panel, const Block<kKeys>& block) {
  const int32_t* pos = block.position;
  int begin = 0, end = block.num;
  while (end > 0 && pos[end - 1] > panel.last) --end;
  const int64_t behind = int64_t{panel.first} - tile.window;  // nobody sees this far outside sinks
  if (tile.window >= 0 && end > 0 && pos[0] >= tile.sink) {
    while (begin < end && pos[begin] <= behind) ++begin;
  }
  if (begin >= end) return {0, 0, false};
  begin = begin / kStep * kStep;
  return {begin, end,
          pos[end - 1] <= panel.first && (tile.window < 0 || pos[end - 1] < tile.sink ||
                                          pos[begin] > int64_t{panel.last} - tile.window)};
}

template <int kVecs, int kDim>
void attend_block(const AttnTile& tile, const Panel& panel, const Block<kKeys>& block,
                  const float* kf, const float* vf, float* s) {
  const auto [begin, end, all_see] = keys_seen(tile, panel, block);
  if (begin >= end) return;
  Vec rescale[kVecs];
  scores<kVecs, kDim>(kf, panel.q, s, begin, end, tile.dim);
  if (!all_see) hide<kVecs>(panel, block.position, tile.sink, s, begin, end);
  softmax<kVecs>(panel, s, rescale, begin, end);
  weighted_sum<kVecs, kDim>(vf, s, rescale, panel.ot, begin, end, tile.dim);
}

template <int kDim>
void attend_panel(const AttnTile& tile, const Panel& panel, const Block<kKeys>& block,
                  const float* kf, const float* vf, float* s) {
  switch (panel.num_vecs) {
    case 1:
      return attend_block<1, kDim>(tile, panel, block, kf, vf, s);
    case 2:
      return attend_block<2, kDim>(tile, panel, block, kf, vf, s);
    default:
      return attend_block<3, kDim>(tile, panel, block, kf, vf, s);
  }
}

// qt = R(-delta) base, `inv_magnitude` taking the table's factor out: one angle for all lanes.
template <int kVecs>
void turn_lanes(const AttnTile& tile, const Panel& panel, int64_t delta, float inv_magnitude) {
  constexpr int kPitch = kVecs * kLanes;
  const int64_t half = tile.half_rotary, at = (delta < 0 ? -delta : delta) * half;
  const float* cos = tile.cos + at;
  const float* sin = tile.sin + at;
  for (int64_t i = 0; i < half; ++i) {
    const int64_t lo = (tile.interleaved ? 2 * i : i) * kPitch;
    const int64_t hi = (tile.interleaved ? 2 * i + 1 : i + half) * kPitch;
    const Vec c = vset(cos[i] * inv_magnitude);
    const Vec s = vset(delta < 0 ? -sin[i] * inv_magnitude : sin[i] * inv_magnitude);
    for (int j = 0; j < kVecs; ++j) {
      const Vec a = vload(panel.base + lo + j * kLanes), b = vload(panel.base + hi + j * kLanes);
      vstore(panel.qt + lo + j * kLanes, vfma(b, s, vmul(a, c)));
      vstore(panel.qt + hi + j * kLanes, vfnma(a, s, vmul(b, c)));
    }
  }
  for (int64_t i = 2 * half * kPitch; i < tile.dim * kPitch; i += kLanes) {
    vstore(panel.qt + i, vload(panel.base + i));
  }
}

// base[d][lane] = R(q_pos - offset) q times what scores are scaled by.
inline void place_queries(const AttnTile& tile, const Panel& panel, int first_lane, int32_t offset,
                          float* row) {
  const int num_queries = tile.num_tokens * tile.group, pitch = panel.num_vecs * kLanes;
  for (int lane = 0; lane < pitch; ++lane) {
    const int r = first_lane + lane;
    float* out = panel.base + lane;
    // A query before the first span sees nothing of it or of those behind it, so what it holds does
    // not matter.
    if (r >= num_queries || tile.q_pos[r / tile.group] < offset) {
      for (int d = 0; d < tile.dim; ++d) out[d * pitch] = 0.0F;
      continue;
    }
    const int t = r / tile.group, h = r % tile.group;
    rotate(tile, tile.q + t * tile.q_token_stride + h * tile.q_head_stride,
           int64_t{tile.q_pos[t]} - offset, tile.scale * kLog2E, row);
    for (int d = 0; d < tile.dim; ++d) out[d * pitch] = row[d];
  }
}

// Queries in the frame of the rows at hand. Turning each by its own angle and placing it in its
// lane is done once, for the first frame; another frame turns all of them by the same angle, some
// twentieth of that work. A panel whose queries end before a block keeps the frame it has.
class Turner {
 public:
  Turner(const AttnTile& tile, Panel* panels, int num_panels, float* row)
      : tile_(tile), panels_(panels), num_panels_(num_panels), row_(row) {}

  void turn(int32_t offset) {
    if (placed_ && offset == now_) return;
    if (!placed_) first_ = offset;
    for (int p = 0; p < num_panels_; ++p) {
      Panel& panel = panels_[p];
      if (!placed_) {
        place_queries(tile_, panel, p * kPanelVecs * kLanes, offset, row_);
        panel.q = panel.base;
      } else if (panel.last >= offset) {
        turn_panel(panel, int64_t{offset} - first_);
        panel.q = panel.qt;
      }
    }
    placed_ = true;
    now_ = offset;
  }

 private:
  void turn_panel(const Panel& panel, int64_t delta) {
    const float inverse = tile_.half_rotary > 0 ? 1.0F / tile_.cos[0] : 1.0F;  // cos 0 = 1
    switch (panel.num_vecs) {
      case 1:
        return turn_lanes<1>(tile_, panel, delta, inverse);
      case 2:
        return turn_lanes<2>(tile_, panel, delta, inverse);
      default:
        return turn_lanes<3>(tile_, panel, delta, inverse);
    }
  }

  const AttnTile& tile_;
  Panel* panels_;
  int num_panels_;
  float* row_;
  bool placed_ = false;
  int32_t first_ = 0, now_ = 0;
};

// Which positions its lanes see, from the panel's queries.
inline void place_panel(const AttnTile& tile, Panel& panel, int first_lane, float*& scratch) {
  const int lanes = panel.num_vecs * kLanes, num_queries = tile.num_tokens * tile.group;
  panel.position = reinterpret_cast<int32_t*>(take_floats(scratch, lanes));
  panel.window_begin = reinterpret_cast<int32_t*>(take_floats(scratch, lanes));
  for (int lane = 0; lane < lanes; ++lane) {
    const int r = first_lane + lane;
    panel.position[lane] = r < num_queries ? tile.q_pos[r / tile.group] : kLowest;
    panel.window_begin[lane] =
        r < num_queries && tile.window >= 0 ? panel.position[lane] - tile.window : kLowest;
  }
  const int last = first_lane + lanes < num_queries ? first_lane + lanes - 1 : num_queries - 1;
  panel.first = panel.position[0];
  panel.last = tile.q_pos[last / tile.group];
}

inline void init_panel(const AttnTile& tile, Panel& panel, int first_lane, float*& scratch) {
  const int lanes = panel.num_vecs * kLanes;
  panel.base = take_floats(scratch, int64_t{tile.dim} * lanes);
  panel.qt = take_floats(scratch, int64_t{tile.dim} * lanes);
  panel.ot = take_floats(scratch, int64_t{tile.dim} * lanes);
  panel.max = take_floats(scratch, lanes);
  panel.sum = take_floats(scratch, lanes);
  place_panel(tile, panel, first_lane, scratch);
  for (int64_t i = 0; i < int64_t{tile.dim} * lanes; ++i) panel.ot[i] = 0.0F;
  for (int lane = 0; lane < lanes; ++lane) {
    panel.max[lane] = -__builtin_inff();
    panel.sum[lane] = 0.0F;
  }
}

inline void write_panel(const AttnTile& tile, const Panel& panel, int first_lane) {
  const int pitch = panel.num_vecs * kLanes, num_queries = tile.num_tokens * tile.group;
  for (int lane = 0; lane < pitch && first_lane + lane < num_queries; ++lane) {
    const int r = first_lane + lane, t = r / tile.group, h = r % tile.group;
    const float sum = panel.sum[lane];
    const float inverse = sum == 0.0F ? 0.0F : 1.0F / sum;
    float* o = tile.o + t * tile.o_token_stride + h * tile.o_head_stride;
    for (int d = 0; d < tile.dim; ++d) o[d] = panel.ot[d * pitch + lane] * inverse;
    if (tile.lse == nullptr) continue;
    tile.lse[t * tile.lse_token_stride + h * tile.lse_head_stride] =
        (panel.max[lane] + __builtin_log2f(sum)) / kLog2E;
  }
}

constexpr int kMaxPanels = 64;

template <int kDim>
void attend_many(const AttnTile& tile) {
  const int num_vecs = (tile.num_tokens * tile.group + kLanes - 1) / kLanes;
  const int num_panels = (num_vecs + kPanelVecs - 1) / kPanelVecs;
  Panel panels[kMaxPanels];
  float* scratch = tile.scratch;
  for (int p = 0; p < num_panels; ++p) {
    const int left = num_vecs - p * kPanelVecs;
    panels[p].num_vecs = left < kPanelVecs ? left : kPanelVecs;
    init_panel(tile, panels[p], p * kPanelVecs * kLanes, scratch);
  }
  float* kf = take_floats(scratch, kKeys * tile.dim);
  float* vf = take_floats(scratch, kKeys * tile.dim);
  float* s = take_floats(scratch, kKeys * kPanelVecs * kLanes);
  float* row = take_floats(scratch, tile.dim + kLanes);

  const Stored stored = stored_as(tile);
  Gather gather(tile);
  Block<kKeys> block;
  Turner turner(tile, panels, num_panels, row);
  for (gather.fill(block); block.num > 0; gather.fill(block)) {
    turner.turn(block.offset);
    for (int i = 0; i < block.num; ++i) {
      load_row(stored, block.k[i], kf + i * tile.dim, tile.dim);
      load_row(stored, block.v[i], vf + i * tile.dim, tile.dim);
    }
    for (int64_t i = block.num * tile.dim; i < (block.num + kStep - 1) / kStep * kStep * tile.dim;
         ++i) {
      kf[i] = 0.0F;
    }
    for (int p = 0; p < num_panels; ++p) attend_panel<kDim>(tile, panels[p], block, kf, vf, s);
  }
  for (int p = 0; p < num_panels; ++p) write_panel(tile, panels[p], p * kPanelVecs * kLanes);
}

inline void attend_many_any(const AttnTile& tile) {
  switch (tile.dim) {
    case 64:
      return attend_many<64>(tile);
    case 128:
      return attend_many<128>(tile);
    default:
      return attend_many<0>(tile);
  }
}

}  // namespace
}  // namespace rk::kernels
