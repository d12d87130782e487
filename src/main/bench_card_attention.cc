// SegPagedAttention alone on a card: prompts against the tensor cores, decode against memory, a few
// rows of each case checked in double on the host. FLOPs are those of visible (query, key) pairs,
// 4 * D each; bytes those of visible rows.
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/layer/layer_cuda.h"
#include "kernels/seg_attn/seg_attn_cuda.h"
#include "main/bench_kernels.h"
#include "tensor/buffer.h"

namespace rk::cli {
namespace {

using namespace kernels;

constexpr int kPage = 16;

struct Case {
  std::string name;
  int heads = 32, kv_heads = 8, dim = 128;
  std::vector<int> keys;  ///< of each sequence, its queries included
  int queries = 0;        ///< the last ones of each sequence; 0: all
  int windowed = 0;       ///< KV heads of sink 16 + window 1024
  bool shuffled = false;  ///< page ids in no order
  int runs = 1;           ///< spans a sequence consists of
  int layers = 1;         ///< taken in turn, so that the cache is no help
  bool by_bytes = false;  ///< decode: memory is the bound
  std::string variant;    ///< of the kernel; "" the fastest
};

/// Device memory of one case.
class Problem {
 public:
  Problem(const Case& c, Stream stream) : c_(c), stream_(stream), random_(7) {}

  Status prepare() {
    const Case& c = c_;
    layout();
    const int64_t pool_bytes = int64_t{num_pages_} * kPage * c.dim * 2;
    RK_TRY(k_, noise(pool_bytes));
    RK_TRY(v_, noise(pool_bytes));
    const int64_t q_bytes = num_tokens_ * c.heads * c.dim * 2;
    RK_TRY(q_, noise(q_bytes));
    RK_TRY(o_, Buffer::allocate(q_bytes, Memory::kCard));
    args_.q = View(q_.data(), DType::kBf16, {num_tokens_, c.heads, c.dim});
    args_.o = View(o_.data(), DType::kBf16, {num_tokens_, c.heads, c.dim});
    args_.k_pages = View(k_.data(), DType::kBf16, {num_pages_, kPage, c.dim});
    args_.v_pages = View(v_.data(), DType::kBf16, {num_pages_, kPage, c.dim});
    args_.num_kv_heads = c.kv_heads;
    args_.scale = 1.0F / std::sqrt(static_cast<float>(c.dim));
    args_.old_rows_ready = c.by_bytes;
    RK_RETURN_IF_ERROR(tables());
    return plan();
  }

  Status run(int layer) {
    args_.layer = layer % c_.layers;
    return seg_attn_cuda(args_, c_.variant, stream_);
  }

  double pairs() const {  ///< visible (query, key), all query heads
    double sum = 0;
    for (size_t b = 0; b < c_.keys.size(); ++b) {
      for (int g = 0; g < c_.kv_heads; ++g) {
        for (const int32_t p : q_pos_of(b)) sum += visible(p, sight(g));
      }
    }
    return sum * c_.heads / c_.kv_heads;
  }
  double bytes() const {  ///< of K and V rows that the last query sees
    double rows = 0;
    for (const int keys : c_.keys) {
      for (int g = 0; g < c_.kv_heads; ++g) rows += visible(keys - 1, sight(g));
    }
    return rows * 2 * c_.dim * 2;
  }
  /// Largest difference of sampled rows from attention in double, relative to the row's norm.
  Result<double> error() {
    RK_RETURN_IF_ERROR(run(0));
    double worst = 0;
    const int samples = c_.keys[0] > 65536 ? 3 : 6;
    for (int i = 0; i < samples; ++i) {
      const size_t b = random_() % c_.keys.size();
      const int t = i == 0 ? 0 : static_cast<int>(random_() % q_pos_of(b).size());
      RK_TRY(const double error, row_error(b, t, static_cast<int>(random_() % c_.heads)));
      worst = std::max(worst, error);
    }
    return worst;
  }

 private:
  HeadSight sight(int g) const {
    return g % 2 == 1 && g / 2 < c_.windowed ? HeadSight{16, 1024} : HeadSight{};
  }
  static double visible(int32_t p, HeadSight s) {
    return s.window < 0 ? p + 1 : std::min(s.sink + s.window, p + 1);
  }
  std::vector<int32_t> q_pos_of(size_t b) const {
    const int num = c_.queries == 0 ? c_.keys[b] : c_.queries;
    std::vector<int32_t> out(num);
    std::iota(out.begin(), out.end(), c_.keys[b] - num);
    return out;
  }

