// What this build is. Immutable.
#pragma once

#include <string>

namespace rk::cli {

/// "0.1.0".
std::string version();
/// The commit this was built from, "-dirty" appended where the tree had changes.
std::string commit();
/// What `redknot --version` prints: version, commit, compilers, CUDA, features; several lines.
std::string version_text();

}  // namespace rk::cli
