// Samples from a file of the user's: JSON lines, each
//
//   {"id": "q1", "question": "...", "answers": ["..."], "documents": ["...", {"title","text"}]}
//
// Further fields are ignored. Pure but for reading the file.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "rag/tasks.h"

namespace rk::rag {

struct DatasetLimits {
  int64_t max_samples = 0;  ///< the first ones; 0: all
  int64_t max_line_bytes = 64 << 20;
  int64_t max_documents = 10'000;  ///< of a sample
  int64_t max_samples_in_file = 1'000'000;
};

/// Blank lines are skipped. The same document twice in a sample is allowed, an id twice is not.
/// Errors, each naming file, line and field: kNotFound; kInvalidArgument for what is no JSON, a
/// missing, mistyped or empty field, an id used twice (both lines), and what exceeds the limits.
Result<std::vector<Sample>> read_samples(const std::string& path, const DatasetLimits& limits = {});

}  // namespace rk::rag
