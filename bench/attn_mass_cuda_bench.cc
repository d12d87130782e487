// Attention mass on a card: what a probe of mode `selective` adds to each layer, beside the layer's
// attention with and without the log-sum-exp that it needs.
//
//   attn_mass_cuda_bench
//
// Times are medians of device events over several rounds, between the fastest and the slowest;
// layers are taken in turn, so that the cache is no help. FLOPs are 2 * D for every pair of a query
// row and a key.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/attn_mass/attn_mass_cuda.h"
#include "kernels/layer/layer_cuda.h"
#include "tensor/buffer.h"
#include "tensor/device.h"

namespace rk::kernels {
namespace {

constexpr int kPage = 16, kLayers = 4;

void check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}
template <class T>
T check(Result<T> result) {
  check(result.status());
  return std::move(*result);
}

struct Case {
  const char* name;
  int heads = 32, kv_heads = 8, dim = 128, keys = 32768, queries = 64, runs = 1;
  int windowed = 0;  ///< KV heads of sink 16 + window 1024
};

class Problem {
 public:
  Problem(const Case& c, Stream stream) : c_(c), stream_(stream) {
    const int each = (c.keys / c.runs + kPage - 1) / kPage * kPage;
    std::vector<Run> runs;
    int page = 0;
    for (int at = 0; at < c.keys; at += each) {
      const int rows = std::min(each, c.keys - at);
      runs.push_back({page, 0, rows, at});
      page += (rows + kPage - 1) / kPage;
    }
    const int num_pages = page * c.kv_heads * kLayers;
    const View k = random({num_pages, kPage, c.dim}, 1), v = random({num_pages, kPage, c.dim}, 2);
    attn_.q = random({c.queries, c.heads, c.dim}, 3);
    attn_.o = random({c.queries, c.heads, c.dim}, 4);
    attn_.k_pages = k;
    attn_.v_pages = v;
    attn_.num_kv_heads = c.kv_heads;
    attn_.scale = 1.0F / std::sqrt(static_cast<float>(c.dim));
    std::vector<int32_t> ids(num_pages), q_pos(c.queries);
    std::iota(ids.begin(), ids.end(), 0);
    std::iota(q_pos.begin(), q_pos.end(), c.keys - c.queries);
    std::vector<HeadSight> sight(kLayers * c.kv_heads);
    for (size_t i = 0; i < sight.size(); ++i) {
      if (static_cast<int>(i) % c.kv_heads < c.windowed) sight[i] = {16, 1024};
    }
    const DeviceSequence sequence{put(runs), static_cast<int32_t>(runs.size()), 0, put(ids), page,
                                  put(sight)};
    attn_.sequences = put(std::vector<DeviceSequence>{sequence});
    attn_.q_pos = put(q_pos);
    std::vector<double> inv_freq;
    for (int i = 0; i < c.dim / 2; ++i) inv_freq.push_back(std::pow(1e6, -2.0 * i / c.dim));
    const auto table = check(RopeTable::create(inv_freq, c.keys, 1.0, RopePairs::kHalfSplit));
    attn_.rope = table.view();
    const size_t angles = size_t(c.keys) * inv_freq.size();
    attn_.rope.cos = put(std::vector<float>(table.view().cos, table.view().cos + angles));
    attn_.rope.sin = put(std::vector<float>(table.view().sin, table.view().sin + angles));
    sight.resize(c.kv_heads);
    plan({q_pos, sight, c.keys});

    const auto tiles = attn_mass_tiles(runs, c.keys, attn_mass_tile_rows(c.dim));
    mass_.tiles = put(tiles);
    mass_.num_tiles = static_cast<int>(tiles.size());
    mass_.q = attn_.q;
    mass_.k_pages = k;
    mass_.q_pos = attn_.q_pos;
    lse_ = put(std::vector<float>(size_t(c.queries) * c.heads));
    mass_.lse = lse_;
    mass_.sequence = attn_.sequences;
    mass_.num_kv_heads = c.kv_heads;
    mass_.rope = attn_.rope;
    mass_.scale = attn_.scale;
    mass_.mass = put(std::vector<float>(size_t(c.kv_heads) * c.keys));
    mass_.mass_stride = c.keys;
  }

  void attend(int layer, bool with_lse) {
    attn_.layer = layer % kLayers;
    attn_.lse = with_lse ? lse_ : nullptr;
    check(seg_attn_cuda(attn_, "", stream_));
  }
  void add(int layer) {
    mass_.layer = layer % kLayers;
    check(attn_mass_cuda(mass_, stream_));
  }
  /// The mass of one layer over what it must add up to, less 1.
  double error() {
    std::vector<float> host(size_t(c_.kv_heads) * c_.keys);
    check(zero_on_card(mass_.mass, host.size() * 4, stream_));
    attend(0, true);
    add(0);
    check(copy_from_card(host.data(), mass_.mass, host.size() * 4, stream_));
    check(sync_stream(stream_));
    return std::accumulate(host.begin(), host.end(), 0.0) / (double{1} * c_.queries * c_.heads) - 1;
  }
  double flops() const { return 2.0 * c_.dim * c_.heads * c_.queries * c_.keys; }

