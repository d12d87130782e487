// The first warpgroup of the Hopper kernel: one warp walks items and key tiles and has the copy
// engine bring pages; three warps load queries and turn them by their distance to the run.
#pragma once

#include "kernels/seg_attn/seg_attn_sm90.cuh"

namespace rk::kernels::sm90 {

template <class F>
struct Producer {
  const Params& p;
  Shared<F>& s;
  const int lane = threadIdx.x % 32;
  Ring<F::kStages> stage{};
  Ring<F::kQBuffers> buffer{};

  /// Lane 0's claim of the next item. The last block to find none puts the counter back to 0.
  __device__ int claim(int num_items) {
    if (lane != 0) return 0;
    const int item = atomicAdd(p.next_item, 1);
    if (item == num_items + static_cast<int>(gridDim.x) - 1) *p.next_item = 0;
    return item;
  }

  __device__ void run() {
    const int num_items = p.counts[0];
    int next = __shfl_sync(~0U, claim(num_items), 0);
    while (next < num_items) next = run_item(p.items[next], num_items);
    ptx::barrier_wait(&s.q_empty[buffer.index], buffer.parity ^ 1);
    ptx::barrier_wait(&s.k_empty[stage.index], stage.parity ^ 1);
    if (lane != 0) return;
    s.queries[buffer.index].more = 0;
    ptx::barrier_arrive(&s.q_asked[buffer.index]);
    s.tiles[stage.index].flags = kEnd;
    ptx::barrier_arrive(&s.k_full[stage.index]);
  }

  /// Returns the item after it.
  __device__ int run_item(const SegAttnItem& item, int num_items) {
    const DeviceSequence sequence = p.sequences[item.sequence];
    const int head = p.layer * p.num_kv_heads + item.kv_head;
    const HeadSight sight = sequence.sight[head];
    const int32_t* pages = sequence.pages + head * sequence.page_stride;
    const int32_t* q_pos = p.q_pos + sequence.q_begin;
    KeyTiles walk(sequence.runs, sequence.num_runs, sight, q_pos[item.m_begin / p.group],
                  q_pos[(item.m_end - 1) / p.group], item.key_begin, item.key_end, F::kKeys);
    KeyTile tile;  // an item that sees nothing still has one tile, all masked: it writes zeros
    int page = walk.next(&tile) ? page_of(tile, pages) : 0;
    int flags = kNewQueries, claimed = 0;
    while (true) {
      KeyTile ahead;
      const bool more = walk.next(&ahead);
      const int ahead_page = more ? page_of(ahead, pages) : 0;  // on its way while this one waits
      if (!more) claimed = claim(num_items);
      const bool turns = more && ahead.offset != tile.offset;
      if (!more) flags |= kLastOfItem;
      if (!more || turns) flags |= kLastOfQueries;
      if (flags & kNewQueries) ask({item, sight, sequence.q_begin, tile.offset, 1});
      load(tile, flags, page);
      if (!more) break;
      tile = ahead;
      page = ahead_page;
      flags = turns ? kNewQueries : 0;
    }
    return __shfl_sync(~0U, claimed, 0);
  }

  /// Lane i's page of the tile, if it has one.
  __device__ int page_of(const KeyTile& tile, const int32_t* pages) const {
    return lane >= tile.page_begin() && lane < tile.page_end() ? pages[tile.first_page + lane] : 0;
  }

  __device__ void ask(const QueryInfo& info) {
    ptx::barrier_wait(&s.q_empty[buffer.index], buffer.parity ^ 1);
    if (lane == 0) {
      s.queries[buffer.index] = info;
      ptx::barrier_arrive(&s.q_asked[buffer.index]);
    }
    buffer.advance();
  }

  __device__ void load(const KeyTile& tile, int flags, int page) {
    const int begin = tile.page_begin(), end = tile.page_end();
    const bool mine = lane >= begin && lane < end;
    const int first = __shfl_sync(~0U, page, 0);
    const bool consecutive =
        end - begin == F::kPages && __all_sync(~0U, !mine || page == first + lane);
    TileInfo info = {flags,           tile.position(), tile.lo,        tile.hi, begin * kPageRows,
                     tile.written_lo, tile.written_hi, end * kPageRows};
    if (tile.masked) info.flags |= kMasked;
    if (info.zero_begin < info.zero_end || info.zero_begin2 < info.zero_end2) {
      info.flags |= kUnwritten;
    }
    ptx::barrier_wait(&s.k_empty[stage.index], stage.parity ^ 1);
    if (lane == 0) s.tiles[stage.index] = info;
    copy(s.k[stage.index], &s.k_full[stage.index], &p.k_page, &p.k_pages, end - begin, page, mine,
         consecutive);
    ptx::barrier_wait(&s.v_empty[stage.index], stage.parity ^ 1);
    copy(s.v[stage.index], &s.v_full[stage.index], &p.v_page, &p.v_pages, end - begin, page, mine,
         consecutive);
    stage.advance();
  }

