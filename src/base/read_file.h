// A whole file into memory, with a bound. No threads.
#pragma once

#include <cstddef>
#include <string>

#include "base/status.h"

namespace rk {

/// Errors: kNotFound; kInvalidArgument with both numbers beyond `max_bytes`; kUnavailable with the
/// system's reason for what is there and cannot be read.
Result<std::string> read_file(const std::string& path, size_t max_bytes);

}  // namespace rk
