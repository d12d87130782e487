// Attention mass with queries side by side in vector lanes, as in seg_attn_many.h: scores of a
// block of keys, weights of a softmax whose log-sum-exp is known, sums over lanes at the end of a
// block. For files compiled for an instruction set: internal linkage throughout.
#pragma once

#include "kernels/attn_mass/attn_mass_tile.h"
#include "kernels/seg_attn/seg_attn_few.h"
#include "kernels/seg_attn/seg_attn_many.h"

namespace rk::kernels {
namespace {

// sums[key][lane] += weight of the panel's queries on each key; panel.max holds their log2-sum-exp.
template <int kVecs, int kDim>
void add_mass_block(const AttnTile& tile, const Panel& panel, const Block<kKeys>& block,
                    const float* kf, float* s, float* sums) {
  constexpr int kPitch = kVecs * kLanes;
  const KeyRange keys = keys_seen(tile, panel, block);
  if (keys.begin >= keys.end) return;
  scores<kVecs, kDim>(kf, panel.q, s, keys.begin, keys.end, tile.dim);
  if (!keys.all_see) hide<kVecs>(panel, block.position, tile.sink, s, keys.begin, keys.end);
  Vec lse[kVecs];
  for (int j = 0; j < kVecs; ++j) lse[j] = vload(panel.max + j * kLanes);
  for (int key = keys.begin; key < keys.end; ++key) {
    Vec sum = vload(sums + key * kLanes);
    for (int j = 0; j < kVecs; ++j) {
      sum = vadd(sum, vexp2(vsub(vload(s + key * kPitch + j * kLanes), lse[j])));
    }
    vstore(sums + key * kLanes, sum);
  }
}

template <int kDim>
void add_mass_panel(const AttnTile& tile, const Panel& panel, const Block<kKeys>& block,
                    const float* kf, float* s, float* sums) {
  switch (panel.num_vecs) {
    case 1:
      return add_mass_block<1, kDim>(tile, panel, block, kf, s, sums);
    case 2:
      return add_mass_block<2, kDim>(tile, panel, block, kf, s, sums);
    default:
      return add_mass_block<3, kDim>(tile, panel, block, kf, s, sums);
  }
}

inline void init_mass_panel(const AttnTile& tile, Panel& panel, int first_lane, float*& scratch) {
  const int lanes = panel.num_vecs * kLanes, num_queries = tile.num_tokens * tile.group;
  panel.base = take_floats(scratch, int64_t{tile.dim} * lanes);
  panel.qt = take_floats(scratch, int64_t{tile.dim} * lanes);
  panel.max = take_floats(scratch, lanes);
  panel.ot = panel.sum = nullptr;
  place_panel(tile, panel, first_lane, scratch);
  for (int lane = 0; lane < lanes; ++lane) {
    const int r = first_lane + lane;
    float lse = -__builtin_inff();
    if (r < num_queries) {
      lse =
          tile.lse[r / tile.group * tile.lse_token_stride + r % tile.group * tile.lse_head_stride];
    }
    // A lane without a query, and a query that sees nothing, weigh everything with 0.
    panel.max[lane] = lse == -__builtin_inff() ? __builtin_inff() : lse * kLog2E;
  }
}

template <int kDim>
void add_mass(const MassTile& job) {
  const AttnTile& tile = job.attn;
  const int num_vecs = (tile.num_tokens * tile.group + kLanes - 1) / kLanes;
  const int num_panels = (num_vecs + kPanelVecs - 1) / kPanelVecs;
  Panel panels[kMaxPanels];
  float* scratch = tile.scratch;
  for (int p = 0; p < num_panels; ++p) {
    const int left = num_vecs - p * kPanelVecs;
    panels[p].num_vecs = left < kPanelVecs ? left : kPanelVecs;
    init_mass_panel(tile, panels[p], p * kPanelVecs * kLanes, scratch);
  }
  float* kf = take_floats(scratch, kKeys * tile.dim);
  float* s = take_floats(scratch, kKeys * kPanelVecs * kLanes);
  float* sums = take_floats(scratch, kKeys * kLanes);
  float* row = take_floats(scratch, tile.dim + kLanes);

  const Stored stored = stored_as(tile);
  Gather gather(tile);
  Block<kKeys> block;
  Turner turner(tile, panels, num_panels, row);
  for (gather.fill(block); block.num > 0; gather.fill(block)) {
    turner.turn(block.offset);
    for (int i = 0; i < block.num; ++i) {
      load_row(stored, block.k[i], kf + i * tile.dim, tile.dim);
    }
    for (int64_t i = block.num * tile.dim; i < (block.num + kStep - 1) / kStep * kStep * tile.dim;
         ++i) {
      kf[i] = 0.0F;
    }
    for (int i = 0; i < kKeys * kLanes; ++i) sums[i] = 0.0F;
    for (int p = 0; p < num_panels; ++p) {
      add_mass_panel<kDim>(tile, panels[p], block, kf, s, sums);
    }
    for (int key = 0; key < block.num; key += kLanes) {
      Vec lanes[kLanes];
      for (int i = 0; i < kLanes; ++i) lanes[i] = vload(sums + (key + i) * kLanes);
      float mass[kLanes];
      vstore(mass, sum_each(lanes));
      for (int i = 0; i < kLanes && key + i < block.num; ++i) {
        job.mass[block.position[key + i]] += mass[i];
      }
    }
  }
}

inline void add_mass_any(const MassTile& tile) {
  switch (tile.attn.dim) {
    case 64:
      return add_mass<64>(tile);
    case 128:
      return add_mass<128>(tile);
    default:
      return add_mass<0>(tile);
  }
}

}  // namespace
}  // namespace rk::kernels
