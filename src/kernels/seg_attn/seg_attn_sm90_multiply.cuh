// The other warpgroups of the Hopper kernel: scores, softmax and outputs of 64 packed rows each.
#pragma once

#include <cmath>

#include "kernels/seg_attn/seg_attn_sm90.cuh"

namespace rk::kernels::sm90 {

// Probabilities are relative to a score that follows the row's maximum only once that is 2^kSlack
// times more: outputs seldom need rescaling, and 2^8 is far inside f16 and f32 sums.
constexpr float kSlack = 8.0F;

template <class F>
struct Consumer {
  using T = typename F::T;
  const Params& p;
  Shared<F>& s;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4,
            lane = static_cast<int>(threadIdx.x) % 32;
  const int row = warp * 16 + lane / 4;  ///< of 64; this thread also has row + 8
  Ring<F::kStages> stage{};
  Ring<F::kQBuffers> buffer{};
  float out[F::kOutPieces][F::kOut];
  float scores[F::kScores];
  uint32_t probs[F::kScores / 2];
  float base_score[2], sum[2], shrink[2];
  int q_pos[2];
  HeadSight sight;

  __device__ void run() {
    if constexpr (F::kStartsEarly) await_kernel_before();    // parts and rows may still be read
    if (F::kTurns && group == 1) ptx::named_arrive(2, 256);  // warpgroup 0 goes first
    while (true) {
      ptx::barrier_wait(&s.k_full[stage.index], stage.parity);
      TileInfo tile = s.tiles[stage.index];
      if (tile.flags & kEnd) return;
      begin_item();
      take_turn();
      multiply_keys(tile);
      ptx::wgmma_commit();
      pass_turn();
      ptx::wgmma_wait<0>();
      ptx::settle(scores);
      keys_done(tile);
      soften(tile);
      round_probs();
      TileInfo values = tile;  // the tile whose values are multiplied next
      Ring<F::kStages> values_stage = stage;
      stage.advance();
      while (!(tile.flags & kLastOfItem)) {
        ptx::barrier_wait(&s.k_full[stage.index], stage.parity);
        tile = s.tiles[stage.index];
        take_turn();
        multiply_keys(tile);
        ptx::wgmma_commit();
        multiply_values(values, values_stage);
        ptx::wgmma_commit();
        pass_turn();
        ptx::wgmma_wait<1>();
        ptx::settle(scores);
        keys_done(tile);
        soften(tile);  // while the values are multiplied
        ptx::wgmma_wait<0>();
        values_done(values_stage);
        rescale();
        round_probs();
        values = tile;
        values_stage = stage;
        stage.advance();
      }
      multiply_values(values, values_stage);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      values_done(values_stage);
      end_item();
    }
  }

  __device__ void take_turn() {
    if constexpr (F::kTurns) ptx::named_sync(2 + group, 256);
  }
  __device__ void pass_turn() {
    if constexpr (F::kTurns) ptx::named_arrive(3 - group, 256);
  }
  __device__ void release(uint64_t* empty) {
    __syncwarp();
    if (lane < kArrivals) ptx::barrier_arrive(empty);
  }

  __device__ void begin_item() {
#pragma unroll
    for (int piece = 0; piece < F::kOutPieces; ++piece) {
#pragma unroll
      for (int i = 0; i < F::kOut; ++i) out[piece][i] = 0.0F;
    }
    for (int i = 0; i < 2; ++i) base_score[i] = -INFINITY, sum[i] = 0.0F;
  }

  /// Starts scores = Q K^T.
  __device__ void multiply_keys(const TileInfo& tile) {
    if (tile.flags & kNewQueries) {
      ptx::barrier_wait(&s.q_full[buffer.index], buffer.parity);
      for (int i = 0; i < 2; ++i) q_pos[i] = s.q_pos[buffer.index][group * 64 + row + 8 * i];
      sight = s.queries[buffer.index].sight;
    }
    const uint32_t q =
        ptx::shared_address(s.q[buffer.index]) + group * (F::kQBytes / F::kWarpgroups);
    const uint32_t k = ptx::shared_address(s.k[stage.index]);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < F::D / 16; ++i) {
      const uint64_t a = ptx::operand(q + i / 4 * 8192 + i % 4 * 32, 16, 1024);
      const uint64_t b = ptx::operand(k + i / 4 * 1024 + i % 4 * 32, 16, F::kHalves * 1024);
      ptx::wgmma_ss<T>(scores, a, b, i > 0);
    }
  }
  __device__ void keys_done(const TileInfo& tile) {
    release(&s.k_empty[stage.index]);
    if ((tile.flags & kLastOfQueries) && !(tile.flags & kLastOfItem)) {
      release(&s.q_empty[buffer.index]);
      buffer.advance();
    }
  }

