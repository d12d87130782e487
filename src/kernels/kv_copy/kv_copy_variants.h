// The variants of kv_write(). Private to this folder.
#pragma once

#include "kernels/kv_copy/kv_copy.h"

namespace rk::kernels {

Status kv_write_ref(const KvWriteArgs& args, Context& ctx);

}  // namespace rk::kernels
