#include "kernels/row_code/row_code.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace rk::kernels {
namespace {

constexpr int32_t kPageRows = 16, kRows = 37;  // two pages and a part of one
constexpr RowCode kCodes[] = {RowCode::kInt8, RowCode::kInt4, RowCode::kFp8};

const RopeTable& table() {
  static const RopeTable rope = [] {
    std::vector<double> inv_freq;
    for (int i = 0; i < 24; ++i) inv_freq.push_back(std::pow(10000.0, -i / 24.0));
    return RopeTable::create(inv_freq, 64, 1.0, RopePairs::kHalfSplit).value();
  }();
  return rope;
}

// Rows of one head in three pages, and their blocks.
struct Problem {
  Problem(RowCode code, DType dtype, int64_t dim, bool with_constant)
      : code(code), dtype(dtype), dim(dim) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const int64_t size = 3 * kPageRows * dim;
    rows.resize(static_cast<size_t>(dtype_bytes(dtype, size)));
    view = View(rows.data(), dtype, {3 * kPageRows, dim});
    for (int64_t d = 0; d < dim; ++d) constant.push_back(with_constant ? 50 * normal(random) : 0);
    std::vector<float> turned(constant.size());
    for (int64_t r = 0; r < 3 * kPageRows; ++r) {
      turned = constant;
      View x(turned.data(), DType::kF32, {1, 1, dim});
      const auto at = static_cast<int32_t>(r);
      Context ctx;
      if (with_constant) {
        EXPECT_TRUE(rope(x, &at, table().view(), ctx).ok());
      }
      const float scale = std::exp(3 * normal(random));
      for (int64_t d = 0; d < dim; ++d) {
        view.set(turned[static_cast<size_t>(d)] + scale * normal(random), r, d);
      }
    }
    const int64_t bytes = row_block_bytes(code, kPageRows, dim);
    blocks.assign(static_cast<size_t>(3 * bytes), 0xab);
    for (int32_t p = 0; p < 3; ++p) {
      pages.push_back({rows.data() + dtype_bytes(dtype, p * kPageRows * dim),
                       blocks.data() + p * bytes, with_constant ? constant.data() : nullptr,
                       p * kPageRows, std::min(kPageRows, kRows - p * kPageRows)});
    }
  }
  RowCodeArgs args() const {
    return {code,      dtype, dim,
            kPageRows, pages, pages[0].constant == nullptr ? RopeView() : table().view()};
  }
  Status run(const char* variant, bool encode) {
    ForcedVariants forced{{"row_code", variant}};
    Context ctx{.forced = variant[0] == 0 ? nullptr : &forced};
    return encode ? encode_rows(args(), ctx) : decode_rows(args(), ctx);
  }
  std::vector<float> values() const {
    std::vector<float> out;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t d = 0; d < dim; ++d) out.push_back(static_cast<float>(view.at(r, d)));
    }
    return out;
  }
  RowCode code;
  DType dtype;
  int64_t dim;
  std::vector<char> rows;
  View view;
  std::vector<float> constant;
  std::vector<uint8_t> blocks;
  std::vector<RowCodePage> pages;
};

float rounding(DType dtype) {  // of a value's size, by the stored type
  return dtype == DType::kF32 ? 1e-6F : dtype == DType::kF16 ? 5e-4F : 4e-3F;
}

// Every element comes back within half a step of its code, and what the row's type rounds.
TEST(RowCode, ErrorsStayWithinHalfAStep) {
  for (const RowCode code : kCodes) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
      SCOPED_TRACE(cat(static_cast<int>(code), " ", dtype_name(dtype)));
      Problem p(code, dtype, 64, false);
      const auto before = p.values();
      ASSERT_TRUE(p.run("", true).ok());
      std::fill(p.rows.begin(), p.rows.end(), char{0});
      ASSERT_TRUE(p.run("", false).ok());
      const auto after = p.values();
      double error = 0, energy = 0;
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t d = 0; d < 64; ++d) {
          const auto at = [&](const std::vector<float>& v, int64_t i) {
            return v[static_cast<size_t>(r * 64 + i)];
          };
          const int64_t group = code == RowCode::kInt4 ? 32 : 64, first = d / group * group;
          float low = at(before, first), high = low;
          for (int64_t i = first; i < first + group; ++i) {
            low = std::min(low, at(before, i));
            high = std::max(high, at(before, i));
          }
          const float most = std::max(std::abs(low), std::abs(high)), x = at(before, d);
          const float step = code == RowCode::kInt8   ? most / 127
                             : code == RowCode::kInt4 ? (high - low) / 15 + most / 1024
                                                      : std::max(std::abs(x) / 8, most / 448 / 512);
          EXPECT_LE(std::abs(at(after, d) - x),
                    0.505F * step * 1.001F + rounding(dtype) * most + 1e-7F)
              << r << " " << d;
          error += std::pow(at(after, d) - x, 2);
          energy += std::pow(x, 2);
        }
      }
      const double relative = std::sqrt(error / energy);
      EXPECT_LT(relative, code == RowCode::kInt8 ? 0.01 : code == RowCode::kInt4 ? 0.1 : 0.04);
      EXPECT_GT(relative, 1e-4);
    }
  }
}

