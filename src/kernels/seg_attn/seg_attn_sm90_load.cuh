// The first warpgroup of the Hopper kernel: one warp walks items and key tiles and has the copy
// engine bring pages; three warps load queries and turn them by their distance to the run.
#pragma once

#include "kernels/seg_attn/seg_attn_sm90.cuh"

namespace rk::kernels::sm90 {

constexpr int kClaimTiles = 8;  // how long before an item's end the next is claimed

__device__ inline KeyTiles walk_of(const Params& p, const SegAttnItem& item,
                                   const DeviceSequence& sequence, int tile_rows) {
  const int32_t* q_pos = p.q_pos + sequence.q_begin;
  if (sequence.num_runs > 0) ptx::touch(sequence.runs);  // beside the loads below, not after them
  return KeyTiles(sequence.runs, sequence.num_runs,
                  sequence.sight[p.layer * p.num_kv_heads + item.kv_head],
                  q_pos[item.m_begin / p.group], q_pos[(item.m_end - 1) / p.group], item.key_begin,
                  item.key_end, tile_rows);
}

template <class F>
struct Producer {
  const Params& p;
  Shared<F>& s;
  const int lane = threadIdx.x % 32;
  const int num_items = p.counts[0];
  bool awaited = !F::kStartsEarly;
  Ring<F::kStages> stage{};
  Ring<kClaims> claims{};

  __device__ void run() {
    int next = static_cast<int>(blockIdx.x);
    announce(next);
    if (next >= num_items) claim();
    while (next < num_items) next = run_item(p.items[next]);
    ptx::barrier_wait(&s.k_empty[stage.index], stage.parity ^ 1);
    if (lane != 0) return;
    s.tiles[stage.index].flags = kEnd;
    ptx::barrier_arrive(&s.k_full[stage.index]);
  }

  struct Load {  // a tile and this lane's page of it
    TileInfo info;
    int offset, page;
  };

  /// Lane 0 claims an item behind the blocks' first ones. Every block claims in vain once; the last
  /// to do so puts the counter back to 0.
  __device__ int claim() {
    await();
    if (lane != 0) return 0;
    const int blocks = static_cast<int>(gridDim.x), number = atomicAdd(p.next_item, 1);
    if (number == max(num_items - blocks, 0) + blocks - 1) *p.next_item = 0;
    return number + blocks;
  }
  __device__ void await() {
    if (awaited) return;
    await_kernel_before();
    awaited = true;
  }
  /// Whether no query of the sequence is as early as the tile's last row.
  __device__ bool is_old(const Load& l, const DeviceSequence& sequence) const {
    return p.old_rows_ready && l.info.position + l.info.hi() <= p.q_pos[sequence.q_begin];
  }
  __device__ void announce(int item) {
    if (lane == 0) {
      s.next_item[claims.index] = item < num_items ? item : -1;
      ptx::barrier_arrive(&s.claimed[claims.index]);
    }
    claims.advance();
  }

  /// The walk's next tile, or what stands for none: rows [0, 0), no pages.
  __device__ bool next_of(KeyTiles& walk, const int32_t* pages, Load& load) const {
    KeyTile tile;
    const bool found = walk.next(&tile);
    load.info = info_of(tile);
    load.offset = tile.offset;
    load.page = 0;
    if (lane >= tile.page_begin() && lane < tile.page_end()) {
      load.page = pages[tile.first_page + lane];
    }
    return found;
  }

  /// Brings the item's tiles. Returns the item after it, claimed early enough that its queries are
  /// there when this one ends.
  __device__ int run_item(const SegAttnItem& item) {
    const DeviceSequence sequence = p.sequences[item.sequence];
    const int head = p.layer * p.num_kv_heads + item.kv_head;
    const int32_t* pages = sequence.pages + head * sequence.page_stride;
    KeyTiles walk = walk_of(p, item, sequence, F::kKeys);
    Load now;
    next_of(walk, pages, now);  // an item that sees nothing still has a tile: it writes zeros
    int flags = kNewQueries, next = -1;
    for (bool more = true; more;) {
      Load ahead;
      more = next_of(walk, pages, ahead);  // its page is on its way while `now` waits
      if (next < 0 && (!more || walk.rows_left() <= kClaimTiles * F::kKeys)) {
        next = __shfl_sync(~0U, claim(), 0);
        announce(next);
      }
      const bool turns = more && ahead.offset != now.offset;
      if (!more) flags |= kLastOfItem;
      if (!more || turns) flags |= kLastOfQueries;
      now.info.flags |= flags;
      if (F::kStartsEarly && !awaited && !is_old(now, sequence)) await();
      load_keys(now);
      load_values(now);
      stage.advance();
      now = ahead;
      flags = turns ? kNewQueries : 0;
    }
    return next;
  }

