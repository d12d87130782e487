// Products and attention on this processor: prefill against arithmetic, decode against the memory's
// own read speed. Shapes of SmolLM2-135M and Qwen2.5. Decode walks over copies worth 256 MiB, so
// that no cache helps.
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/gemm/gemm.h"
#include "kernels/seg_attn/seg_attn.h"
#include "main/bench_kernels.h"
#include "tensor/quant_block.h"

namespace rk::cli {
namespace {

constexpr int kRounds = 5;
constexpr double kRoundMs = 60;
constexpr int64_t kRotatedBytes = int64_t{256} << 20;
constexpr int kPageRows = 16;

Result<Spread> time_on_host(const std::function<Status(int)>& call) {
  const double first = now_ms();
  RK_RETURN_IF_ERROR(call(0));
  const int calls = std::max(1, static_cast<int>(kRoundMs / std::max(now_ms() - first, 1e-3)));
  std::vector<double> ms;
  for (int round = 0; round < kRounds; ++round) {
    const double begin = now_ms();
    for (int i = 0; i < calls; ++i) RK_RETURN_IF_ERROR(call(i));
    ms.push_back((now_ms() - begin) / calls);
  }
  return Spread::of(std::move(ms));
}

struct Linear {
  const char* name;
  DType dtype;
  int64_t n, k;
};
constexpr Linear kLinears[] = {
    {"135m qkv q4_1", DType::kQ4_1, 960, 576},    {"135m gate_up q4_1", DType::kQ4_1, 3072, 576},
    {"135m down q4_1", DType::kQ4_1, 576, 1536},  {"135m head q8_0", DType::kQ8_0, 49152, 576},
    {"1.5b qkv q4_k", DType::kQ4_K, 2048, 1536},  {"1.5b gate_up q4_k", DType::kQ4_K, 17920, 1536},
    {"1.5b down q6_k", DType::kQ6_K, 1536, 8960}, {"0.5b gate_up q5_0", DType::kQ5_0, 9728, 896},
    {"gate_up f16", DType::kF16, 3072, 1536},
};

Status bench_linear(const KernelBench& bench, const Linear& l, int64_t m, kernels::Context& ctx) {
  const std::string name = cat(l.name, " M=", m);
  if (!bench.wants("gemm", name)) return {};
  std::vector<float> row(static_cast<size_t>(l.k));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 0.05F);
  for (float& v : row) v = normal(random);
  const int64_t row_bytes = dtype_bytes(l.dtype, l.k);
  std::vector<std::byte> file(static_cast<size_t>(l.n * row_bytes));
  for (int64_t i = 0; i < l.n; ++i) {
    quantize(l.dtype, row.data(), file.data() + i * row_bytes, l.k);
  }
  const View part(file.data(), l.dtype, {l.n, l.k});
  std::vector<std::unique_ptr<kernels::PackedWeight>> copies;
  for (int64_t have = 0; copies.empty() || (m <= 32 && have < kRotatedBytes);) {
    RK_TRY(auto copy, kernels::pack_weight({&part, 1}, ctx));
    have += copy->num_bytes();
    copies.push_back(std::move(copy));
  }
  std::vector<float> x(static_cast<size_t>(m * l.k)), y(static_cast<size_t>(m * l.n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.01F * static_cast<float>(i % 199) - 1.0F;
  size_t next = 0;
  RK_TRY(const Spread ms, time_on_host([&](int) {
           return kernels::gemm({.x = View(x.data(), DType::kF32, {m, l.k}),
                                 .w = copies[next++ % copies.size()].get(),
                                 .y = View(y.data(), DType::kF32, {m, l.n})},
                                ctx);
         }));
  bench.report({.kernel = "gemm",
                .name = name,
                .ms = ms,
                .flops = 2.0 * static_cast<double>(m * l.n) * static_cast<double>(l.k),
                .bytes = static_cast<double>(copies[0]->num_bytes() + 4 * m * (l.k + l.n)),
                .is_streaming = m == 1});
  return {};
}

struct Attention {
  int heads, kv_heads, dim, rows, tokens;
};
constexpr Attention kAttention[] = {
    {9, 3, 64, 1024, 1},     {9, 3, 64, 7936, 1},      {14, 2, 64, 7936, 1},  {12, 2, 128, 7936, 1},
    {9, 3, 64, 512, 512},    {9, 3, 64, 2048, 2048},   {9, 3, 64, 7936, 512}, {9, 3, 64, 7936, 32},
    {14, 2, 64, 2048, 2048}, {12, 2, 128, 2048, 2048},
};

/// One sequence whose queries are its last `tokens` rows; f16 pages in random order. Decode takes
/// copies of the pages in turn.
class AttentionProblem {
 public:
  AttentionProblem(const Attention& a, int copies)
      : pages_(static_cast<size_t>(copies) * a.kv_heads) {
    const int pages_a_head = (a.rows + kPageRows - 1) / kPageRows;
    const int64_t num_pages = int64_t{copies} * a.kv_heads * pages_a_head;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> some(4096);
    for (uint16_t& x : some) x = f32_to_f16(normal(random));
    k_.resize(static_cast<size_t>(num_pages * kPageRows * a.dim));
    for (size_t i = 0; i < k_.size(); ++i) k_[i] = some[i * 7 % some.size()];
    v_ = k_;
    std::vector<int32_t> ids(static_cast<size_t>(num_pages));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random);
    for (size_t i = 0; i < pages_.size(); ++i) {
      const auto first = ids.begin() + static_cast<std::ptrdiff_t>(i) * pages_a_head;
      pages_[i].assign(first, first + pages_a_head);
    }
    heads_.resize(static_cast<size_t>(a.kv_heads));
    run_ = {.row_end = a.rows};
    q_.resize(static_cast<size_t>(a.tokens) * a.heads * a.dim);
    for (float& x : q_) x = normal(random);
    o_.resize(q_.size());
    for (int t = a.rows - a.tokens; t < a.rows; ++t) q_pos_.push_back(t);
    q_begin_ = {0, a.tokens};
    std::vector<double> inv_freq(static_cast<size_t>(a.dim / 2));
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      inv_freq[i] = std::pow(1e4, -2.0 * static_cast<double>(i) / a.dim);
    }
    table_ =
        kernels::RopeTable::create(inv_freq, a.rows, 1.0, kernels::RopePairs::kHalfSplit).value();
    args_.q = View(q_.data(), DType::kF32, {a.tokens, a.heads, a.dim});
    args_.o = View(o_.data(), DType::kF32, {a.tokens, a.heads, a.dim});
    args_.k_pages = View(k_.data(), DType::kF16, {num_pages, kPageRows, a.dim});
    args_.v_pages = View(v_.data(), DType::kF16, {num_pages, kPageRows, a.dim});
    args_.q_pos = q_pos_;
    args_.q_begin = q_begin_;
    args_.rope = table_.view();
    args_.scale = 1.0F / std::sqrt(static_cast<float>(a.dim));
  }