 private:
  void plan(const SegAttnPlanSequence& sequence) {
    const auto plan =
        plan_seg_attn({&sequence, 1}, {.num_heads = c_.heads, .num_kv_heads = c_.kv_heads});
    attn_.items = put(plan.items);
    attn_.merges = put(plan.merges);
    attn_.counts = put(std::vector<int32_t>{static_cast<int32_t>(plan.items.size()),
                                            static_cast<int32_t>(plan.merges.size())});
    attn_.max_items = static_cast<int>(plan.items.size());
    attn_.max_merges = static_cast<int>(plan.merges.size());
    attn_.max_item_rows = plan.max_item_rows;
    attn_.part_o = put(std::vector<float>(size_t(plan.num_parts) * kSegAttnTileRows * c_.dim));
    attn_.part_lse = put(std::vector<float>(size_t(plan.num_parts) * kSegAttnTileRows));
    attn_.next_item = put(std::vector<int32_t>{0});
  }
  template <class T>
  T* put(const std::vector<T>& data) {
    Buffer buffer =
        check(Buffer::allocate(std::max<int64_t>(data.size() * sizeof(T), 16), Memory::kCard));
    check(copy_to_card(buffer.data(), data.data(), data.size() * sizeof(T), stream_));
    check(sync_stream(stream_));
    owned_.push_back(std::move(buffer));
    return owned_.back().as<T>();
  }
  View random(std::initializer_list<int64_t> dims, uint64_t seed) {
    int64_t elements = 1;
    for (const int64_t d : dims) elements *= d;
    owned_.push_back(check(Buffer::allocate(elements * 2, Memory::kCard)));
    const View view(owned_.back().data(), DType::kBf16, dims);
    check(fill_normal_cuda(view, seed, 1.0F, stream_));
    return view;
  }

  Case c_;
  Stream stream_;
  std::vector<Buffer> owned_;
  SegAttnCudaArgs attn_;
  AttnMassCudaArgs mass_;
  float* lse_ = nullptr;
};

struct Times {
  double median, least, most;  // ms a call
};
template <class F>
Times time(Stream stream, F&& call) {
  constexpr int kRounds = 9, kCalls = 8;
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> ms;
  for (int i = 0; i <= kRounds; ++i) {
    cudaEventRecord(begin, stream);
    for (int j = 0; j < kCalls; ++j) call(i * kCalls + j);
    cudaEventRecord(end, stream);
    check(sync_stream(stream));
    float elapsed = 0;
    cudaEventElapsedTime(&elapsed, begin, end);
    if (i > 0) ms.push_back(elapsed / kCalls);  // the first warms up
  }
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms.front(), ms.back()};
}

int run() {
  const CardInfo card = check(open_card(0));
  Stream stream = check(create_stream());
  std::printf("%s, driver %d, runtime %d\n", card.name.c_str(), card.driver_version,
              card.runtime_version);
  const Case cases[] = {
      {.name = "64 rows over 32K, 32/8 heads of 128"},
      {.name = "64 rows over 32K, 64/8 heads of 128", .heads = 64},
      {.name = "the first, 16 runs", .runs = 16},
      {.name = "the first, half windowed", .windowed = 4},
      {.name = "16 rows over 32K, 32/8 heads of 128", .queries = 16},
      {.name = "512 rows over 32K, 32/8 heads of 128", .queries = 512},
      {.name = "64 rows over 4K, 32/8 heads of 128", .keys = 4096},
      {.name = "64 rows over 128K, 32/8 heads of 128", .keys = 131072},
      {.name = "64 rows over 32K, 32/8 heads of 64", .dim = 64},
      {.name = "64 rows over 32K, 16/4 heads of 256", .heads = 16, .kv_heads = 4, .dim = 256},
  };
  std::printf("%-40s %8s %8s %8s %8s %8s %8s %9s\n", "case", "mass ms", "least", "most", "TFLOP/s",
              "attn ms", "with lse", "error");
  bool wrong = false;
  for (const Case& c : cases) {
    Problem problem(c, stream);
    const double error = problem.error();
    const Times mass = time(stream, [&](int i) { problem.add(i); });
    const Times plain = time(stream, [&](int i) { problem.attend(i, false); });
    const Times with_lse = time(stream, [&](int i) { problem.attend(i, true); });
    const bool bad = !(std::abs(error) < 2e-3);
    std::printf("%-40s %8.4f %8.4f %8.4f %8.1f %8.4f %8.4f %9.1e%s\n", c.name, mass.median,
                mass.least, mass.most, problem.flops() / mass.median / 1e9, plain.median,
                with_lse.median, error, bad ? "  WRONG" : "");
    wrong |= bad;
  }
  return wrong ? 1 : 0;
}

}  // namespace
}  // namespace rk::kernels

int main() { return rk::kernels::run(); }