  __device__ void load_keys(const Load& l) {
    const int i = stage.index;
    ptx::barrier_wait(&s.k_empty[i], stage.parity ^ 1);
    if (lane == 0) s.tiles[i] = l.info;
    copy(l, s.k[i], &s.k_full[i], &p.k_page, &p.k_pages);
  }
  __device__ void load_values(const Load& l) {
    const int i = stage.index;
    ptx::barrier_wait(&s.v_empty[i], stage.parity ^ 1);
    copy(l, s.v[i], &s.v_full[i], &p.v_page, &p.v_pages);
  }

  __device__ void copy(const Load& l, uint8_t* to, uint64_t* full, const CUtensorMap* one,
                       const CUtensorMap* all) {
    const int begin = l.info.page_begin(), end = l.info.page_end();
    const bool mine = lane >= begin && lane < end;
    const bool consecutive = l.page == __shfl_sync(~0U, l.page, 0) + lane;
    if (lane == 0) ptx::barrier_arrive_expect(full, (end - begin) * F::kPageBytes);
    __syncwarp();
    if (end - begin == F::kPages && __all_sync(~0U, !mine || consecutive)) {
      if (lane == 0) ptx::load_box(to, all, l.page, full);
    } else if (mine) {
      ptx::load_box(to + lane * F::kPageBytes, one, l.page, full);
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

/// Three warps: fill buffers of queries, one for each stretch of tiles with one offset, as soon as
/// the consumers are done with the buffer's last.
template <class F>
struct Loader {
  using T = typename F::T;
  const Params& p;
  Shared<F>& s;
  const int thread = static_cast<int>(threadIdx.x) - 32;
  Ring<kClaims> claims{};
  Ring<F::kQBuffers> buffer{};

  __device__ void run() {
    while (true) {
      ptx::barrier_wait(&s.claimed[claims.index], claims.parity);
      const int next = s.next_item[claims.index];
      if (next < 0) return;
      claims.advance();
      load_item(p.items[next]);
    }
  }

  __device__ void load_item(const SegAttnItem& item) {
    const DeviceSequence sequence = p.sequences[item.sequence];
    const QueryInfo info = {item, sequence.sight[p.layer * p.num_kv_heads + item.kv_head],
                            sequence.q_begin};
    KeyTiles walk = walk_of(p, item, sequence, 1 << 30);  // a tile a run
    KeyTile tile;
    bool more = walk.next(&tile);
    // The producer needs these next; it would wait for memory when it should start copies.
    if (more && thread < tile.page_end() - tile.page_begin()) {
      const int head = p.layer * p.num_kv_heads + item.kv_head;
      ptx::touch(sequence.pages + head * sequence.page_stride + tile.first_page +
                 tile.page_begin() + thread);
    }
    do {
      const int offset = tile.offset;
      fill(info, offset);
      do {
        more = more && walk.next(&tile);
      } while (more && tile.offset == offset);
    } while (more);
  }

  /// Rows behind the item's last repeat it.
  __device__ void fill(const QueryInfo& info, int offset) {
    const int b = buffer.index, rows = info.item.m_end - info.item.m_begin;
    ptx::barrier_wait(&s.q_empty[b], buffer.parity ^ 1);
    if constexpr (F::kStartsEarly) await_kernel_before();
    if (thread == 0) s.queries[b] = info;
    for (int r = thread; r < F::kRows; r += kLoaderThreads) {
      const int m = info.item.m_begin + min(r, rows - 1), t = info.q_begin + m / p.group;
      s.q_pos[b][r] = p.q_pos[t];
      s.q_chunk[r] = static_cast<int>(
          (t * p.q_stride + (info.item.kv_head * p.group + m % p.group) * F::D) / 8);
    }
    ptx::named_sync(6, kLoaderThreads);
    const int units = min((rows + 15) / 16 * 16, F::kRows) * (F::D / 16);
#pragma unroll 2
    for (int i = thread; i < units; i += kLoaderThreads) {
      fill_unit(s.q[b], i / (F::D / 16), i % (F::D / 16), s.q_pos[b], offset);
    }
    ptx::fence_proxy_async();
    ptx::barrier_arrive(&s.q_full[b]);
    ptx::named_sync(6, kLoaderThreads);  // q_chunk is free again
    buffer.advance();
  }

  __device__ void fill_unit(uint8_t* to, int r, int unit, const int* q_pos, int offset) {
    const int half_dim = p.rotary_dim / 2;
    const bool rotates = unit * 16 < p.rotary_dim;
    const bool split = rotates && !p.interleaved;
    const int chunk = split ? unit : unit * 2, chunk2 = split ? chunk + half_dim / 8 : chunk + 1;
    const auto* q = static_cast<const uint4*>(p.q) + s.q_chunk[r];
    Sixteen x = {q[chunk], q[chunk2]};
    if (rotates) {
      // A query before the run sees none of it; any table row will do.
      const int distance = min(max(q_pos[r] - offset, 0), p.num_positions - 1);
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
    *reinterpret_cast<uint4*>(row + chunk / 8 * 8192 + (chunk % 8 ^ r % 8) * 16) = x.a;
    *reinterpret_cast<uint4*>(row + chunk2 / 8 * 8192 + (chunk2 % 8 ^ r % 8) * 16) = x.b;
  }
};

}  // namespace rk::kernels::sm90