  /// Starts out += P V.
  __device__ void multiply_values(const TileInfo& tile, Ring<F::kStages> at) {
    ptx::barrier_wait(&s.v_full[at.index], at.parity);
    if (tile.flags & kUnwritten) clear_unwritten(tile, s.v[at.index]);
    const uint32_t v = ptx::shared_address(s.v[at.index]);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < F::kKeys / 16; ++i) {
#pragma unroll
      for (int piece = 0; piece < F::kOutPieces; ++piece) {
        const uint64_t b =
            ptx::operand(v + i * 2 * F::kHalves * 1024 + piece * 2048, 1024, F::kHalves * 1024);
        ptx::wgmma_rs<T>(out[piece], &probs[4 * i], b);
      }
    }
  }
  __device__ void values_done(Ring<F::kStages> at) {
#pragma unroll
    for (int piece = 0; piece < F::kOutPieces; ++piece) ptx::settle(out[piece]);
    release(&s.v_empty[at.index]);
  }

  /// A row that was never written may hold NaN, and 0 * NaN is NaN. Both warpgroups write the same
  /// zeros: neither has to wait for the other.
  __device__ void clear_unwritten(const TileInfo& tile, uint8_t* v) {
    const auto clear = [&](int begin, int end) {
      for (int i = begin * F::kHalves * 8 + static_cast<int>(threadIdx.x) % 128;
           i < end * F::kHalves * 8; i += 128) {
        const int r = i / (F::kHalves * 8), chunk = i % (F::kHalves * 8);
        uint8_t* at = v + (r / 8 * F::kHalves + chunk / 8) * 1024 + r % 8 * 128 + chunk % 8 * 16;
        *reinterpret_cast<uint4*>(at) = make_uint4(0, 0, 0, 0);
      }
    };
    const uint32_t rows = tile.unwritten;
    clear(rows & 255, rows >> 8 & 255);
    clear(rows >> 16 & 255, rows >> 24);
    ptx::fence_proxy_async();
    ptx::named_sync(4 + group, 128);
  }

  __device__ void mask(const TileInfo& tile) {
    const int base = lane % 4 * 2;  // the thread's columns are base + 8 * i + {0, 1}
    int end[2], low[2];
    for (int i = 0; i < 2; ++i) {
      end[i] = min(tile.hi(), q_pos[i] + 1 - tile.position) - base;
      low[i] = (sight.window < 0 ? -1 : max(q_pos[i] - sight.window - tile.position, -1)) - base;
    }
    const int begin = tile.lo() - base, sink = sight.sink - tile.position - base;
#pragma unroll
    for (int i = 0; i < F::kScores; ++i) {
      const int col = i / 4 * 8 + i % 2, which = i / 2 % 2;
      const bool visible = col >= begin && col < end[which] && (col < sink || col > low[which]);
      if (!visible) scores[i] = -INFINITY;
    }
  }

  /// Scores become unnormalised probabilities, relative to base_score; `shrink` is what sums so far
  /// must be multiplied by.
  __device__ void soften(const TileInfo& tile) {
    if (tile.flags & kMasked) mask(tile);
    const float scale = p.scale * 1.44269504F;  // log2(e)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = -INFINITY;
#pragma unroll
      for (int i = 0; i < F::kScores; ++i) {
        if (i / 2 % 2 == r) top = fmaxf(top, scores[i]);
      }
      top = fmaxf(top, __shfl_xor_sync(~0U, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0U, top, 2));
      if (!((top - base_score[r]) * scale > kSlack)) top = base_score[r];
      const float base = top == -INFINITY ? 0.0F : top * scale;
      shrink[r] = ptx::exp2_approx(base_score[r] * scale - base);
      base_score[r] = top;
      float total = sum[r] * shrink[r];
#pragma unroll
      for (int i = 0; i < F::kScores; ++i) {
        if (i / 2 % 2 == r) {
          scores[i] = ptx::exp2_approx(fmaf(scores[i], scale, -base));
          total += scores[i];
        }
      }
      sum[r] = total;
    }
  }
  __device__ void rescale() {
    if (!__any_sync(~0U, shrink[0] != 1.0F || shrink[1] != 1.0F)) return;
#pragma unroll
    for (int piece = 0; piece < F::kOutPieces; ++piece) {
#pragma unroll
      for (int i = 0; i < F::kOut; ++i) out[piece][i] *= shrink[i / 2 % 2];
    }
  }
  __device__ void round_probs() {
#pragma unroll
    for (int i = 0; i < F::kScores / 2; ++i) {
      probs[i] = ptx::pack<T>(scores[2 * i], scores[2 * i + 1]);
    }
  }

  __device__ void end_item() {
    const QueryInfo info = s.queries[buffer.index];
    float inverse[2], lse[2];
    for (int r = 0; r < 2; ++r) {
      float total = sum[r];
      total += __shfl_xor_sync(~0U, total, 1);
      total += __shfl_xor_sync(~0U, total, 2);
      inverse[r] = total > 0.0F ? 1.0F / total : 0.0F;
      lse[r] = total > 0.0F ? base_score[r] * p.scale + logf(total) : -INFINITY;
    }
#pragma unroll
    for (int piece = 0; piece < F::kOutPieces; ++piece) {
#pragma unroll
      for (int i = 0; i < F::kOut; ++i) out[piece][i] *= inverse[i / 2 % 2];
    }
    if (info.item.part >= 0) {
      store_part(info.item, lse);
    } else {
      if (p.lse != nullptr) store_lse(info, lse);
      store_rows(info);
    }
    release(&s.q_empty[buffer.index]);
    buffer.advance();
  }

  __device__ void store_part(const SegAttnItem& item, const float (&lse)[2]) {
    for (int r = 0; r < 2; ++r) {
      const int m = group * 64 + row + 8 * r;
      if (m >= item.m_end - item.m_begin) continue;
      const int64_t at = int64_t{item.part} * kSegAttnTileRows + m;
      if (lane % 4 == 0) p.part_lse[at] = lse[r];
      float* to = p.part_o + at * F::D + lane % 4 * 2;
#pragma unroll
      for (int piece = 0; piece < F::kOutPieces; ++piece) {
#pragma unroll
        for (int i = 0; i < F::kOut / 4; ++i) {
          *reinterpret_cast<float2*>(to + piece * 128 + i * 8) =
              make_float2(out[piece][4 * i + 2 * r], out[piece][4 * i + 2 * r + 1]);
        }
      }
    }
  }

  __device__ void store_lse(const QueryInfo& info, const float (&lse)[2]) {
    for (int r = 0; r < 2; ++r) {
      const int m = info.item.m_begin + group * 64 + row + 8 * r;
      if (lane % 4 != 0 || m >= info.item.m_end) continue;
      p.lse[(info.q_begin + m / p.group) * int64_t{p.num_kv_heads} * p.group +
            info.item.kv_head * p.group + m % p.group] = lse[r];
    }
  }

  /// Through the buffer of queries, which nobody needs any more, for stores of whole rows.
  __device__ void store_rows(const QueryInfo& info) {
    uint8_t* rows = s.q[buffer.index] + group * (F::kQBytes / F::kWarpgroups);
    ptx::named_sync(4 + group, 128);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int chunk = 0; chunk < F::D / 8; ++chunk) {
        const float* pair = &out[chunk / 16][chunk % 16 * 4 + 2 * r];
        *reinterpret_cast<uint32_t*>(rows + chunk / 8 * 8192 + (row + 8 * r) * 128 +
                                     (chunk % 8 ^ row % 8) * 16 + lane % 4 * 4) =
            ptx::pack<T>(pair[0], pair[1]);
      }
    }
    __syncwarp();
    constexpr int kLanes = F::D / 8;  // of a row
    const int chunk = lane % kLanes;
#pragma unroll
    for (int i = 0; i < 16; i += 32 / kLanes) {
      const int r = warp * 16 + i + lane / kLanes;
      const int m = info.item.m_begin + group * 64 + r;
      if (m >= info.item.m_end) continue;
      T* to = static_cast<T*>(p.o) + (info.q_begin + m / p.group) * p.o_stride +
              (info.item.kv_head * p.group + m % p.group) * F::D + chunk * 8;
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(
          rows + chunk / 8 * 8192 + r * 128 + (chunk % 8 ^ r % 8) * 16);
    }
  }
};

}  // namespace rk::kernels::sm90
