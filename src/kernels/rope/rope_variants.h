// The variants of rope() and the arguments they share. Private to this folder.
#pragma once

#include "kernels/rope/rope.h"

namespace rk::kernels {

struct RopeArgs {
  View x;
  const int32_t* pos = nullptr;
  RopeView table;
};
Status rope_ref(const RopeArgs& args, Context& ctx);

}  // namespace rk::kernels
