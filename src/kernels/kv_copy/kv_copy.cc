#include "kernels/kv_copy/kv_copy.h"

#include "kernels/kv_copy/kv_copy_variants.h"

namespace rk::kernels {
namespace {

bool any(const KvWriteArgs&) { return true; }

constexpr Variant<KvWriteArgs> kVariants[] = {
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
