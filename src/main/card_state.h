// What NVIDIA's management library says of a card while it is measured: clocks, power, driver. The
// library (libnvidia-ml.so.1, part of the driver) is opened at run time; without it all is 0 or "".
// Nothing is ever set. Main thread only.
#pragma once

#include <string>

namespace rk::cli {

struct CardState {
  int sm_mhz = 0, memory_mhz = 0;
  int power_w = 0, power_limit_w = 0;
  int celsius = 0;
};

/// Now. `bus_id` as CardInfo has it.
CardState card_state(const std::string& bus_id);
/// "580.159.04".
std::string driver_version();

}  // namespace rk::cli