  void layout() {
    for (const int keys : c_.keys) {
      std::vector<Run> runs;
      const int each = (keys / c_.runs + 15) / 16 * 16;
      int page = 0;
      for (int at = 0; at < keys; at += each) {
        const int rows = std::min(each, keys - at);
        runs.push_back({page, 0, rows, at});
        page += (rows + kPage - 1) / kPage;
      }
      runs_.push_back(runs);
      pages_of_.push_back(page);
      num_pages_ += page * c_.kv_heads * c_.layers;
      num_tokens_ += c_.queries == 0 ? keys : c_.queries;
    }
  }

  Status tables() {
    std::vector<int32_t> ids(num_pages_);
    std::iota(ids.begin(), ids.end(), 0);
    if (c_.shuffled) std::shuffle(ids.begin(), ids.end(), random_);
    std::vector<HeadSight> sights;
    for (int i = 0; i < c_.layers * c_.kv_heads; ++i) sights.push_back(sight(i % c_.kv_heads));
    RK_TRY(const HeadSight* sights_there, put(sights));
    int next = 0, q_begin = 0;
    std::vector<DeviceSequence> sequences;
    std::vector<int32_t> q_pos;
    for (size_t b = 0; b < c_.keys.size(); ++b) {
      const int num = pages_of_[b] * c_.layers * c_.kv_heads;
      pages_.emplace_back(ids.begin() + next, ids.begin() + next + num);
      next += num;
      RK_TRY(const Run* runs, put(runs_[b]));
      RK_TRY(const int32_t* pages, put(pages_[b]));
      sequences.push_back({runs, static_cast<int32_t>(runs_[b].size()), q_begin, pages,
                           pages_of_[b], sights_there});
      const auto pos = q_pos_of(b);
      q_begins_.push_back(q_begin);
      q_begin += static_cast<int>(pos.size());
      q_pos.insert(q_pos.end(), pos.begin(), pos.end());
    }
    RK_TRY(args_.sequences, put(sequences));
    RK_TRY(args_.q_pos, put(q_pos));
    const int positions = *std::max_element(c_.keys.begin(), c_.keys.end()), half = c_.dim / 2;
    cos_.resize(int64_t{positions} * half);
    sin_.resize(cos_.size());
    for (int p = 0; p < positions; ++p) {
      for (int i = 0; i < half; ++i) {
        const double angle = p * inv_freq(i);
        cos_[int64_t{p} * half + i] = static_cast<float>(std::cos(angle));
        sin_[int64_t{p} * half + i] = static_cast<float>(std::sin(angle));
      }
    }
    args_.rope = {nullptr, nullptr, positions, c_.dim, RopePairs::kHalfSplit};
    RK_TRY(args_.rope.cos, put(cos_));
    RK_TRY(args_.rope.sin, put(sin_));
    return {};
  }
  double inv_freq(int i) const { return std::pow(1e6, -2.0 * i / c_.dim); }

  Status plan() {
    std::vector<HeadSight> sights;
    for (int g = 0; g < c_.kv_heads; ++g) sights.push_back(sight(g));
    std::vector<std::vector<int32_t>> pos;
    for (size_t b = 0; b < c_.keys.size(); ++b) pos.push_back(q_pos_of(b));
    std::vector<SegAttnPlanSequence> in;
    for (size_t b = 0; b < c_.keys.size(); ++b) in.push_back({pos[b], sights, c_.keys[b]});
    plan_ = plan_seg_attn(in, {.num_heads = c_.heads, .num_kv_heads = c_.kv_heads});
    RK_TRY(args_.items, put(plan_.items));
    RK_TRY(args_.merges, put(plan_.merges));
    const std::vector<int32_t> counts = {static_cast<int32_t>(plan_.items.size()),
                                         static_cast<int32_t>(plan_.merges.size())};
    RK_TRY(args_.counts, put(counts));
    args_.max_items = static_cast<int>(plan_.items.size());
    args_.max_merges = static_cast<int>(plan_.merges.size());
    args_.max_item_rows = plan_.max_item_rows;
    const auto part_rows = static_cast<size_t>(plan_.num_parts) * kSegAttnTileRows;
    RK_TRY(args_.part_o, put(std::vector<float>(part_rows * static_cast<size_t>(c_.dim))));
    RK_TRY(args_.part_lse, put(std::vector<float>(part_rows)));
    RK_TRY(args_.next_item, put(std::vector<int32_t>{0}));
    return {};
  }

