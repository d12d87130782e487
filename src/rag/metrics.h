// What the bench measures, and how sure it is: answers against expected ones, distributions against
// dense ones, intervals. Pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rk::rag {

// Answers.

/// As SQuAD's script does: lower case, ASCII punctuation dropped, the words a, an, the dropped, one
/// space between words.
std::string normalize_answer(std::string_view text);
/// Best over `answers`, 0 or 1: equal after normalisation.
double exact_match(std::string_view answer, std::span<const std::string> answers);
/// Best over `answers`: harmonic mean of precision and recall over the words, counted with repeats.
double answer_f1(std::string_view answer, std::span<const std::string> answers);
/// Share of `expected` that stand in `answer` as whole words, in any order; case and punctuation do
/// not matter, "1,234" is 1234. Requires: expected is not empty.
double needle_score(std::string_view answer, std::span<const std::string> expected);

// Statistics.

double mean(std::span<const double> values);  ///< NaN where there are none
/// Linear between neighbours, as numpy's default; `share` in [0, 1]. NaN where there are none.
double quantile(std::span<const double> values, double share);

struct Interval {
  double low = 0, high = 0;
};
/// 95 % percentile bootstrap of `statistic` over `values` drawn with replacement. For a paired
/// interval pass the differences of the pairs. Deterministic in `seed`. NaN for no values.
using Statistic = std::function<double(std::span<const double>)>;
Interval bootstrap(std::span<const double> values, const Statistic& statistic, uint64_t seed,
                   int resamples = 2000);

/// Exact one-sided upper bound (Clopper-Pearson) of a rate seen `hits` times in `trials`. 1 where
/// nothing was tried. Requires: 0 <= hits <= trials.
double rate_upper_bound(int64_t hits, int64_t trials, double confidence = 0.95);

}  // namespace rk::rag