TEST(RowCode, VariantsGiveTheReferencesBytes) {
  for (const char* variant : {"avx512", "avx2"}) {
    if (!(variant == std::string("avx2") ? on_avx2() : on_avx512())) continue;
    for (const RowCode code : kCodes) {
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
        for (const int64_t dim : {32, 64, 96, 128}) {
          for (const bool odd : {false, true}) {
            SCOPED_TRACE(
                cat(variant, " ", static_cast<int>(code), " ", dtype_name(dtype), " ", dim));
            Problem want(code, dtype, dim, false), got(code, dtype, dim, false);
            if (odd) {  // what no row should hold
              for (Problem* p : {&want, &got}) {
                p->view.set(NAN, 3, 5);
                p->view.set(INFINITY, 4, 6);
                for (int64_t d = 0; d < dim; ++d) p->view.set(0, 5, d);
                for (int64_t d = 0; d < dim; ++d) p->view.set(NAN, 6, d);
                p->view.set(6e4, 7, 1);
                p->view.set(-6e4, 7, 2);
                for (int64_t d = 0; d < dim; ++d) p->view.set(6e-8 * d, 8, d);
              }
            }
            ASSERT_TRUE(want.run("ref", true).ok());
            ASSERT_TRUE(got.run(variant, true).ok());
            EXPECT_EQ(got.blocks, want.blocks);
            ASSERT_TRUE(want.run("ref", false).ok());
            ASSERT_TRUE(got.run(variant, false).ok());
            EXPECT_EQ(got.rows, want.rows);
          }
        }
      }
    }
  }
}

TEST(RowCode, AConstantIsLeftOutAndPutBack) {
  for (const char* variant : {"avx512", "avx2", "ref"}) {
    if (variant == std::string("avx2") && !on_avx2()) continue;
    if (variant == std::string("avx512") && !on_avx512()) continue;
    for (const RowCode code : kCodes) {
      SCOPED_TRACE(cat(variant, " ", static_cast<int>(code)));
      const auto error = [&](bool left_out) {
        Problem p(code, DType::kF32, 64, true);
        if (!left_out) {
          for (RowCodePage& page : p.pages) page.constant = nullptr;
        }
        const auto before = p.values();
        EXPECT_TRUE(p.run(variant, true).ok());
        std::fill(p.rows.begin(), p.rows.end(), char{0});
        EXPECT_TRUE(p.run(variant, false).ok());
        const auto after = p.values();
        std::vector<double> errors;  // of rows, the median: their scales differ
        for (int64_t r = 0; r < kRows; ++r) {
          double sum = 0;
          for (int64_t d = 0; d < 64; ++d) {
            sum += std::pow(
                after[static_cast<size_t>(r * 64 + d)] - before[static_cast<size_t>(r * 64 + d)],
                2);
          }
          errors.push_back(sum);
        }
        std::nth_element(errors.begin(), errors.begin() + kRows / 2, errors.end());
        return std::sqrt(errors[kRows / 2]);
      };
      EXPECT_LT(error(true), 0.1 * error(false));
    }
  }
}

TEST(RowCode, BlocksSayTheirSizeAndRowsBehindTheLastAreZero) {
  EXPECT_EQ(row_block_bytes(RowCode::kInt8, 16, 64), 16 * (64 + 2));
  EXPECT_EQ(row_block_bytes(RowCode::kFp8, 16, 128), 16 * (128 + 2));
  EXPECT_EQ(row_block_bytes(RowCode::kInt4, 16, 64), 16 * (32 + 8));
  Problem p(RowCode::kInt8, DType::kF16, 64, false);
  ASSERT_TRUE(p.run("", true).ok());
  const uint8_t* last = p.pages[2].block;
  for (int64_t r = 5; r < kPageRows; ++r) {
    EXPECT_EQ(last[2 * r], 0);
    EXPECT_EQ(last[2 * kPageRows + r * 64], 0);
  }
}

TEST(RowCode, ShapesThatCannotBeAreRefused) {
  Context ctx;
  Problem p(RowCode::kInt4, DType::kF16, 64, false);
  RowCodeArgs args = p.args();
  args.dim = 48;
  EXPECT_EQ(encode_rows(args, ctx).code(), Code::kInvalidArgument);
  args = p.args();
  args.dtype = DType::kI8;
  EXPECT_EQ(decode_rows(args, ctx).code(), Code::kInvalidArgument);
  p.pages[0].num_rows = 17;
  EXPECT_EQ(decode_rows(p.args(), ctx).code(), Code::kInvalidArgument);
  p.pages[0].num_rows = 16;
  p.pages[0].constant = p.constant.data();
  p.pages[0].first_row = 60;  // the table has 64 rows
  EXPECT_EQ(encode_rows(p.args(), ctx).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::kernels
