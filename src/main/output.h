// How results are printed: JSON on one line, tables aligned. Results go to stdout, nothing else
// does.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace rk::cli {

/// Rows of "name  value", names padded to the longest.
void print_fields(const std::vector<std::pair<std::string, std::string>>& fields);

/// A table with its header first; columns as wide as their widest cell, numbers to the right.
void print_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace rk::cli
