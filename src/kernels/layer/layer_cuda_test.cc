#include "kernels/layer/layer_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cuda/card_testing.h"
#include "kernels/norm/norm.h"
#include "kernels/swiglu/swiglu.h"

namespace rk::kernels {
namespace {

constexpr double kBf16 = 4e-3;  // relative L2 of values rounded to bf16

const ForcedVariants& reference() {
  static const ForcedVariants forced{{"norm", "ref"}, {"swiglu", "ref"}, {"rope", "ref"}};
  return forced;
}

TEST(LayerCuda, RmsNormMatchesTheReference) {
  RK_NEEDS_CARD();
  for (const int64_t rows : {1, 3, 300}) {
    for (const int64_t n : {1, 64, 576, 1001, 5120, 8192}) {
      for (const int64_t pitch : {n, n + 4, n + 3}) {
        SCOPED_TRACE(cat("rows=", rows, " n=", n, " pitch=", pitch));
        const auto x = normal_values(rows * pitch, 1, 3.0F), w = normal_values(n, 2);
        std::vector<float> want(rows * n);
        View xs(x.data(), DType::kF32, {rows, n});
        xs.stride[0] = pitch;
        Context ctx{.forced = &reference()};
        ASSERT_TRUE(rms_norm({xs, View(w.data(), DType::kF32, {n}), 1e-5F,
                              View(want.data(), DType::kF32, {rows, n})},
                             ctx)
                        .ok());
        const CardArray<float> card_x(x), card_w(w);
        const CardArray<uint16_t> y(rows * n);
        View card_xs = card_x.view(DType::kF32, {rows, n});
        card_xs.stride[0] = pitch;
        ASSERT_TRUE(rms_norm_cuda({card_xs, card_w.view(DType::kF32, {n}),
                                   y.view(DType::kBf16, {rows, n}), 1e-5F},
                                  test_stream())
                        .ok());
        EXPECT_LT(relative_error(from_bf16(y.host()), want), kBf16);
      }
    }
  }
}

TEST(LayerCuda, RmsNormOfListedRows) {
  RK_NEEDS_CARD();
  constexpr int64_t kRows = 40;
  for (const int64_t n : {64, 1001, 5120}) {
    const auto x = normal_values(kRows * n, 1, 3.0F), w = normal_values(n, 2);
    const std::vector<int32_t> rows{39, 0, 7, 7};
    const CardArray<float> card_x(x), card_w(w);
    const CardArray<int32_t> card_rows(rows);
    const CardArray<uint16_t> all(kRows * n), listed(rows.size() * n);
    const auto run = [&](const CardArray<uint16_t>& y, int64_t num, const int32_t* list) {
      return rms_norm_cuda({card_x.view(DType::kF32, {kRows, n}), card_w.view(DType::kF32, {n}),
                            y.view(DType::kBf16, {num, n}), 1e-5F, list},
                           test_stream());
    };
    ASSERT_TRUE(run(all, kRows, nullptr).ok());
    ASSERT_TRUE(run(listed, 4, card_rows.data()).ok());
    EXPECT_FALSE(run(listed, 4, nullptr).ok());
    // The sum's order may follow the number of rows.
    const auto want = from_bf16(all.host()), got = from_bf16(listed.host());
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto at = want.begin() + rows[i] * n, to = got.begin() + static_cast<int64_t>(i) * n;
      EXPECT_LT(relative_error({to, to + n}, {at, at + n}), kBf16) << n << " " << i;
    }
  }
}

TEST(LayerCuda, RowNorms) {
  RK_NEEDS_CARD();
  for (const int64_t rows : {1, 3, 300}) {
    for (const int64_t n : {1, 8, 100, 1000, 1001, 8192}) {
      for (const int64_t pitch : {n, n + 8, n + 3}) {
        SCOPED_TRACE(cat("rows=", rows, " n=", n, " pitch=", pitch));
        const auto x = rounded(normal_values(rows * pitch, 20, 2.0F));
        std::vector<float> want;
        for (int64_t t = 0; t < rows; ++t) {
          double sum = 0;
          for (int64_t d = 0; d < n; ++d) sum += double{x[t * pitch + d]} * x[t * pitch + d];
          want.push_back(static_cast<float>(std::sqrt(sum)));
        }
        const CardArray<uint16_t> card_x(to_bf16(x));
        const CardArray<float> norms(rows);
        View xs = card_x.view(DType::kBf16, {rows, n});
        xs.stride[0] = pitch;
        ASSERT_TRUE(row_norms_cuda(xs, norms.data(), test_stream()).ok());
        const auto got = norms.host();
        for (int64_t t = 0; t < rows; ++t) ASSERT_NEAR(got[t], want[t], 1e-5F * want[t]) << t;
      }
    }
  }
}

TEST(LayerCuda, AddRowsAddsToListedRowsOnly) {
  RK_NEEDS_CARD();
  for (const int64_t n : {1, 3, 64, 5120}) {
    for (const int64_t pitch : {n, n + 4, n + 1}) {
      SCOPED_TRACE(cat("n=", n, " pitch=", pitch));
      const std::vector<int32_t> rows{10, 0, 3};
      const auto x = normal_values(11 * pitch, 21), y = normal_values(3 * n, 22);
      auto want = x;
      for (int64_t i = 0; i < 3; ++i) {
        for (int64_t d = 0; d < n; ++d) want[rows[i] * pitch + d] += y[i * n + d];
      }
      const CardArray<float> card_x(x), card_y(y);
      const CardArray<int32_t> card_rows(rows);
      View xs = card_x.view(DType::kF32, {11, n});
      xs.stride[0] = pitch;
      ASSERT_TRUE(
          add_rows_cuda(card_y.view(DType::kF32, {3, n}), card_rows.data(), xs, test_stream())
              .ok());
      EXPECT_EQ(card_x.host(), want);
    }
  }
}

struct QkvCase {
  int head_dim, heads, kv_heads, rotary;
  RopePairs pairs;
  bool norm;
  bool keeps = false;  ///< heads 0, 2, ... of sequence 0 keep what is stored
};

// The whole of qkv_write with the reference kernels: norm, turn, and where each row must land.
void check_qkv(const QkvCase& c) {
  SCOPED_TRACE(cat("D=", c.head_dim, " H=", c.heads, " G=", c.kv_heads, " rotary=", c.rotary,
                   " interleaved=", c.pairs == RopePairs::kInterleaved, " norm=", c.norm));
  constexpr int kRows = 21, kPage = 16, kLayer = 1, kPages = 64, kList = 4;
  const int d = c.head_dim, g_count = c.kv_heads, heads = c.heads + 2 * g_count;
  const int64_t width = int64_t{heads} * d;
  auto qkv = rounded(normal_values(kRows * width, 3));
  const auto q_norm = normal_values(d, 4), k_norm = normal_values(d, 5);
  std::vector<double> inv_freq;
  for (int i = 0; i < c.rotary / 2; ++i) inv_freq.push_back(std::pow(10000.0, -2.0 * i / c.rotary));
  const auto table = RopeTable::create(inv_freq, 100, 1.25, c.pairs).value();
  // Two sequences; rows 7 and 8 are padding; head 0 of sequence 1 has dropped its page 1.
  std::vector<int32_t> sequence(kRows), row(kRows), page_index(kRows), slot(kRows);
  for (int t = 0; t < kRows; ++t) {
    sequence[t] = t == 7 || t == 8 ? -1 : t % 2;
    row[t] = (t * 37) % 100;
    page_index[t] = t % kList;
    slot[t] = t / kList;  // no two rows share a place
  }
  std::vector<int32_t> ids(kPages);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(6));
  const auto list_of = [&](int s, int g) { return ((s * 2 + kLayer) * g_count + g) * kList; };
  ASSERT_LE(list_of(1, g_count - 1) + kList, kPages);
  ids[list_of(1, 0) + 1] = -1;
  std::vector<uint8_t> in_stored(kRows), keeps(2 * g_count);
  for (int t = 0; t < kRows; ++t) in_stored[t] = sequence[t] == 0 && t % 3 == 0;
  for (int g = 0; g < g_count; ++g) keeps[kLayer * g_count + g] = g % 2 == 0;

