// Attention alone. Decode reads each stored row once, so it is bound by memory: bytes/s is the
// figure that counts. Prefill is bound by arithmetic: FLOP/s, causal pairs only.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/seg_attn/seg_attn.h"

namespace rk::kernels {
namespace {

constexpr int kPageRows = 16;

// One sequence whose queries are its last `tokens` rows; f16 pages in random order. `copies` layers
// of pages keep a decode from finding its rows in the caches.
struct Problem {
  Problem(int heads, int kv_heads, int dim, int rows, int tokens, int copies)
      : heads_(kv_heads), pages_(static_cast<size_t>(copies) * kv_heads), pool(0) {
    const int pages_a_head = (rows + kPageRows - 1) / kPageRows;
    const int64_t num_pages = int64_t{copies} * kv_heads * pages_a_head;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    k_.resize(num_pages * kPageRows * dim);
    v_.resize(k_.size());
    std::vector<uint16_t> some(4096);
    for (uint16_t& x : some) x = f32_to_f16(normal(random));
    for (size_t i = 0; i < k_.size(); ++i) k_[i] = v_[i] = some[i * 7 % some.size()];
    std::vector<int32_t> ids(num_pages);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random);
    for (size_t i = 0; i < pages_.size(); ++i) {
      pages_[i].assign(ids.begin() + i * pages_a_head, ids.begin() + (i + 1) * pages_a_head);
    }
    run_ = {.row_end = rows};
    q_.resize(int64_t{tokens} * heads * dim);
    for (float& x : q_) x = normal(random);
    o_.resize(q_.size());
    for (int t = rows - tokens; t < rows; ++t) q_pos_.push_back(t);
    q_begin_ = {0, tokens};
    std::vector<double> inv_freq(dim / 2);
    for (int i = 0; i < dim / 2; ++i) inv_freq[i] = std::pow(1e4, -2.0 * i / dim);
    table_ = RopeTable::create(inv_freq, rows, 1.0, RopePairs::kHalfSplit).value();
    args.q = View(q_.data(), DType::kF32, {tokens, heads, dim});
    args.o = View(o_.data(), DType::kF32, {tokens, heads, dim});
    args.k_pages = View(k_.data(), DType::kF16, {num_pages, kPageRows, dim});
    args.v_pages = View(v_.data(), DType::kF16, {num_pages, kPageRows, dim});
    args.q_pos = q_pos_;
    args.q_begin = q_begin_;
    args.rope = table_.view();
    args.scale = 1.0F / std::sqrt(static_cast<float>(dim));
    use_copy(0);
  }
  void use_copy(size_t copy) {
    copy %= pages_.size() / heads_.size();
    for (size_t g = 0; g < heads_.size(); ++g) {
      heads_[g].runs = {&run_, 1};
      heads_[g].pages = pages_[copy * heads_.size() + g];
    }
    args.heads = heads_;
  }

  SegAttnArgs args;

 private:
  Run run_;
  std::vector<HeadRows> heads_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<uint16_t> k_, v_;
  std::vector<float> q_, o_;
  std::vector<int32_t> q_pos_, q_begin_;
  RopeTable table_;

 public:
  ThreadPool pool;
};

// Arguments: query heads, KV heads, head dim, rows.
void BM_SegAttnDecode(benchmark::State& state) {
  const auto heads = static_cast<int>(state.range(0)), kv_heads = static_cast<int>(state.range(1));
  const auto dim = static_cast<int>(state.range(2)), rows = static_cast<int>(state.range(3));
  const int64_t bytes = int64_t{rows} * kv_heads * dim * 4;
  Problem p(heads, kv_heads, dim, rows, 1, static_cast<int>(1 + (int64_t{256} << 20) / bytes));
  Context ctx{.pool = &p.pool};
  size_t copy = 0;
  for (auto _ : state) {
    p.use_copy(copy++);
    RK_CHECK_OK(seg_attn(p.args, ctx));
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}
BENCHMARK(BM_SegAttnDecode)
    ->Args({9, 3, 64, 1024})
    ->Args({9, 3, 64, 7936})
    ->Args({14, 2, 64, 7936})
    ->Args({12, 2, 128, 7936})
    ->UseRealTime();

void BM_SegAttnPrefill(benchmark::State& state) {
  const auto heads = static_cast<int>(state.range(0)), kv_heads = static_cast<int>(state.range(1));
  const auto dim = static_cast<int>(state.range(2)), rows = static_cast<int>(state.range(3));
  const auto tokens = static_cast<int>(state.range(4));
  Problem p(heads, kv_heads, dim, rows, tokens, 1);
  Context ctx{.pool = &p.pool};
  for (auto _ : state) RK_CHECK_OK(seg_attn(p.args, ctx));
  const double pairs = (static_cast<double>(rows) - (tokens - 1) / 2.0) * tokens;
  state.counters["FLOP/s"] =
      benchmark::Counter(4.0 * pairs * heads * dim, benchmark::Counter::kIsIterationInvariantRate,
                         benchmark::Counter::kIs1000);
}
BENCHMARK(BM_SegAttnPrefill)
    ->Args({9, 3, 64, 512, 512})
    ->Args({9, 3, 64, 2048, 2048})
    ->Args({9, 3, 64, 7936, 512})
    ->Args({9, 3, 64, 7936, 32})
    ->Args({14, 2, 64, 2048, 2048})
    ->Args({12, 2, 128, 2048, 2048})
    ->UseRealTime();

}  // namespace
}  // namespace rk::kernels
