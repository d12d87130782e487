// What `bench rag` and `bench report` leave behind and print. Main thread only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/card.h"
#include "rag/summary.h"

namespace rk::cli {

/// Writes summary.json, report.html and its plots into `folder`, and card.json where `card` is
/// given, else removes it; each whole or not at all. Errors: kUnavailable.
Status write_rag_output(const std::string& folder, const rag::Summary& summary,
                        const std::vector<const rag::SampleResult*>& results,
                        const std::optional<engine::Card>& card);

/// Writes summary.json alone, whole or not at all. Errors: kUnavailable.
Status write_rag_summary(const std::string& folder, const rag::Summary& summary);

/// Writes the results as samples.jsonl, whole or not at all. Errors: kUnavailable.
Status write_rag_samples(const std::string& folder,
                         const std::vector<const rag::SampleResult*>& results);

/// The table for people, or the summary as JSON.
void print_rag_summary(const rag::Summary& summary, const std::string& folder, bool json);

}  // namespace rk::cli
