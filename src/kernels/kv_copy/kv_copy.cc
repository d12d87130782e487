#include "kernels/kv_copy/kv_copy.h"

#include <algorithm>

#include "kernels/kv_copy/kv_copy_rows.h"
#include "kernels/kv_copy/kv_copy_variants.h"

namespace rk::kernels {
namespace {

bool any(const KvWriteArgs&) { return true; }

StoredRow stored_row(DType dtype) {
  return dtype == DType::kF32   ? StoredRow::kF32
         : dtype == DType::kF16 ? StoredRow::kF16
                                : StoredRow::kBf16;
}

using RowFn = void (*)(const float*, void*, int64_t, StoredRow);

template <RowFn kRow>
void write_rows(const KvWriteArgs& args, const View& rows, const View& pages, int64_t t) {
  const int64_t page_rows = pages.dim[1];
  for (int64_t g = 0; g < rows.dim[1]; ++g) {
    const int64_t slot = args.slots[t * rows.dim[1] + g];
    if (slot < 0) continue;
    const int64_t at = slot / page_rows * pages.stride[0] + slot % page_rows * pages.stride[1];
    kRow(rows.row<const float>(t) + g * rows.stride[1],
         pages.ptr<char>() + dtype_bytes(pages.dtype, at), rows.dim[2], stored_row(pages.dtype));
  }
}

template <RowFn kRow>
Status by_rows(const KvWriteArgs& args, Context& ctx) {
  const int64_t row = args.k.dim[1] * args.k.dim[2], grain = std::max<int64_t>(1, 16384 / row);
  parallel_for(ctx, args.k.dim[0], grain, [&args](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      write_rows<kRow>(args, args.k, args.k_pages, t);
      write_rows<kRow>(args, args.v, args.v_pages, t);
    }
  });
  return {};
}

constexpr Variant<KvWriteArgs> kVariants[] = {
    {"avx512", on_avx512, any, by_rows<store_row_avx512>},
    {"avx2", on_avx2, any, by_rows<store_row_avx2>},
    {"ref", on_any, any, kv_write_ref},
};

bool f32_rows(const View& v) { return v.rank == 3 && v.dtype == DType::kF32 && v.stride[2] == 1; }

bool pages(const View& v, int64_t dim) {
  return v.rank == 3 && v.dim[2] == dim && v.stride[2] == 1 && v.stride[1] == dim &&
         (v.dtype == DType::kF32 || v.dtype == DType::kF16 || v.dtype == DType::kBf16);
}

}  // namespace

Status kv_write(const KvWriteArgs& args, Context& ctx) {
  if (!f32_rows(args.k) || !f32_rows(args.v) || args.k.dim != args.v.dim ||
      !pages(args.k_pages, args.k.dim[2]) || !pages(args.v_pages, args.k.dim[2]) ||
      args.k_pages.dim != args.v_pages.dim || args.k_pages.dtype != args.v_pages.dtype) {
    return invalid_argument("kv_write: k ", args.k.describe(), ", v ", args.v.describe(),
                            ", k_pages ", args.k_pages.describe(), ", v_pages ",
                            args.v_pages.describe(), "; wanted f32 [T, G, D] and [N, P, D]");
  }
  const int64_t num_slots = args.k_pages.dim[0] * args.k_pages.dim[1];
  if (static_cast<int64_t>(args.slots.size()) != args.k.dim[0] * args.k.dim[1]) {
    return invalid_argument("kv_write: ", args.slots.size(), " slots for ", args.k.dim[0],
                            " rows of ", args.k.dim[1], " heads");
  }
  for (const int64_t slot : args.slots) {
    if (slot >= num_slots) {
      return invalid_argument("kv_write: slot ", slot, " of ", num_slots);
    }
  }
  if (args.k.empty()) return {};
  return dispatch("kv_copy", kVariants, args, ctx);
}

}  // namespace rk::kernels