  std::vector<float> want_q = qkv, want_k(kPages * kPage * d, -7.0F), want_v = want_k;
  Context ctx{.forced = &reference()};
  for (int t = 0; t < kRows; ++t) {
    for (int h = 0; h < heads; ++h) {
      std::vector<float> x(qkv.begin() + t * width + h * d, qkv.begin() + t * width + (h + 1) * d);
      const bool q = h < c.heads, k = !q && h < c.heads + g_count;
      const View xs(x.data(), DType::kF32, {1, d});
      if (c.norm && (q || k)) {
        const auto& w = q ? q_norm : k_norm;
        ASSERT_TRUE(rms_norm({xs, View(w.data(), DType::kF32, {d}), 1e-6F, xs}, ctx).ok());
      }
      const int s = sequence[t];
      if (s < 0) continue;
      if (q) {
        std::copy(x.begin(), x.end(), want_q.begin() + t * width + h * d);
        continue;
      }
      if (k) {
        const View x3(x.data(), DType::kF32, {1, 1, d});
        ASSERT_TRUE(rope(x3, &row[t], table.view(), ctx).ok());
      }
      const int g = h - c.heads - (k ? 0 : g_count), page = ids[list_of(s, g) + page_index[t]];
      if (page < 0 || (c.keeps && in_stored[t] != 0 && g % 2 == 0)) continue;
      auto& to = k ? want_k : want_v;
      std::copy(x.begin(), x.end(), to.begin() + (page * kPage + slot[t]) * d);
    }
  }

