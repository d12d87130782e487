// Runs a sample in every mode on identical token ids and measures each beside dense.
//
// For every sample the store starts empty. Its documents are computed and stored once, timed apart;
// then every mode answers from that same store and leaves nothing in it, in an order that rotates
// from sample to sample. Last, each mode predicts along the dense answer's tokens, on the path and
// the rows that it answers with, and its distributions are compared with those of dense.
// One thread, the engine's.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/service.h"
#include "rag/mode_spec.h"
#include "rag/results.h"
#include "rag/tasks.h"

namespace rk::rag {

/// The model under test, as far as the bench needs it.
struct Subject {
  engine::Runner* engine = nullptr;
  /// Logits of the last `num_rows` prompt rows, from the path that answers (Engine::evaluate).
  std::function<Status(const engine::Request& request, int64_t num_rows,
                       std::vector<float>& logits)>
      evaluate;
  std::function<void()> clear_store;  ///< forgets every stored row
  /// Called before each timed run: what reading documents at rest takes is part of it. May be
  /// empty.
  std::function<void()> drop_expanded = {};
  std::function<Result<std::vector<engine::PromptSpan>>(const std::string& question,
                                                        const std::vector<Document>& documents)>
      make_prompt;
  std::function<std::string(std::span<const int32_t>)> decode;
};

struct CompareOptions {
  std::vector<ModeSpec> modes;  ///< dense first
  int max_tokens = 32;
  std::vector<int32_t> stop_tokens;
  std::vector<int32_t> company;  ///< as Request's, as is company_pieces
  int company_pieces = 1;
  /// Share of the documents after the first that are stored behind the one that precedes them, as
  /// an engine learns it from prompts that recur; which ones depends on seed and sample.
  double predecessors = 0;
  uint64_t seed = 0;
  std::string config;  ///< written into every result
};

/// A sample that is made when its turn comes. `id` is known before, to skip what is done.
struct SampleSource {
  std::string id;
  size_t turn = 0;  ///< rotates the order of the modes
  std::function<Result<Sample>()> make;
};

struct Skipped {
  std::string id, why;
};

class Comparer {
 public:
  Comparer(const Subject& subject, const CompareOptions& options)
      : subject_(subject), options_(options) {}

  /// One sample. `turn` rotates the order of the modes.
  /// Errors: kExhausted for a prompt that does not fit the model's context with its answer; the
  /// engine's; kInternal for distributions that are not finite.
  Result<SampleResult> compare(const Sample& sample, size_t turn);

 private:
  struct Timed;
  Status warm_up(const std::vector<engine::PromptSpan>& spans);
  Status check_fits(const std::vector<engine::PromptSpan>& spans) const;
  engine::Request request(const std::vector<engine::PromptSpan>& spans) const;
  Result<double> ingest(const std::vector<engine::PromptSpan>& spans);
  Status learn_predecessors(const std::vector<engine::PromptSpan>& spans, const std::string& id);
  Status time_mode(const std::vector<engine::PromptSpan>& spans, size_t mode, const Sample& sample,
                   Timed& timed, ModeResult& result);
  Status follow(const std::vector<engine::PromptSpan>& spans, size_t mode, const Timed& dense,
                const Timed& own, ModeResult& result);

  Subject subject_;
  CompareOptions options_;
  bool warm_ = false;
  double distribution_ms_ = 0;  ///< what handing out one costs the engine, measured when warm
};

/// Told before every sample, and once at the end with `done` = `total`.
using OnSample = std::function<void(size_t done, size_t total, const std::string& id)>;

/// All samples that `file` does not have yet, in order. Samples that do not fit (kExhausted) are
/// skipped and returned. Errors: those of Comparer::compare (what is done stays in the file);
/// kInvalidArgument where none fitted.
Result<std::vector<Skipped>> compare_all(const std::vector<SampleSource>& sources,
                                         const Subject& subject, const CompareOptions& options,
                                         ResultsFile& file, const OnSample& on_sample);

}  // namespace rk::rag
