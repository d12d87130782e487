#include "kernels/row_code/row_code_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cuda/card_testing.h"

namespace rk::kernels {
namespace {

constexpr int kPageRows = 16, kHeads = 3, kRows = 37, kPagesPerHead = 3, kPages = 20;

struct CardCase {
  RowCode k, v;
  int64_t dim;
  bool constant;
};

// A document of three heads, its pages all over the pool, by the host's reference and on the card.
void check(const CardCase& c) {
  SCOPED_TRACE(cat("k=", static_cast<int>(c.k), " v=", static_cast<int>(c.v), " D=", c.dim,
                   " constant=", c.constant));
  const int64_t page = kPageRows * c.dim, k_bytes = row_block_bytes(c.k, kPageRows, c.dim),
                bytes = k_bytes + row_block_bytes(c.v, kPageRows, c.dim);
  auto k = to_bf16(normal_values(kPages * page, 1, 3.0F));
  auto v = to_bf16(normal_values(kPages * page, 2));
  std::fill(v.begin() + 3 * page, v.begin() + 3 * page + c.dim, uint16_t{0});  // a row of zeros
  const auto constant = normal_values(kHeads * c.dim, 3, 30.0F);
  std::vector<int32_t> ids(kPages);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(4));
  ids.resize(kHeads * kPagesPerHead);
  std::vector<double> inv_freq;
  for (int i = 0; i < c.dim / 4; ++i) inv_freq.push_back(std::pow(1e4, -4.0 * i / c.dim));
  const auto table = RopeTable::create(inv_freq, 64, 1.0, RopePairs::kHalfSplit).value();

  std::vector<uint8_t> want(ids.size() * bytes);
  const auto on_host = [&](bool encode) {
    ForcedVariants forced{{"row_code", "ref"}};
    Context ctx{.forced = &forced};
    for (const bool is_k : {true, false}) {
      std::vector<RowCodePage> pages;
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto first = static_cast<int32_t>(i % kPagesPerHead * kPageRows);
        pages.push_back({(is_k ? k : v).data() + ids[i] * page,
                         want.data() + i * bytes + (is_k ? 0 : k_bytes),
                         is_k && c.constant ? constant.data() + i / kPagesPerHead * c.dim : nullptr,
                         first, std::min(kPageRows, kRows - first)});
      }
      const RowCodeArgs args{is_k ? c.k : c.v, DType::kBf16, c.dim, kPageRows, pages, table.view()};
      ASSERT_TRUE((encode ? encode_rows(args, ctx) : decode_rows(args, ctx)).ok());
    }
  };

  const CardArray<uint16_t> card_k(k), card_v(v);
  const CardArray<uint8_t> blocks(want.size());
  const CardArray<int32_t> card_ids(ids);
  const CardArray<float> card_constant(constant);
  const int64_t table_size = 64 * c.dim / 4;
  const CardArray<float> cos(std::vector<float>(table.view().cos, table.view().cos + table_size));
  const CardArray<float> sin(std::vector<float>(table.view().sin, table.view().sin + table_size));
  RowCodeCudaArgs args;
  args.k = c.k;
  args.v = c.v;
  args.k_pages = card_k.view(DType::kBf16, {kPages, kPageRows, c.dim});
  args.v_pages = card_v.view(DType::kBf16, {kPages, kPageRows, c.dim});
  args.pages = card_ids.data();
  args.blocks = blocks.data();
  args.num_heads = kHeads;
  args.pages_per_head = kPagesPerHead;
  args.num_rows = kRows;
  args.key_constant = c.constant ? card_constant.data() : nullptr;
  args.rope = table.view();
  args.rope.cos = cos.data();
  args.rope.sin = sin.data();
  on_host(true);
  ASSERT_TRUE(encode_rows_cuda(args, test_stream()).ok());
  if (!c.constant) {
    EXPECT_EQ(blocks.host(), want);
  }
  // Decoded from the same blocks: the reference's, behind pages that hold something else.
  ASSERT_TRUE(
      copy_to_card(blocks.data(), want.data(), static_cast<int64_t>(want.size()), test_stream())
          .ok());
  on_host(false);
  ASSERT_TRUE(decode_rows_cuda(args, test_stream()).ok());
  const auto got_k = card_k.host(), got_v = card_v.host();
  EXPECT_EQ(got_v, v);
  if (c.constant) {
    EXPECT_LT(relative_error(from_bf16(got_k), from_bf16(k)), 1e-4);
  } else {
    EXPECT_EQ(got_k, k);
  }
}

