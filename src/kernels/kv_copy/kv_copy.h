// Moves rows into pages: new K and V of a step, converted to the pool's dtype.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/view.h"

namespace rk::kernels {

/// Row t of KV head g goes to page slot[t*G + g] / P, slot % P; negative slots are not stored.
struct KvWriteArgs {
  View k, v;                       ///< [T, G, D] f32 (rows may be strided: parts of a QKV row)
  View k_pages, v_pages;           ///< [N, P, D] f32|f16|bf16
  std::span<const int64_t> slots;  ///< [T*G] page * P + row in page, or -1
};
Status kv_write(const KvWriteArgs& args, Context& ctx);

}  // namespace rk::kernels