  const CardArray<uint16_t> card_qkv(to_bf16(qkv));
  const CardArray<uint16_t> k_pages(to_bf16(std::vector<float>(kPages * kPage * d, -7.0F)));
  const CardArray<uint16_t> v_pages(to_bf16(std::vector<float>(kPages * kPage * d, -7.0F)));
  const CardArray<float> card_q_norm(q_norm), card_k_norm(k_norm);
  const CardArray<int32_t> card_sequence(sequence), card_row(row), card_index(page_index),
      card_slot(slot), card_ids(ids);
  const int64_t table_size = 100 * c.rotary / 2;
  const CardArray<float> cos(std::vector<float>(table.view().cos, table.view().cos + table_size));
  const CardArray<float> sin(std::vector<float>(table.view().sin, table.view().sin + table_size));
  std::vector<DeviceSequence> sequences(2);
  for (int s = 0; s < 2; ++s) {
    sequences[s].pages = card_ids.data() + s * 2 * g_count * kList;
    sequences[s].page_stride = kList;
  }
  const CardArray<uint8_t> card_in_stored(in_stored), card_keeps(keeps);
  if (c.keeps) sequences[0].keeps_stored = card_keeps.data();
  const CardArray<DeviceSequence> card_sequences(sequences);
  QkvWriteCudaArgs args{.qkv = card_qkv.view(DType::kBf16, {kRows, width}),
                        .num_heads = c.heads,
                        .num_kv_heads = g_count,
                        .head_dim = d,
                        .layer = kLayer,
                        .q_norm = c.norm ? card_q_norm.data() : nullptr,
                        .k_norm = c.norm ? card_k_norm.data() : nullptr,
                        .eps = 1e-6F,
                        .row_index = card_row.data(),
                        .sequence = card_sequence.data(),
                        .page_index = card_index.data(),
                        .page_slot = card_slot.data(),
                        .in_stored = c.keeps ? card_in_stored.data() : nullptr,
                        .sequences = card_sequences.data(),
                        .rope = table.view(),
                        .k_pages = k_pages.view(DType::kBf16, {kPages, kPage, d}),
                        .v_pages = v_pages.view(DType::kBf16, {kPages, kPage, d})};
  args.rope.cos = cos.data();
  args.rope.sin = sin.data();
  const Status status = qkv_write_cuda(args, test_stream());
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_LT(relative_error(from_bf16(k_pages.host()), want_k), kBf16);
  EXPECT_LT(relative_error(from_bf16(v_pages.host()), want_v), 1e-6);
  const auto q = from_bf16(card_qkv.host());
  for (int t = 0; t < kRows; ++t) {
    const auto at = t * width, to = at + int64_t{c.heads} * d;
    EXPECT_LT(relative_error({q.begin() + at, q.begin() + to},
                             {want_q.begin() + at, want_q.begin() + to}),
              c.norm ? kBf16 : 1e-9);
  }
}

