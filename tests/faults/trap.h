#pragma once

namespace rk {
/// Breaks this process's context on the card for good.
void launch_trap();
}  // namespace rk