  template <class T>
  Result<T*> put(const std::vector<T>& data) {
    const auto bytes = static_cast<int64_t>(data.size() * sizeof(T));
    RK_TRY(Buffer buffer, Buffer::allocate(std::max<int64_t>(bytes, 16), Memory::kCard));
    RK_RETURN_IF_ERROR(copy_to_card(buffer.data(), data.data(), bytes, stream_));
    RK_RETURN_IF_ERROR(sync_stream(stream_));
    owned_.push_back(std::move(buffer));
    return owned_.back().as<T>();
  }

  Result<Buffer> noise(int64_t bytes) {
    RK_TRY(Buffer buffer, Buffer::allocate(bytes, Memory::kCard));
    const View all(buffer.data(), DType::kBf16, {bytes / 2});
    RK_RETURN_IF_ERROR(fill_normal_cuda(all, random_(), 1.0F, stream_));
    return buffer;
  }

  Result<std::vector<float>> fetch(const Buffer& from, int64_t at, int num) {
    std::vector<uint16_t> raw(static_cast<size_t>(num));
    RK_RETURN_IF_ERROR(
        copy_from_card(raw.data(), from.as<uint16_t>() + at, num * int64_t{2}, stream_));
    RK_RETURN_IF_ERROR(sync_stream(stream_));
    std::vector<float> out(raw.size());
    std::transform(raw.begin(), raw.end(), out.begin(), [](uint16_t x) { return bf16_to_f32(x); });
    return out;
  }

  Result<double> row_error(size_t b, int t, int h) {
    const int g = h * c_.kv_heads / c_.heads, dim = c_.dim, half = dim / 2;
    const int32_t p = q_pos_of(b)[t];
    const HeadSight s = sight(g);
    const int64_t at = (int64_t{q_begins_[b] + t} * c_.heads + h) * dim;
    RK_TRY(const std::vector<float> q, fetch(q_, at, dim));
    RK_TRY(const std::vector<float> o, fetch(o_, at, dim));
    std::vector<double> want(dim);
    double sum = 0;
    for (const Run& run : runs_[b]) {
      std::vector<double> turned(dim);
      for (int i = 0; i < half; ++i) {
        const double angle = (p - run.offset) * inv_freq(i), c = std::cos(angle),
                     d = std::sin(angle);
        turned[i] = q[i] * c - q[i + half] * d;
        turned[i + half] = q[i + half] * c + q[i] * d;
      }
      for (int j = run.row_begin; j < run.row_end; j += kPage) {
        const int first = run.offset + j;
        if (first > p) break;
        if (s.window >= 0 && first >= s.sink && first + kPage <= p - s.window + 1) continue;
        const int64_t page = pages_[b][int64_t{g} * pages_of_[b] + run.first_page + j / kPage];
        RK_TRY(const auto k, fetch(k_, page * kPage * dim, kPage * dim));
        RK_TRY(const auto v, fetch(v_, page * kPage * dim, kPage * dim));
        for (int r = 0; r < std::min(kPage, run.row_end - j); ++r) {
          const int position = first + r;
          if (position > p) break;
          if (s.window >= 0 && position >= s.sink && position <= p - s.window) continue;
          double dot = 0;
          for (int i = 0; i < dim; ++i) dot += turned[i] * k[r * dim + i];
          const double weight = std::exp(dot * args_.scale - 8.0);
          sum += weight;
          for (int i = 0; i < dim; ++i) want[i] += weight * v[r * dim + i];
        }
      }
    }
    double diff = 0, norm = 1e-30;
    for (int i = 0; i < dim; ++i) {
      const double w = want[i] / sum;
      diff += (o[i] - w) * (o[i] - w);
      norm += w * w;
    }
    const double error = std::sqrt(diff / norm);
    return std::isfinite(error) ? error : 1e9;
  }

