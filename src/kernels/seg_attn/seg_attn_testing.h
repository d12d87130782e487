// Attention problems over pages, runs and frames, for tests of the ops that read them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "base/check.h"
#include "kernels/seg_attn/seg_attn.h"

namespace rk::kernels::attn_testing {

struct Shape {
  int heads = 6, kv_heads = 2, dim = 64, page = 16;
  DType dtype = DType::kF32;
  int rotary = -1;  // -1: the whole head
  RopePairs pairs = RopePairs::kHalfSplit;
  double magnitude = 1;
};

// One seg_attn call that owns what it points to. Heads are added b-major with add_head, rows of the
// latest head with add_run, queries of a sequence with add_sequence.
class Problem {
 public:
  // Room for `num_pages` pages of 16 rows, whatever the shape's page.
  Problem(const Shape& shape, int num_pages, uint32_t seed = 1) : shape_(shape), random_(seed) {
    num_pages = num_pages * 16 / shape.page + 8 * shape.kv_heads;
    const auto elems = static_cast<size_t>(num_pages) * shape.page * shape.dim;
    const size_t bytes = elems * (shape.dtype == DType::kF32 ? 4 : 2);
    k_.resize(bytes);
    v_.resize(bytes);
    args.k_pages = View(k_.data(), shape.dtype, {num_pages, shape.page, shape.dim});
    args.v_pages = View(v_.data(), shape.dtype, {num_pages, shape.page, shape.dim});
    for (int64_t p = 0; p < num_pages; ++p) {
      for (int64_t s = 0; s < shape.page; ++s) {
        for (int64_t d = 0; d < shape.dim; ++d) {  // rows that no run names must not matter
          args.k_pages.set(NAN, p, s, d);
          args.v_pages.set(NAN, p, s, d);
        }
      }
    }
    free_.resize(num_pages);
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), random_);
    const int rotary = shape.rotary < 0 ? shape.dim : shape.rotary;
    inv_freq.resize(rotary / 2);
    for (int i = 0; i < rotary / 2; ++i) inv_freq[i] = std::pow(1e4, -2.0 * i / rotary);
    table_ = RopeTable::create(inv_freq, 1 << 13, shape.magnitude, shape.pairs).value();
    args.rope = table_.view();
    args.scale = 1.0F / std::sqrt(static_cast<float>(shape.dim));
    q_begin_ = {0};
  }

  void add_head(int32_t sink = 0, int32_t window = -1) {
    heads_.push_back({.sink = sink, .window = window});
    runs_.emplace_back();
    pages_.emplace_back();
  }
  // Rows [begin, end) at `offset` on fresh pages; returns where they start in the head's page list.
  Run add_run(int32_t begin, int32_t end, int32_t offset) {
    Run run{static_cast<int32_t>(pages_.back().size()), begin, end, offset};
    const int count = end > begin ? (end - 1) / shape_.page - begin / shape_.page + 1 : 0;
    for (int i = 0; i < count; ++i) {
      RK_CHECK(!free_.empty());
      pages_.back().push_back(free_.back());
      free_.pop_back();
    }
    for (int32_t j = begin; j < end; ++j) {
      for (int64_t d = 0; d < shape_.dim; ++d) {
        set_row(run, j, d, normal_(random_), normal_(random_));
      }
    }
    runs_.back().push_back(run);
    return run;
  }
  void set_row(const Run& run, int32_t j, int64_t d, double k, double v) {
    const int32_t page =
        pages_.back()[run.first_page + j / shape_.page - run.row_begin / shape_.page];
    args.k_pages.set(k, page, j % shape_.page, d);
    args.v_pages.set(v, page, j % shape_.page, d);
  }
  std::vector<Run>& last_runs() { return runs_.back(); }
  void add_sequence(const std::vector<int32_t>& positions) {
    q_pos_.insert(q_pos_.end(), positions.begin(), positions.end());
    q_begin_.push_back(static_cast<int32_t>(q_pos_.size()));
  }
  // Call once everything was added. Rows of q are strided, as parts of a QKV row are.
  void finish() {
    const auto tokens = static_cast<int64_t>(q_pos_.size());
    const int64_t row = int64_t{shape_.heads} * shape_.dim;
    q_.resize(tokens * (row + 8));
    for (float& x : q_) x = static_cast<float>(normal_(random_));
    o_.assign(tokens * row, NAN);
    lse_.assign(tokens * shape_.heads, NAN);
    args.q = View(q_.data(), DType::kF32, {tokens, shape_.heads, shape_.dim});
    args.q.stride[0] = row + 8;
    args.o = View(o_.data(), DType::kF32, {tokens, shape_.heads, shape_.dim});
    args.lse = View(lse_.data(), DType::kF32, {tokens, shape_.heads});
    args.q_pos = q_pos_;
    args.q_begin = q_begin_;
    for (size_t i = 0; i < heads_.size(); ++i) {
      heads_[i].runs = runs_[i];
      heads_[i].pages = pages_[i];
    }
    args.heads = heads_;
  }
  void fill_q(float value) { std::fill(q_.begin(), q_.end(), value); }
  std::vector<float> solve(const char* variant, ThreadPool* pool = nullptr) {
    std::fill(o_.begin(), o_.end(), NAN);
    std::fill(lse_.begin(), lse_.end(), NAN);
    ForcedVariants forced{{"seg_attn", variant}};
    Context ctx{.pool = pool, .forced = &forced};
    const Status status = seg_attn(args, ctx);
    EXPECT_TRUE(status.ok()) << status.message();
    return o_;
  }
  const std::vector<float>& lse() const { return lse_; }

  SegAttnArgs args;
  std::vector<double> inv_freq;

 private:
  Shape shape_;
  std::mt19937 random_;
  std::normal_distribution<double> normal_;
  std::vector<std::byte> k_, v_;
  std::vector<int32_t> free_, q_pos_, q_begin_;
  std::vector<HeadRows> heads_;
  std::deque<std::vector<Run>> runs_;
  std::deque<std::vector<int32_t>> pages_;
  std::vector<float> q_, o_, lse_;
  RopeTable table_;
};

}  // namespace rk::kernels::attn_testing