  __device__ void copy(uint8_t* to, uint64_t* full, const CUtensorMap* one, const CUtensorMap* all,
                       int num_pages, int page, bool mine, bool consecutive) {
    if (lane == 0) ptx::barrier_arrive_expect(full, num_pages * F::kPageBytes);
    __syncwarp();
    if (consecutive) {
      if (lane == 0) ptx::load_box(to, all, page, full);
    } else if (mine) {
      ptx::load_box(to + lane * F::kPageBytes, one, page, full);
    }
  }
};

struct Sixteen {  // two chunks of eight elements that turn together
  uint4 a, b;
};

template <class T>
__device__ inline void turn(Sixteen& x, const float4 (&cos)[2], const float4 (&sin)[2],
                            bool interleaved) {
  const float* c = reinterpret_cast<const float*>(cos);
  const float* s = reinterpret_cast<const float*>(sin);
  T* a = reinterpret_cast<T*>(&x.a);
  T* b = reinterpret_cast<T*>(&x.b);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    T* lo = interleaved ? (i < 4 ? a + 2 * i : b + 2 * i - 8) : a + i;
    T* hi = interleaved ? lo + 1 : b + i;
    const float u = static_cast<float>(*lo), w = static_cast<float>(*hi);
    *lo = static_cast<T>(u * c[i] - w * s[i]);
    *hi = static_cast<T>(w * c[i] + u * s[i]);
  }
}

/// Fills buffers of queries as the producer asks for them: rows behind the item's last repeat it.
template <class F>
__device__ void load_queries(const Params& p, Shared<F>& s) {
  using T = typename F::T;
  const int thread = threadIdx.x - 32;
  const int half_dim = p.rotary_dim / 2;
  for (Ring<F::kQBuffers> buffer;; buffer.advance()) {
    ptx::barrier_wait(&s.q_asked[buffer.index], buffer.parity);
    const QueryInfo info = s.queries[buffer.index];
    if (!info.more) return;
    uint8_t* to = s.q[buffer.index];
    const int rows = info.item.m_end - info.item.m_begin;
    const int filled = min((rows + 15) / 16 * 16, F::kRows);
    for (int r = thread; r < F::kRows; r += kLoaderThreads) {
      const int m = info.item.m_begin + min(r, rows - 1);
      s.q_pos[buffer.index][r] = p.q_pos[info.q_begin + m / p.group];
    }
    for (int i = thread; i < filled * (F::D / 16); i += kLoaderThreads) {
      const int r = i / (F::D / 16), unit = i % (F::D / 16);
      const int m = info.item.m_begin + min(r, rows - 1);
      const int t = info.q_begin + m / p.group;
      const bool rotates = unit * 16 < p.rotary_dim;
      const bool split = rotates && !p.interleaved;
      const int col = split ? unit * 8 : unit * 16, col2 = split ? col + half_dim : col + 8;
      const T* q = static_cast<const T*>(p.q) + t * p.q_stride +
                   (info.item.kv_head * p.group + m % p.group) * p.q_head_stride;
      Sixteen x = {*reinterpret_cast<const uint4*>(q + col),
                   *reinterpret_cast<const uint4*>(q + col2)};
      if (rotates) {
        // A query before the run sees none of it; any table row will do.
        const int distance = min(max(p.q_pos[t] - info.offset, 0), p.num_positions - 1);
        const int64_t at = int64_t{distance} * half_dim + unit * 8;
        const auto* cos = reinterpret_cast<const float4*>(p.cos + at);
        const auto* sin = reinterpret_cast<const float4*>(p.sin + at);
        const float4 c[2] = {cos[0], cos[1]}, d[2] = {sin[0], sin[1]};
        if (p.interleaved) {
          turn<T>(x, c, d, true);
        } else {
          turn<T>(x, c, d, false);
        }
      }
      uint8_t* row = to + r / 64 * (F::kQBytes / F::kWarpgroups) + r % 64 * 128;
      const int chunk = col / 8, chunk2 = col2 / 8;
      *reinterpret_cast<uint4*>(row + chunk / 8 * 8192 + (chunk % 8 ^ r % 8) * 16) = x.a;
      *reinterpret_cast<uint4*>(row + chunk2 / 8 * 8192 + (chunk2 % 8 ^ r % 8) * 16) = x.b;
    }
    ptx::fence_proxy_async();
    ptx::barrier_arrive(&s.q_full[buffer.index]);
  }
}

}  // namespace rk::kernels::sm90