  Case c_;
  Stream stream_;
  std::mt19937 random_;
  int num_pages_ = 0;
  int64_t num_tokens_ = 0;
  std::vector<std::vector<Run>> runs_;
  std::vector<int> pages_of_, q_begins_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<float> cos_, sin_;
  Buffer k_, v_, q_, o_;
  std::vector<Buffer> owned_;
  SegAttnPlan plan_;
  SegAttnCudaArgs args_;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  const auto prompt = [&](const char* name, int keys, Case c) {
    c.name = std::string("prompt ") + name + " " + std::to_string(keys / 1024) + "K";
    c.keys = {keys};
    out.push_back(c);
  };
  prompt("full", 2048, {});
  for (const int k : {16, 32, 64}) prompt("full", k << 10, {});
  for (const int k : {16, 32, 64}) prompt("half windowed", k << 10, {.windowed = 4});
  prompt("shuffled pages", 16384, {.shuffled = true});
  prompt("16 runs", 16384, {.runs = 16});
  prompt("dim 64", 16384, {.dim = 64});
  prompt("dim 256", 16384, {.heads = 16, .kv_heads = 4, .dim = 256});
  out.push_back({.name = "question 64 over 32K", .keys = {32768 + 64}, .queries = 64, .layers = 4});
  out.push_back({.name = "rows 512 over 32K", .keys = {32768}, .queries = 512, .layers = 4});
  const auto decode = [&](const char* name, std::vector<int> keys, Case c) {
    c.name = std::string("decode ") + name;
    c.keys = std::move(keys);
    c.queries = 1;
    c.by_bytes = true;
    out.push_back(c);
  };
  for (const bool shuffled : {false, true}) {
    const Case c = {.shuffled = shuffled, .layers = 4};
    const std::string how = shuffled ? " shuffled" : "";
    decode(("1 x 32K" + how).c_str(), {32768}, c);
    decode(("8 x 32K" + how).c_str(), std::vector<int>(8, 32768), c);
    decode(("32 x 32K" + how).c_str(), std::vector<int>(32, 32768), {.shuffled = shuffled});
  }
  decode("1 x 128K", {131072}, {.layers = 4});
  decode("8 x 128K", std::vector<int>(8, 131072), {});
  decode("32 x 128K", std::vector<int>(32, 131072), {});
  decode("1 x 128K, half windowed", {131072}, {.windowed = 4, .layers = 4});
  std::vector<int> mixed;
  for (int i = 0; i < 32; ++i) mixed.push_back(i % 4 == 0 ? 131072 : 1310 + i);
  decode("32 of 1.3K to 128K", mixed, {});
  decode("32 of 1.3K to 128K, half windowed", mixed, {.windowed = 4});
  decode("8 x 32K dim 64", std::vector<int>(8, 32768), {.dim = 64, .layers = 2});
  decode("8 x 32K dim 256", std::vector<int>(8, 32768),
         {.heads = 16, .kv_heads = 4, .dim = 256, .layers = 2});
  return out;
}

}  // namespace

Status bench_card_attention(const KernelBench& bench) {
  RK_TRY(const Stream stream, create_stream());
  std::string wrong;
  std::vector<std::string> variants = {""};
  if (bench.all_paths) variants.emplace_back("sm80");
  for (const std::string& variant : variants) {
    for (Case& c : cases()) {
      c.variant = variant;
      const std::string name = variant.empty() ? c.name : cat(variant, " ", c.name);
      if (!bench.wants("attention", name)) continue;
      Problem problem(c, stream);
      RK_RETURN_IF_ERROR(problem.prepare());
      RK_TRY(const double error, problem.error());
      RK_TRY(const Spread ms,
             time_on_card(stream, 7, c.by_bytes ? 20 : 3, [&](int i) { return problem.run(i); }));
      bench.report({.kernel = "attention",
                    .name = name,
                    .ms = ms,
                    .flops = problem.pairs() * 4 * c.dim,
                    .bytes = problem.bytes(),
                    .error = error});
      if (!(error < 1e-2)) wrong += cat(wrong.empty() ? "" : ", ", name, " (", error, ")");
    }
  }
  if (wrong.empty()) return {};
  return internal("bench kernels: results differ from those in double: ", wrong);
}

}  // namespace rk::cli
