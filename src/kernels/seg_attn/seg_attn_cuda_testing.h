// Problems for the tests of seg_attn_cuda(): built on the host, solved by the reference there and
// by a variant on the card. Tests only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/layer/layer_cuda.h"
#include "kernels/seg_attn/key_tiles.cuh"
#include "kernels/seg_attn/seg_attn_cuda.h"
#include "kernels/seg_attn/seg_attn_variants.h"
#include "tensor/buffer.h"

namespace rk::kernels {

/// Items and merges of the simplest kind: `rows` packed rows an item, keys cut into `splits` ranges
/// (with 1 and no `all_parts`, items write o themselves).
struct ForcedPlan {
  int rows = kSegAttnTileRows, splits = 1;
  bool all_parts = false;
};

class SegAttnCudaProblem {
 public:
  struct Shape {
    int heads = 8, kv_heads = 2, dim = 128;
    DType dtype = DType::kBf16;
    int rotary = -1;  // -1: the whole head
    RopePairs pairs = RopePairs::kHalfSplit;
    int num_layers = 1, layer = 0;
    friend void PrintTo(const Shape& s, std::ostream* os) {
      *os << s.heads << "/" << s.kv_heads << " heads of " << s.dim << ", " << dtype_name(s.dtype)
          << ", rotary " << s.rotary << (s.pairs == RopePairs::kInterleaved ? " interleaved" : "")
          << ", layer " << s.layer << " of " << s.num_layers;
    }
  };
  struct Solution {
    std::vector<float> o, lse;
    Status status;
  };

  SegAttnCudaProblem(const Shape& shape, uint32_t seed) : shape_(shape), random_(seed) {
    const int rotary = shape.rotary < 0 ? shape.dim : shape.rotary;
    std::vector<double> inv_freq(rotary / 2);
    for (int i = 0; i < rotary / 2; ++i) inv_freq[i] = std::pow(1e4, -2.0 * i / rotary);
    table_ = RopeTable::create(inv_freq, 1 << 13, 1.0, shape.pairs).value();
  }

  /// Runs without pages yet (first_page is set here); sight of each KV head; positions of queries.
  void add_sequence(std::vector<Run> runs, std::vector<HeadSight> sight,
                    std::vector<int32_t> q_pos) {
    Sequence s{std::move(runs), std::move(sight), std::move(q_pos)};
    for (Run& run : s.runs) {
      run.first_page = s.num_pages;
      if (run.row_end > run.row_begin) {
        s.num_pages += (run.row_end - 1) / kPageRows - run.row_begin / kPageRows + 1;
      }
    }
    s.page_stride = s.num_pages + 3;
    sequences_.push_back(std::move(s));
  }