  Status run(kernels::Context& ctx) {
    const size_t copy = next_++ % (pages_.size() / heads_.size());
    for (size_t g = 0; g < heads_.size(); ++g) {
      heads_[g].runs = {&run_, 1};
      heads_[g].pages = pages_[copy * heads_.size() + g];
    }
    args_.heads = heads_;
    return kernels::seg_attn(args_, ctx);
  }

 private:
  kernels::SegAttnArgs args_;
  kernels::Run run_;
  std::vector<kernels::HeadRows> heads_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<uint16_t> k_, v_;
  std::vector<float> q_, o_;
  std::vector<int32_t> q_pos_, q_begin_;
  kernels::RopeTable table_;
  size_t next_ = 0;
};

Status bench_attention(const KernelBench& bench, const Attention& a, kernels::Context& ctx) {
  const std::string name = cat(a.tokens == 1 ? "decode " : cat("rows ", a.tokens, " of "), a.rows,
                               ", ", a.heads, "/", a.kv_heads, " heads of ", a.dim);
  if (!bench.wants("attention", name)) return {};
  const int64_t bytes = int64_t{a.rows} * a.kv_heads * a.dim * 4;
  AttentionProblem problem(a, a.tokens == 1 ? static_cast<int>(1 + kRotatedBytes / bytes) : 1);
  RK_TRY(const Spread ms, time_on_host([&](int) { return problem.run(ctx); }));
  const double pairs = (a.rows - (a.tokens - 1) / 2.0) * a.tokens;
  bench.report({.kernel = "attention",
                .name = name,
                .ms = ms,
                .flops = 4.0 * pairs * a.heads * a.dim,
                .bytes = static_cast<double>(bytes),
                .is_streaming = a.tokens == 1});
  return {};
}

}  // namespace

Result<Ceilings> host_ceilings(ThreadPool& pool) {
  constexpr int64_t kWords = kRotatedBytes / 8;
  const auto threads = static_cast<size_t>(pool.num_threads());
  std::vector<uint64_t> memory(static_cast<size_t>(kWords), 1), sums(threads * 8);
  RK_TRY(const Spread ms, time_on_host([&](int) {
           const auto grain = kWords / static_cast<int64_t>(threads * 8);
           pool.parallel_for(kWords, grain, [&](int64_t begin, int64_t end, int thread) {
             uint64_t sum[8] = {};
             for (int64_t i = begin; i + 8 <= end; i += 8) {
               for (int64_t j = 0; j < 8; ++j) sum[j] ^= memory[static_cast<size_t>(i + j)];
               __builtin_prefetch(&memory[static_cast<size_t>(i)] + 256);
             }
             for (const uint64_t v : sum) sums[static_cast<size_t>(thread) * 8] += v;
           });
           return sums[0] == 1 ? internal("memory changed") : Status();
         }));
  return Ceilings{.bytes_per_s = static_cast<double>(kRotatedBytes) / (ms.least * 1e-3)};
}

Status bench_host_kernels(const KernelBench& bench, kernels::Context& ctx) {
  for (const Linear& linear : kLinears) {
    for (const int64_t m : {1, 4, 32, 512}) {
      RK_RETURN_IF_ERROR(bench_linear(bench, linear, m, ctx));
    }
  }
  for (const Attention& a : kAttention) RK_RETURN_IF_ERROR(bench_attention(bench, a, ctx));
  return {};
}

}  // namespace rk::cli
