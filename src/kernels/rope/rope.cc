#include "kernels/rope/rope.h"

#include <algorithm>
#include <cmath>

#include "kernels/rope/rope_rows.h"
#include "kernels/rope/rope_variants.h"

namespace rk::kernels {
namespace {

bool any(const RopeArgs&) { return true; }

using HeadsFn = void (*)(float*, int64_t, int64_t, const float*, const float*, int64_t, bool);

template <HeadsFn kHeads>
Status by_rows(const RopeArgs& args, Context& ctx) {
  const int64_t row = args.x.dim[1] * args.x.dim[2], grain = std::max<int64_t>(1, 16384 / row);
  parallel_for(ctx, args.x.dim[0], grain, [&args](int64_t begin, int64_t end, int) {
    const RopeView& table = args.table;
    const int64_t half = table.rotary_dim / 2;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t at = args.pos[t] * half;
      kHeads(args.x.row<float>(t), args.x.dim[1], args.x.stride[1], table.cos + at, table.sin + at,
             half, table.pairs == RopePairs::kInterleaved);
    }
  });
  return {};
}

constexpr Variant<RopeArgs> kVariants[] = {
    {"avx512", on_avx512, any, by_rows<rope_heads_avx512>},
    {"avx2", on_avx2, any, by_rows<rope_heads_avx2>},
    {"ref", on_any, any, rope_ref},
};

Status check(const RopeArgs& args) {
  const View& x = args.x;
  const RopeView& table = args.table;
  if (x.rank != 3 || x.dtype != DType::kF32 || x.stride[2] != 1) {
    return invalid_argument("rope: x must be f32 [T, H, D] with contiguous heads, is ",
                            x.describe());
  }
  if (table.rotary_dim < 0 || table.rotary_dim % 2 != 0 || table.rotary_dim > x.dim[2]) {
    return invalid_argument("rope: rotary_dim ", table.rotary_dim, " does not fit head dim ",
                            x.dim[2]);
  }
  for (int64_t t = 0; t < x.dim[0]; ++t) {
    if (args.pos[t] < 0 || args.pos[t] >= table.num_positions) {
      return invalid_argument("rope: position ", args.pos[t], " of row ", t,
                              " is outside the table's ", table.num_positions);
    }
  }
  return {};
}

}  // namespace

Result<RopeTable> RopeTable::create_empty(const std::vector<double>& inv_freq,
                                          int64_t num_positions, double magnitude,
                                          RopePairs pairs) {
  const auto half = static_cast<int64_t>(inv_freq.size());
  if (num_positions < 0 || half > (int64_t{1} << 20) || num_positions > (int64_t{1} << 31)) {
    return invalid_argument("rope table: ", num_positions, " positions of ", half,
                            " frequencies; at most 2^31 and 2^20 are possible");
  }
  const int64_t count = num_positions * half;
  RopeTable table;
  table.inv_freq_ = inv_freq;
  table.magnitude_ = magnitude;
  table.view_ = {
      .num_positions = num_positions, .rotary_dim = static_cast<int>(2 * half), .pairs = pairs};
  if (count == 0) return table;
  RK_TRY(table.storage_, Buffer::allocate(2 * count * static_cast<int64_t>(sizeof(float))));
  table.view_.cos = table.storage_.as<float>();
  table.view_.sin = table.view_.cos + count;
  return table;
}

Result<RopeTable> RopeTable::create(const std::vector<double>& inv_freq, int64_t num_positions,
                                    double magnitude, RopePairs pairs) {
  RK_TRY(RopeTable table, create_empty(inv_freq, num_positions, magnitude, pairs));
  table.fill(num_positions);
  return table;
}

void RopeTable::fill(int64_t num_positions) {
  const auto half = static_cast<int64_t>(inv_freq_.size());
  num_positions = std::min(num_positions, view_.num_positions);
  if (half == 0) return;
  float* cos = storage_.as<float>();
  float* sin = cos + view_.num_positions * half;
  for (int64_t p = filled_; p < num_positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * inv_freq_[static_cast<size_t>(i)];
      cos[p * half + i] = static_cast<float>(std::cos(angle) * magnitude_);
      sin[p * half + i] = static_cast<float>(std::sin(angle) * magnitude_);
    }
  }
  filled_ = std::max(filled_, num_positions);
}

Status rope(const View& x, const int32_t* pos, const RopeView& table, Context& ctx) {
  if (x.empty() || table.rotary_dim == 0) return {};
  const RopeArgs args{x, pos, table};
  RK_RETURN_IF_ERROR(check(args));
  return dispatch("rope", kVariants, args, ctx);
}

}  // namespace rk::kernels