TEST(LayerCuda, QkvWriteNormsTurnsAndStores) {
  RK_NEEDS_CARD();
  for (const RopePairs pairs : {RopePairs::kHalfSplit, RopePairs::kInterleaved}) {
    for (const bool norm : {false, true}) {
      check_qkv({64, 9, 3, 64, pairs, norm});
      check_qkv({128, 12, 2, 128, pairs, norm});
      check_qkv({128, 4, 1, 48, pairs, norm});
      check_qkv({256, 8, 1, 64, pairs, norm});
      check_qkv({64, 2, 2, 20, pairs, norm});
      check_qkv({64, 2, 2, 0, pairs, norm});
      check_qkv({64, 9, 3, 64, pairs, norm, true});
      check_qkv({128, 4, 1, 48, pairs, norm, true});
    }
  }
}

TEST(LayerCuda, SwigluMatchesTheReference) {
  RK_NEEDS_CARD();
  for (const int64_t rows : {1, 5, 129}) {
    for (const int64_t width : {1, 8, 100, 1536, 8960}) {
      SCOPED_TRACE(cat("rows=", rows, " width=", width));
      const auto x = rounded(normal_values(rows * 2 * width, 8, 4.0F));
      std::vector<float> want(rows * width);
      Context ctx{.forced = &reference()};
      ASSERT_TRUE(swiglu({View(x.data(), DType::kF32, {rows, 2 * width}),
                          View(want.data(), DType::kF32, {rows, width})},
                         ctx)
                      .ok());
      const CardArray<uint16_t> card_x(to_bf16(x)), y(rows * width);
      ASSERT_TRUE(swiglu_cuda(card_x.view(DType::kBf16, {rows, 2 * width}),
                              y.view(DType::kBf16, {rows, width}), test_stream())
                      .ok());
      EXPECT_LT(relative_error(from_bf16(y.host()), want), kBf16);
    }
  }
}

TEST(LayerCuda, GatherRowsCopiesWhateverTheWidth) {
  RK_NEEDS_CARD();
  for (const int64_t width : {1, 3, 8, 2050}) {
    const auto x = to_bf16(normal_values(11 * width, 9));
    const std::vector<int32_t> rows{10, 0, 3, 3};
    const CardArray<uint16_t> card_x(x), y(rows.size() * width);
    const CardArray<int32_t> card_rows(rows);
    ASSERT_TRUE(gather_rows_cuda(card_x.view(DType::kBf16, {11, width}), card_rows.data(),
                                 y.view(DType::kBf16, {4, width}), test_stream())
                    .ok());
    const auto got = y.host();
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t d = 0; d < width; ++d) ASSERT_EQ(got[i * width + d], x[rows[i] * width + d]);
    }
  }
}

TEST(LayerCuda, ScatterAndPageCopies) {
  RK_NEEDS_CARD();
  const CardArray<int32_t> table(std::vector<int32_t>(1000, 5));
  const CardArray<int64_t> index(std::vector<int64_t>{999, 0, 500});
  const CardArray<int32_t> value(std::vector<int32_t>{1, 2, 3});
  ASSERT_TRUE(scatter_i32_cuda(index.data(), value.data(), 3, table.data(), test_stream()).ok());
  std::vector<int32_t> want(1000, 5);
  want[999] = 1, want[0] = 2, want[500] = 3;
  EXPECT_EQ(table.host(), want);

  const auto k = to_bf16(normal_values(6 * 16 * 64, 10)),
             v = to_bf16(normal_values(6 * 16 * 64, 11));
  const CardArray<uint16_t> card_k(k), card_v(v);
  const CardArray<int32_t> from(std::vector<int32_t>{0, 5}), to(std::vector<int32_t>{3, 1});
  ASSERT_TRUE(copy_pages_cuda(card_k.view(DType::kBf16, {6, 16, 64}),
                              card_v.view(DType::kBf16, {6, 16, 64}), from.data(), to.data(), 2,
                              test_stream())
                  .ok());
  for (const auto& [before, after] : {std::pair(k, card_k.host()), std::pair(v, card_v.host())}) {
    const int source[6] = {0, 5, 2, 0, 4, 5};
    for (int page = 0; page < 6; ++page) {
      EXPECT_TRUE(std::equal(after.begin() + page * 1024, after.begin() + (page + 1) * 1024,
                             before.begin() + source[page] * 1024));
    }
  }
}