  /// Call once all sequences were added: deals out pages, draws rows and queries, forgets pages
  /// that nobody sees.
  void finish() {
    int total = 7;
    for (const Sequence& s : sequences_) total += s.num_pages * shape_.kv_heads;
    std::vector<int32_t> free(total);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), random_);
    const size_t elems = size_t(total) * kPageRows * shape_.dim;
    k_.assign(elems, encode(NAN));  // rows outside every run may hold anything
    v_.assign(elems, encode(NAN));
    num_pages_ = total;
    for (Sequence& s : sequences_) {
      s.q_begin = static_cast<int>(q_pos_.size());
      q_pos_.insert(q_pos_.end(), s.q_pos.begin(), s.q_pos.end());
      s.pages.assign(size_t(s.page_stride) * shape_.num_layers * shape_.kv_heads, -1);
      for (int g = 0; g < shape_.kv_heads; ++g) deal_pages(s, g, &free);
    }
    const int64_t row = int64_t{shape_.heads} * shape_.dim;
    q_stride_ = row + 16;  // rows of q and o are strided, as parts of a QKV row are
    q_.resize(q_pos_.size() * q_stride_);
    for (uint16_t& x : q_) x = encode(normal_(random_));
  }

  int num_tokens() const { return static_cast<int>(q_pos_.size()); }
  int num_heads() const { return shape_.heads; }
  int num_kv_heads() const { return shape_.kv_heads; }
  int group() const { return shape_.heads / shape_.kv_heads; }

  SegAttnPlan plan(const ForcedPlan& forced) const {
    SegAttnPlan plan;
    for (int b = 0; b < static_cast<int>(sequences_.size()); ++b) {
      const Sequence& s = sequences_[b];
      const int rows = static_cast<int>(s.q_pos.size()) * group();
      const int keys = s.q_pos.empty() ? 0 : s.q_pos.back() + 1;
      for (int g = 0; g < shape_.kv_heads; ++g) {
        for (int m = 0; m < rows; m += forced.rows) {
          const int end = std::min(m + forced.rows, rows);
          const bool parts = forced.splits > 1 || forced.all_parts;
          const int each = (keys + forced.splits - 1) / forced.splits;
          if (parts) plan.merges.push_back({b, g, m, end, plan.num_parts, forced.splits});
          for (int i = 0; i < forced.splits; ++i) {
            plan.items.push_back({b, g, m, end, std::min(i * each, keys),
                                  std::min((i + 1) * each, keys), parts ? plan.num_parts++ : -1});
          }
          plan.max_item_rows = std::max(plan.max_item_rows, end - m);
        }
      }
    }
    return plan;
  }
  /// What the planner itself makes of the problem.
  std::vector<SegAttnPlanSequence> plan_sequences() const {
    std::vector<SegAttnPlanSequence> out;
    for (const Sequence& s : sequences_) {
      int keys = 0;
      for (const Run& run : s.runs) keys = std::max(keys, run.offset + run.row_end);
      out.push_back({s.q_pos, s.sight, keys});
    }
    return out;
  }

  Solution reference() const {
    SegAttnArgs a;
    std::vector<float> q(size_t(num_tokens()) * shape_.heads * shape_.dim);
    const int64_t row = int64_t{shape_.heads} * shape_.dim;
    for (int64_t t = 0; t < num_tokens(); ++t) {
      for (int64_t i = 0; i < row; ++i) q[t * row + i] = decode(q_[t * q_stride_ + i]);
    }
    Solution out;
    out.o.resize(q.size());
    out.lse.resize(size_t(num_tokens()) * shape_.heads);
    a.q = View(q.data(), DType::kF32, {num_tokens(), shape_.heads, shape_.dim});
    a.o = View(out.o.data(), DType::kF32, {num_tokens(), shape_.heads, shape_.dim});
    a.lse = View(out.lse.data(), DType::kF32, {num_tokens(), shape_.heads});
    std::vector<float> k(k_.size()), v(v_.size());
    std::transform(k_.begin(), k_.end(), k.begin(), [&](uint16_t x) { return decode(x); });
    std::transform(v_.begin(), v_.end(), v.begin(), [&](uint16_t x) { return decode(x); });
    a.k_pages = View(k.data(), DType::kF32, {num_pages_, kPageRows, shape_.dim});
    a.v_pages = View(v.data(), DType::kF32, {num_pages_, kPageRows, shape_.dim});
    a.rope = table_.view();
    a.scale = scale();
    std::vector<Slice> slices;  // one for each few rows of a head, so that threads can share them
    for (const Sequence& s : sequences_) {
      for (int g = 0; g < shape_.kv_heads; ++g) {
        for (size_t t = 0; t < s.q_pos.size(); t += 8) {
          slices.push_back({&s, g, t, std::min(t + 8, s.q_pos.size())});
        }
      }
    }
    ThreadPool pool(static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
    pool.parallel_for(static_cast<int64_t>(slices.size()), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) solve_slice(slices[i], a);
    });
    return out;
  }

  /// Decode: rows before a sequence's first query may be read early.
  bool old_rows_ready = false;
  /// The queries are written by the kernel right before, which takes a while.
  bool late_queries = false;

  /// Runs `plan` on the current card, `times` over the same memory.
  Solution solve(std::string_view variant, const SegAttnPlan& plan, Stream stream,
                 int times = 1) const {
    Solution out;
    out.status = try_solve(variant, plan, stream, times, &out);
    return out;
  }

 protected:
  struct Sequence {
    std::vector<Run> runs;
    std::vector<HeadSight> sight;
    std::vector<int32_t> q_pos;
    int num_pages = 0, page_stride = 0, q_begin = 0;
    std::vector<int32_t> pages;  // [L*G, page_stride]
  };

  struct Slice {
    const Sequence* sequence;
    int kv_head;
    size_t begin, end;  // queries of the sequence
  };
  void solve_slice(const Slice& slice, SegAttnArgs a) const {
    const Sequence& s = *slice.sequence;
    const int64_t first = s.q_begin + static_cast<int64_t>(slice.begin);
    for (View* v : {&a.q, &a.o, &a.lse}) {
      const int64_t head = int64_t{slice.kv_head} * group() * (v->rank == 3 ? shape_.dim : 1);
      v->data = v->ptr<float>() + first * v->stride[0] + head;
      v->dim[0] = static_cast<int64_t>(slice.end - slice.begin);
      v->dim[1] = group();
    }
    const int32_t q_begin[] = {0, static_cast<int32_t>(a.q.dim[0])};
    const HeadRows head{s.runs,
                        {head_pages(s, slice.kv_head), static_cast<size_t>(s.num_pages)},
                        s.sight[slice.kv_head].sink,
                        s.sight[slice.kv_head].window};
    a.q_pos = std::span(s.q_pos).subspan(slice.begin, slice.end - slice.begin);
    a.q_begin = q_begin;
    a.heads = {&head, 1};
    Context ctx;
    RK_CHECK(seg_attn_ref(a, ctx).ok());
  }

  float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape_.dim)); }
  uint16_t encode(float x) const {
    return shape_.dtype == DType::kF16 ? f32_to_f16(x) : f32_to_bf16(x);
  }
  float decode(uint16_t x) const {
    return shape_.dtype == DType::kF16 ? f16_to_f32(x) : bf16_to_f32(x);
  }
  const int32_t* head_pages(const Sequence& s, int g) const {
    return s.pages.data() + (size_t(shape_.layer) * shape_.kv_heads + g) * s.page_stride;
  }
  static bool page_is_seen(const Sequence& s, HeadSight sight, const Run& run, int page) {
    for (int j = std::max(run.row_begin, page * kPageRows);
         j < std::min(run.row_end, (page + 1) * kPageRows); ++j) {
      const int position = run.offset + j;
      for (const int32_t p : s.q_pos) {
        if (position <= p &&
            (sight.window < 0 || position < sight.sink || position > p - sight.window)) {
          return true;
        }
      }
    }
    return false;
  }
  void deal_pages(Sequence& s, int g, std::vector<int32_t>* free) {
    auto* list = const_cast<int32_t*>(head_pages(s, g));
    for (const Run& run : s.runs) {
      if (run.row_begin >= run.row_end) continue;
      for (int p = run.row_begin / kPageRows; p <= (run.row_end - 1) / kPageRows; ++p) {
        if (!page_is_seen(s, s.sight[g], run, p)) continue;
        const int32_t id = free->back();
        free->pop_back();
        list[run.first_page + p - run.row_begin / kPageRows] = id;
        for (int j = std::max(run.row_begin, p * kPageRows);
             j < std::min(run.row_end, (p + 1) * kPageRows); ++j) {
          for (int d = 0; d < shape_.dim; ++d) {
            const size_t at = (size_t(id) * kPageRows + j % kPageRows) * shape_.dim + d;
            k_[at] = encode(normal_(random_));
            v_[at] = encode(normal_(random_));
          }
        }
      }
    }
  }

  // Host arrays copied to the card; they live as long as the call.
  struct Card {
    std::vector<Buffer> buffers;
    Stream stream;
    template <class T>
    Result<T*> put(const T* data, size_t num) {
      RK_TRY(Buffer buffer,
             Buffer::allocate(std::max<int64_t>(num * sizeof(T), 16), Memory::kCard));
      T* to = buffer.as<T>();
      if (num > 0) RK_RETURN_IF_ERROR(copy_to_card(to, data, num * sizeof(T), stream));
      RK_RETURN_IF_ERROR(sync_stream(stream));
      buffers.push_back(std::move(buffer));
      return to;
    }
    template <class T>
    Result<T*> put(const std::vector<T>& v) {
      return put(v.data(), v.size());
    }
  };

  /// Puts the problem and `plan` where `a` then points to; o and lse are filled with NaN.
  Status lay_out(const SegAttnPlan& plan, Card& card, SegAttnCudaArgs& a) const {
    RK_TRY(uint16_t * q, card.put(q_));
    RK_TRY(uint16_t * k, card.put(k_));
    RK_TRY(uint16_t * v, card.put(v_));
    const int64_t o_stride = int64_t{shape_.heads} * shape_.dim + 8;
    const std::vector<uint16_t> o(num_tokens() * o_stride, 0xffff);  // NaN
    RK_TRY(uint16_t * o_card, card.put(o));
    a.q = View(q, shape_.dtype, {num_tokens(), shape_.heads, shape_.dim});
    a.q.stride[0] = q_stride_;
    a.o = View(o_card, shape_.dtype, {num_tokens(), shape_.heads, shape_.dim});
    a.o.stride[0] = o_stride;
    RK_TRY(a.lse, card.put(std::vector<float>(size_t(num_tokens()) * shape_.heads, NAN)));
    a.k_pages = View(k, shape_.dtype, {num_pages_, kPageRows, shape_.dim});
    a.v_pages = View(v, shape_.dtype, {num_pages_, kPageRows, shape_.dim});
    RK_TRY(a.q_pos, card.put(q_pos_));
    std::vector<DeviceSequence> sequences;
    for (const Sequence& s : sequences_) {
      std::vector<HeadSight> sight(size_t(shape_.num_layers) * shape_.kv_heads);
      std::copy(s.sight.begin(), s.sight.end(), sight.begin() + shape_.layer * shape_.kv_heads);
      RK_TRY(const Run* runs, card.put(s.runs));
      RK_TRY(const int32_t* pages, card.put(s.pages));
      RK_TRY(const HeadSight* sights, card.put(sight));
      sequences.push_back(
          {runs, static_cast<int32_t>(s.runs.size()), s.q_begin, pages, s.page_stride, sights});
    }
    RK_TRY(a.sequences, card.put(sequences));
    a.old_rows_ready = old_rows_ready;
    a.layer = shape_.layer;
    a.num_kv_heads = shape_.kv_heads;
    a.rope = table_.view();
    const size_t angles = size_t(a.rope.num_positions) * (a.rope.rotary_dim / 2);
    RK_TRY(a.rope.cos, card.put(a.rope.cos, angles));
    RK_TRY(a.rope.sin, card.put(a.rope.sin, angles));
    a.scale = scale();
    RK_TRY(a.items, card.put(plan.items));
    RK_TRY(a.merges, card.put(plan.merges));
    RK_TRY(a.counts, card.put(std::vector<int32_t>{static_cast<int32_t>(plan.items.size()),
                                                   static_cast<int32_t>(plan.merges.size())}));
    a.max_items = static_cast<int>(plan.items.size()) + 3;  // bounds, not counts
    a.max_merges = plan.merges.empty() ? 0 : static_cast<int>(plan.merges.size()) + 3;
    a.max_item_rows = plan.max_item_rows;
    const std::vector<float> no_parts(size_t(plan.num_parts) * kSegAttnTileRows * shape_.dim, NAN);
    const std::vector<float> no_lse(size_t(plan.num_parts) * kSegAttnTileRows, NAN);
    RK_TRY(a.part_o, card.put(no_parts));
    RK_TRY(a.part_lse, card.put(no_lse));
    RK_TRY(a.next_item, card.put(std::vector<int32_t>{0}));
    return {};
  }

  Status try_solve(std::string_view variant, const SegAttnPlan& plan, Stream stream, int times,
                   Solution* out) const {
    Card card{{}, stream};
    SegAttnCudaArgs a;
    RK_RETURN_IF_ERROR(lay_out(plan, card, a));
    if (late_queries) {  // the last of many rows, the others are there to take time
      constexpr int64_t kRows = 4096;
      const auto elems = static_cast<int64_t>(q_.size());
      const std::vector<uint16_t> nan(static_cast<size_t>(kRows * elems), encode(NAN));
      void* q = a.q.data;
      RK_TRY(uint16_t * rows, card.put(nan));
      RK_TRY(const int32_t* zeros, card.put(std::vector<int32_t>(kRows, 0)));
      a.q.data = rows + (kRows - 1) * elems;
      RK_RETURN_IF_ERROR(gather_rows_cuda(View(q, DType::kBf16, {1, elems}), zeros,
                                          View(rows, DType::kBf16, {kRows, elems}), stream));
    }
    for (int i = 0; i < times; ++i) RK_RETURN_IF_ERROR(seg_attn_cuda(a, variant, stream));
    const int64_t row = int64_t{shape_.heads} * shape_.dim, o_stride = a.o.stride[0];
    std::vector<uint16_t> o(num_tokens() * o_stride);
    out->lse.resize(size_t(num_tokens()) * shape_.heads);
    int32_t next_item = -1;
    RK_RETURN_IF_ERROR(copy_from_card(o.data(), a.o.data, o.size() * 2, stream));
    RK_RETURN_IF_ERROR(copy_from_card(out->lse.data(), a.lse, out->lse.size() * 4, stream));
    RK_RETURN_IF_ERROR(copy_from_card(&next_item, a.next_item, 4, stream));
    RK_RETURN_IF_ERROR(sync_stream(stream));
    if (next_item != 0) return internal("next_item is ", next_item, " after the call");
    out->o.resize(num_tokens() * row);
    for (int64_t t = 0; t < num_tokens(); ++t) {
      for (int64_t i = 0; i < row; ++i) out->o[t * row + i] = decode(o[t * o_stride + i]);
      for (int64_t i = row; i < o_stride; ++i) {
        if (o[t * o_stride + i] != 0xffff) return internal("row ", t, " of o was written behind");
      }
    }
    return {};
  }

  Shape shape_;
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
  RopeTable table_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> q_pos_;
  std::vector<uint16_t> q_, k_, v_;
  int64_t q_stride_ = 0;
  int num_pages_ = 0;
};

/// Full heads beside heads of sinks and a window.
inline std::vector<HeadSight> mixed_sights(int kv_heads, int sink, int window) {
  std::vector<HeadSight> out;
  for (int g = 0; g < kv_heads; ++g) {
    out.push_back(g % 2 == 0 ? HeadSight{} : HeadSight{sink + g, window + 3 * g});
  }
  return out;
}

}  // namespace rk::kernels