TEST(RowCodeCuda, GivesTheReferencesBytes) {
  RK_NEEDS_CARD();
  for (const int64_t dim : {64, 128, 256}) {
    for (const bool constant : {false, true}) {
      check({RowCode::kInt8, RowCode::kInt8, dim, constant});
      check({RowCode::kInt8, RowCode::kInt4, dim, constant});
      check({RowCode::kFp8, RowCode::kFp8, dim, constant});
    }
  }
}

// With the constant left out on the card, rows come back as near as the codes allow.
TEST(RowCodeCuda, AConstantIsLeftOutAndPutBack) {
  RK_NEEDS_CARD();
  constexpr int64_t kDim = 128, kPage = kPageRows * kDim;
  const auto constant = normal_values(kDim, 3, 60.0F);
  std::vector<double> inv_freq;
  for (int i = 0; i < kDim / 2; ++i) inv_freq.push_back(std::pow(1e4, -2.0 * i / kDim));
  const auto table = RopeTable::create(inv_freq, 64, 1.0, RopePairs::kHalfSplit).value();
  auto k = normal_values(kPage, 5);
  for (int32_t r = 0; r < kPageRows; ++r) {
    auto turned = constant;
    Context ctx;
    ASSERT_TRUE(rope(View(turned.data(), DType::kF32, {1, 1, kDim}), &r, table.view(), ctx).ok());
    for (int64_t d = 0; d < kDim; ++d) k[r * kDim + d] += turned[d];
  }
  const auto before = rounded(k);
  const CardArray<float> cos(std::vector<float>(table.view().cos, table.view().cos + 64 * 64));
  const CardArray<float> sin(std::vector<float>(table.view().sin, table.view().sin + 64 * 64));
  const CardArray<float> card_constant(constant);
  const CardArray<int32_t> ids(std::vector<int32_t>{0});
  double errors[2] = {};
  for (const bool left_out : {false, true}) {
    const CardArray<uint16_t> pages(to_bf16(k)), v(to_bf16(k));
    const CardArray<uint8_t> blocks(2 * row_block_bytes(RowCode::kFp8, kPageRows, kDim));
    RowCodeCudaArgs args;
    args.k = args.v = RowCode::kFp8;
    args.k_pages = pages.view(DType::kBf16, {1, kPageRows, kDim});
    args.v_pages = v.view(DType::kBf16, {1, kPageRows, kDim});
    args.pages = ids.data();
    args.blocks = blocks.data();
    args.num_heads = args.pages_per_head = 1;
    args.num_rows = kPageRows;
    args.key_constant = left_out ? card_constant.data() : nullptr;
    args.rope = table.view();
    args.rope.cos = cos.data();
    args.rope.sin = sin.data();
    ASSERT_TRUE(encode_rows_cuda(args, test_stream()).ok());
    ASSERT_TRUE(decode_rows_cuda(args, test_stream()).ok());
    errors[left_out] = relative_error(from_bf16(pages.host()), before);
  }
  EXPECT_LT(errors[1], 0.3 * errors[0]);
  EXPECT_LT(errors[1], 4e-3);  // bf16 itself, of values of 60
}

TEST(RowCodeCuda, ShapesThatCannotBeAreRefused) {
  RowCodeCudaArgs args;
  uint16_t page[16 * 48] = {};
  args.k_pages = args.v_pages = View(page, DType::kBf16, {1, 16, 48});
  args.num_heads = args.pages_per_head = 1;
  args.num_rows = 16;
  EXPECT_EQ(encode_rows_cuda(args, nullptr).code(), Code::kInvalidArgument);
  args.k_pages = args.v_pages = View(page, DType::kBf16, {1, 16, 32});
  args.num_rows = 17;
  EXPECT_EQ(decode_rows_cuda(args, nullptr).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::kernels