TEST(LayerCuda, MeansOfPages) {
  RK_NEEDS_CARD();
  constexpr int kElements = 16 * 64, kPages = 70;
  const auto k = to_bf16(normal_values(kPages * kElements, 12)),
             v = to_bf16(normal_values(kPages * kElements, 13));
  for (const int num_from : {1, 2, 3, 33}) {
    const CardArray<uint16_t> card_k(k), card_v(v);
    std::vector<int32_t> sources;  // of targets 0 and 1
    for (int i = 0; i < 2 * num_from; ++i) sources.push_back(2 + (i * 7) % (kPages - 2));
    const CardArray<int32_t> from(sources), to(std::vector<int32_t>{1, 0});
    ASSERT_TRUE(mean_pages_cuda(card_k.view(DType::kBf16, {kPages, 16, 64}),
                                card_v.view(DType::kBf16, {kPages, 16, 64}), from.data(), to.data(),
                                num_from, 2, test_stream())
                    .ok());
    for (const auto& [before, after] : {std::pair(k, card_k.host()), std::pair(v, card_v.host())}) {
      auto want = before;
      for (int i = 0; i < 2; ++i) {
        for (int d = 0; d < kElements; ++d) {
          float sum = 0;
          for (int j = 0; j < num_from; ++j) {
            sum += bf16_to_f32(before[size_t(sources[i * num_from + j]) * kElements + d]);
          }
          want[(1 - i) * kElements + d] = f32_to_bf16(sum * (1.0F / num_from));
        }
      }
      EXPECT_EQ(after, want) << num_from;
    }
  }
}

TEST(LayerCuda, RandomFillsAreNormalAndRepeat) {
  RK_NEEDS_CARD();
  constexpr int64_t kNum = 100'001;
  const CardArray<float> a(kNum), b(kNum);
  const CardArray<uint16_t> half(kNum);
  ASSERT_TRUE(fill_normal_cuda(a.view(DType::kF32, {kNum}), 1, 0.5F, test_stream()).ok());
  ASSERT_TRUE(fill_normal_cuda(b.view(DType::kF32, {kNum}), 2, 0.5F, test_stream()).ok());
  ASSERT_TRUE(fill_normal_cuda(half.view(DType::kBf16, {kNum}), 1, 0.5F, test_stream()).ok());
  const auto x = a.host();
  EXPECT_NE(x, b.host());
  EXPECT_EQ(from_bf16(half.host()), rounded(x));
  double sum = 0.0, squares = 0.0;
  for (const float v : x) sum += v, squares += double{v} * v;
  EXPECT_NEAR(sum / kNum, 0.0, 0.01);
  EXPECT_NEAR(std::sqrt(squares / kNum), 0.5, 0.01);
}

TEST(LayerCuda, ShapesThatDoNotFitAreRefused) {
  float* none = nullptr;
  const View x(none, DType::kF32, {2, 64}), w(none, DType::kF32, {63}),
      y(none, DType::kBf16, {2, 64});
  EXPECT_FALSE(rms_norm_cuda({x, w, y}, nullptr).ok());
  EXPECT_FALSE(swiglu_cuda(y, y, nullptr).ok());
  EXPECT_FALSE(gather_rows_cuda(x, nullptr, y, nullptr).ok());
  EXPECT_FALSE(add_rows_cuda(y, nullptr, x, nullptr).ok());
  EXPECT_FALSE(row_norms_cuda(x, nullptr, nullptr).ok());
  const View pages(none, DType::kF32, {2, 16, 64});
  EXPECT_FALSE(mean_pages_cuda(pages, pages, nullptr, nullptr, 2, 1, nullptr).ok());
  EXPECT_FALSE(fill_normal_cuda(View(none, DType::kI32, {4}), 1, 1.0F, nullptr).ok());
}

}  // namespace
}  // namespace rk::kernels
