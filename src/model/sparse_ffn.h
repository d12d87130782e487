// Sparse FFN (spec A6): the rows of a step that run a layer's FFN; the others keep their residual.
// Rows matter by the norm of their attention output in this very layer. Pure; knows no documents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rk::model {

/// Rows of a step that are ranked among each other.
struct FfnStretch {
  int32_t begin = 0, end = 0;
  int32_t kept_begin = 0;  ///< rows from here to the end run it anyway; in [begin, end]
};

struct SparseFfn {
  double threshold = 1;  ///< share of a stretch's importance that its chosen rows make up
  int dense_layers = 0;  ///< the first so many layers run the FFN on every row
  std::vector<FfnStretch> stretches;  ///< ascending and apart; rows outside always run it
  int64_t* num_skipped = nullptr;     ///< counts up what was left out
};

/// Ascending indices of the rows to keep: those of largest importance (ties: the lower index) until
/// they make up `threshold` of the sum, the one that crosses it included; and the last
/// `num_recent`. All rows for a threshold of 1 or more, for importances that are all zero or not
/// finite.
std::vector<int32_t> select_ffn_rows(std::span<const double> importance, double threshold,
                                     int64_t num_recent);

/// Rows of the step that run the FFN, ascending. `importance` is per row of the step.
std::vector<int32_t> ffn_rows(const SparseFfn& sparse, std::span<const double> importance);

}  // namespace rk::model
