// The specification of kv_write(): one element at a time.
#include "kernels/kv_copy/kv_copy_variants.h"

namespace rk::kernels {

Status kv_write_ref(const KvWriteArgs& args, Context&) {
  const int64_t heads = args.k.dim[1], page_rows = args.k_pages.dim[1];
  for (int64_t t = 0; t < args.k.dim[0]; ++t) {
    for (int64_t g = 0; g < heads; ++g) {
      const int64_t slot = args.slots[t * heads + g];
      if (slot < 0) continue;
      for (int64_t d = 0; d < args.k.dim[2]; ++d) {
        args.k_pages.set(args.k.at(t, g, d), slot / page_rows, slot % page_rows, d);
        args.v_pages.set(args.v.at(t, g, d), slot / page_rows, slot % page_rows, d);
      }
    }
  }
  return {};
}

}  // namespace rk::kernels
