// Results of several folders of `bench rag` as one: shards of a run, runs at several lengths. Only
// what was measured on the same model, in the same way, may stand together. No threads.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/card.h"
#include "rag/results.h"
#include "rag/summary.h"

namespace rk::rag {

struct Joined {
  Configuration configuration;  ///< a field that differs between the folders names all values
  Fields provenance;
  std::vector<SampleResult> results;  ///< by length, task and number; each begins with dense
  uint64_t seed = 0;
};

/// Takes folders one by one, as texts. One without a summary must be of a configuration that
/// another one's summary has. Half a line at the end of samples is left out. Of a sample met again
/// the modes that are new stay, beside the dense answer of their own run.
class Joiner {
 public:
  /// samples.jsonl and, where it is there, summary.json; `folder` for messages. Errors: kDataLoss;
  /// kInvalidArgument naming the field where the folders differ in model, plan, company, stored
  /// rows, documents, known predecessors or answer length, and a sample that does not begin with
  /// dense. No use after one.
  Status add(const std::string& folder, const std::string& samples, const std::string* summary);
  /// Errors: kNotFound without any summary; kInvalidArgument for a sample of a configuration that
  /// no summary has.
  Result<Joined> done() &&;

 private:
  Status add_samples(const std::string& path, const std::string& text);
  void add_result(SampleResult result);
  Status add_summary(const std::string& folder, const std::string& text);
  Joined out_;
  std::map<std::string, std::set<std::string>> known_;  ///< modes of each sample
  std::set<std::string> hashes_;                        ///< of the summaries' configurations
  std::map<std::string, std::string> configs_;  ///< that samples name, and which named it first
};

/// Joins the folders' files. Errors: those of Joiner and read_file().
Result<Joined> read_results(std::span<const std::string> folders);

/// Times of `alone`, a run that had the machine to itself, in place of `summary`'s: those of all
/// tasks of a length together. Errors: kInvalidArgument naming a mode and length that it lacks.
Status take_times(const Summary& alone, Summary& summary);

/// Planted facts found and lost as `facts`, a run of that task alone, has them, in the groups of
/// all tasks together: more samples of the one task that decides a bound, without their weight in
/// the means. Modes and lengths that it lacks keep their own. Errors: kInvalidArgument where it has
/// none.
Status take_facts(const Summary& facts, Summary& summary);

/// Whose card this would be, and at which fit. Errors: kInvalidArgument for a mixture of fits.
engine::CardIdentity identity_of(const Configuration& configuration);
Result<engine::Fit> fit_of(const Configuration& configuration);

}  // namespace rk::rag
