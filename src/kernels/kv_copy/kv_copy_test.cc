#include "kernels/kv_copy/kv_copy.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace rk::kernels {
namespace {

struct Pages {
  std::vector<uint32_t> k, v;
};

// 20 rows of 3 heads into 5 pages of 16; every seventh row is not stored.
Pages written(const char* variant, DType dtype, int64_t dim) {
  constexpr int64_t kTokens = 20, kHeads = 3, kPages = 5, kPageRows = 16;
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0F, 100.0F);
  const int64_t pitch = 2 * kHeads * dim + 3;  // K and V lie in one row
  std::vector<float> kv(kTokens * pitch);
  for (float& x : kv) x = normal(random);
  kv[0] = 1e-7F;           // a subnormal f16
  kv[1] = 1e6F;            // beyond f16
  kv[2] = 1.00048828125F;  // half way between two f16
  std::vector<int64_t> slots(kTokens * kHeads);
  for (int64_t i = 0; i < kTokens * kHeads; ++i) slots[i] = i % 7 == 6 ? -1 : i * 11 % 80;
  Pages out;
  out.k.assign(kPages * kPageRows * dim, 0);
  out.v = out.k;
  KvWriteArgs args;
  args.k = View(kv.data(), DType::kF32, {kTokens, kHeads, dim});
  args.v = View(kv.data() + kHeads * dim, DType::kF32, {kTokens, kHeads, dim});
  args.k.stride[0] = args.v.stride[0] = pitch;
  args.k_pages = View(out.k.data(), dtype, {kPages, kPageRows, dim});
  args.v_pages = View(out.v.data(), dtype, {kPages, kPageRows, dim});
  args.slots = slots;
  ForcedVariants forced{{"kv_copy", variant}};
  Context ctx{.forced = &forced};
  EXPECT_TRUE(kv_write(args, ctx).ok());
  return out;
}

TEST(KvWrite, VariantsStoreTheReferencesBytes) {
  for (const char* variant : {"avx512", "avx2"}) {
    if (!(variant == std::string("avx2") ? on_avx2() : on_avx512())) continue;
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
      for (const int64_t dim : {4, 8, 20, 64, 80, 128}) {
        SCOPED_TRACE(cat(variant, " ", dtype_name(dtype), " dim=", dim));
        const Pages got = written(variant, dtype, dim), want = written("ref", dtype, dim);
        EXPECT_EQ(got.k, want.k);
        EXPECT_EQ(got.v, want.v);
        EXPECT_NE(got.k, got.v);
      }
    }
  }
}

TEST(KvWrite, SlotsMustExist) {
  std::vector<float> rows(8), pages(2 * 8);
  const View kv(rows.data(), DType::kF32, {1, 1, 8}), pool(pages.data(), DType::kF32, {1, 2, 8});
  Context ctx;
  for (const int64_t slot : {0, 1, -1}) {
    EXPECT_TRUE(kv_write({kv, kv, pool, pool, std::span(&slot, 1)}, ctx).ok());
  }
  const int64_t beyond = 2;
  EXPECT_EQ(kv_write({kv, kv, pool, pool, std::span(&beyond, 1)}, ctx).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(kv_write({kv, kv, pool, pool, {}}, ctx).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::kernels
