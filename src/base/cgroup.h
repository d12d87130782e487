// Limits that a container or service manager put on this process, read from the control group
// files (v2, and v1 where that is mounted). Missing files mean no limit. Thread-safe.
#pragma once

#include <cstdint>
#include <optional>

namespace rk {

struct CgroupLimits {
  std::optional<double> cores;          ///< CPU quota divided by its period
  std::optional<int64_t> memory_bytes;  ///< smallest room left (limit less what is in use)
};

/// The tightest limits of this process's group and its parents.
CgroupLimits cgroup_limits();

}  // namespace rk
