// From results to figures: per mode, task and length the scores, divergences, losses and times with
// their intervals; as JSON with everything needed to repeat the run. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rag/compare.h"
#include "rag/metrics.h"
#include "rag/results.h"

namespace rk::rag {

/// Below this many samples of a task and length a figure is called exploratory (spec A7).
constexpr int64_t kPublishedSamples = 200;

/// The name of the group of all generated tasks of a length, where there are several. Samples of
/// the user's stand apart: means over both would be of neither.
inline constexpr const char* kAllTasks = "all";

/// Named values in order.
using Fields = std::vector<std::pair<std::string, std::string>>;

/// The field that holds the head plan's classes, where a plan is no all-global one: a letter a
/// head, a slash between layers ("lg/ll": local, global, retrieval, dense).
inline constexpr const char* kHeadMapField = "head_map";

/// What shapes a result: model, build, machine, modes, seed, data. Results of different
/// configurations never stand in one file.
struct Configuration {
  Fields fields;
  std::vector<std::string> joined;  ///< hashes of what was joined, where that is several
  std::string hash() const;         ///< 16 hex digits
};

/// A figure with its 95 % bootstrap interval.
struct Figure {
  double value = 0;
  Interval interval;
};

struct Group {
  std::string mode, task;  ///< task kAllTasks: of every generated task of this length together
  int64_t length_tokens = 0;
  int64_t num_samples = 0;
  Figure score;       ///< mean; of needles or F1
  Figure score_diff;  ///< mode - dense, paired
  double exact_match = 0, f1 = 0;
  int64_t kl_samples = 0;    ///< with a dense answer of at least one token
  std::optional<Figure> kl;  ///< mean over samples of the mean over tokens
  std::optional<double> kl_p95;
  std::optional<double> same_top1;  ///< share of the dense answers' tokens
  double same_answer = 0;           ///< share of samples
  /// Needle tasks (of several tasks together: the planted facts alone, where there are any): of the
  /// samples that dense scored, those that the mode scored lower, and the exact one-sided 95 %
  /// bound of that rate. Gains elsewhere do not make up for a loss.
  int64_t needle_found = 0, needle_lost = 0;
  std::optional<double> needle_loss_bound;
  double ttft_ms = 0;                  ///< median
  Figure speedup;                      ///< median over samples of TTFT dense / mode
  std::optional<double> tokens_per_s;  ///< median
  double answer_tokens = 0;            ///< mean
  std::optional<double> length_ratio;  ///< mean answer over dense's
  double prompt_tokens = 0, prefix_cached = 0, document_cached = 0, recomputed = 0, fresh = 0;
  double flops = 0, bytes = 0;        ///< mean, up to the first token, counted by the kernels
  std::optional<double> flops_ratio;  ///< dense's over the mode's
  double predicted_flops = 0;         ///< mean, by the cost model
  double ingest_ms = 0;               ///< median, beforehand
  int64_t late_ingests = 0;           ///< samples whose TTFT held a document's computation
};

struct Summary {
  Configuration configuration;
  Fields provenance;
  std::vector<std::string> modes;
  std::vector<Group> groups;  ///< by length, then task (kAllTasks last), then mode
  std::vector<Skipped> skipped;
  int64_t num_samples = 0;
  bool exploratory = false;  ///< some group has fewer than kPublishedSamples
};

/// `results` in the order of the samples. Requires: every one has the modes of the configuration.
Summary summarize(const std::vector<const SampleResult*>& results, uint64_t seed);

/// docs/bench-rag.md says what each key means.
std::string summary_json(const Summary& summary);

}  // namespace rk::rag
