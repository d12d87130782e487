// A kernel that fails: what a fault in the middle of a request looks like to everything after it.
#include "trap.h"

namespace {
__global__ void trap_kernel() { __trap(); }
}  // namespace

void rk::launch_trap() { trap_kernel<<<1, 1>>>(); }
