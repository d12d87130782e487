// Results of several folders of `bench rag` as one: shards of a run, runs at several lengths. Only
// what was measured on the same model, in the same way, may stand together. No threads.
#pragma once

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
  std::vector<SampleResult> results;  ///< by length, task and number; of the modes that all have
  uint64_t seed = 0;
};

/// Reads samples.jsonl and, where it is there, summary.json of each folder; at least one must have
/// a summary. Half a line at the end of a file is left out, a sample met again too.
/// Errors: kInvalidArgument naming the field where the folders differ in model, plan, company,
/// stored rows, documents, known predecessors or answer length; kNotFound; kDataLoss.
Result<Joined> read_results(std::span<const std::string> folders);

/// Times of `alone`, a run that had the machine to itself, in place of `summary`'s: those of all
/// tasks of a length together. Errors: kInvalidArgument naming a mode and length that it lacks.
Status take_times(const Summary& alone, Summary& summary);

/// Whose card this would be, and at which fit. Errors: kInvalidArgument for a mixture of fits.
engine::CardIdentity identity_of(const Configuration& configuration);
Result<engine::Fit> fit_of(const Configuration& configuration);

}  // namespace rk::rag
