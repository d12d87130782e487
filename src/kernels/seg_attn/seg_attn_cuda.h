// SegPagedAttention on a card: the formula of seg_attn.h over device memory.
//
// All heads of a sequence share one list of runs: heads differ in the pages they hold and in what
// they see (sink and window), and a key that a head cannot see is never loaded, so its page may be
// gone (-1). GQA is packed: row m of a KV head's query block is query t = m / (H/G), head
// g*(H/G) + m % (H/G), so that one tile of keys serves all its query heads.
//
// A step is planned once on the host by a pure function, for every layer that sees alike; decode
// and short questions split the keys, and parts are merged by their log-sum-exp.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/rope/rope.h"
#include "kernels/seg_attn/seg_attn.h"
#include "tensor/device.h"
#include "tensor/view.h"

namespace rk::kernels {

/// What a KV head sees: j < sink or j > p - window (window < 0: everything).
struct HeadSight {
  int32_t sink = 0;
  int32_t window = -1;
  bool operator==(const HeadSight&) const = default;
};

/// One sequence of a step; the array lies in device memory and its pointers are device pointers.
struct DeviceSequence {
  const Run* runs = nullptr;  ///< [num_runs], ascending positions; pages index each head's list
  int32_t num_runs = 0;
  int32_t q_begin = 0;             ///< its first query row of the step
  const int32_t* pages = nullptr;  ///< page ids: head g of layer l at (l*G + g) * page_stride
  int64_t page_stride = 0;
  const HeadSight* sight = nullptr;  ///< [L*G]
  /// [L*G] or null; 1: rows of stored pieces stay as they are (qkv_write_cuda).
  const uint8_t* keeps_stored = nullptr;
};

/// One block's work: query rows of one KV head against the keys of a position range.
struct SegAttnItem {
  int32_t sequence = 0, kv_head = 0;
  int32_t m_begin = 0, m_end = 0;      ///< packed rows, at most kSegAttnTileRows
  int32_t key_begin = 0, key_end = 0;  ///< positions; keys outside are another part's
  int32_t part = -1;                   ///< >= 0: writes f32 part `part`, not o
};
/// Packed rows whose `num_parts` parts from `part` on are merged into o.
struct SegAttnMerge {
  int32_t sequence = 0, kv_head = 0;
  int32_t m_begin = 0, m_end = 0;
  int32_t part = 0, num_parts = 0;
};
inline constexpr int kSegAttnTileRows = 128;

/// What the planner needs to know of a sequence.
struct SegAttnPlanSequence {
  std::span<const int32_t> q_pos;    ///< its query positions, ascending
  std::span<const HeadSight> sight;  ///< [G] of the layer
  int32_t num_keys = 0;              ///< positions it holds, this step's rows included
};
struct SegAttnPlanOptions {
  int num_heads = 1, num_kv_heads = 1;
  int num_sms = 132;
  int max_parts = 4096;  ///< parts the workspace has room for
};
struct SegAttnPlan {
  std::vector<SegAttnItem> items;  ///< longest first
  std::vector<SegAttnMerge> merges;
  int32_t num_parts = 0;
  int32_t max_item_rows = 0;  ///< packed rows of the largest item
};
/// Pure. Every visible (query, key) pair is covered exactly once, and the work of the largest item
/// is about the mean work of a multiprocessor where the rows allow it.
SegAttnPlan plan_seg_attn(std::span<const SegAttnPlanSequence> sequences,
                          const SegAttnPlanOptions& options);

struct SegAttnCudaArgs {
  View q;                 ///< [T, H, D] bf16|f16, rows may be strided, not rotated
  View k_pages, v_pages;  ///< [N, 16, D] of q's dtype
  View o;                 ///< [T, H, D] of q's dtype
  float* lse = nullptr;   ///< [T, H] out or null; natural log; -inf where no row is visible
  const int32_t* q_pos = nullptr;             ///< [T]
  const DeviceSequence* sequences = nullptr;  ///< [B]
  int layer = 0, num_kv_heads = 1;
  RopeView rope;  ///< device tables
  float scale = 1.0F;
  // The plan, uploaded. Counts are read on the card so that a captured graph can be replayed.
  const SegAttnItem* items = nullptr;
  const SegAttnMerge* merges = nullptr;
  const int32_t* counts = nullptr;       ///< {items, merges}
  int max_items = 0, max_merges = 0;     ///< bounds of the counts: they size the grid
  int max_item_rows = kSegAttnTileRows;  ///< bound of an item's rows; up to 64 is decode's form
  float* part_o = nullptr;               ///< [max_parts, 128, D]
  float* part_lse = nullptr;             ///< [max_parts, 128]
  /// Rows at positions before a sequence's first query were written by kernels before the last one
  /// of the stream, so that they may be read while that one still runs (decode). What the plan and
  /// the sequences point to was never written by a kernel that may still run.
  bool old_rows_ready = false;
  int32_t* next_item = nullptr;  ///< counter of the persistent grid; 0 before and after the call
};

/// Rows of a run on a page that a query may see are finite; rows of such a page outside every run
/// may hold anything. Runs in stream order, allocates nothing. D is 64, 128 or 256. `variant` is
/// "sm90", "sm80" or "" for the fastest that the card runs. Errors: kInvalidArgument,
/// kUnimplemented; kInternal where the launch fails.
Status seg_attn_cuda(const SegAttnCudaArgs& args, std::string_view variant, Stream stream);

}  // namespace rk::kernels
