#include "main/version.h"

#include "base/cpu.h"
#include "base/status.h"
#include "main/build_info.h"

namespace rk::cli {

std::string version() { return build_info::kVersion; }

std::string commit() { return build_info::kCommit; }

std::string version_text() {
  const std::string cuda = build_info::kCudaToolkit;
  const std::string sanitizers = build_info::kSanitizers;
  return cat("redknot ", version(), "\ncommit    ", commit(), "\ncompiler  ", build_info::kCompiler,
             ", ", build_info::kBuildType, sanitizers.empty() ? "" : ", sanitizers ", sanitizers,
             "\ncuda      ", cuda.empty() ? "not built in" : cat("toolkit ", cuda),
             "\nfeatures  cpu", cuda.empty() ? "" : ", cuda", "\nthis CPU  ", cpu_feature_names());
}

}  // namespace rk::cli
