// The bench's result as one HTML page that needs nothing else: plots drawn as inline SVG, tables,
// and what is needed to repeat the run. No scripts; readable in light and dark. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "rag/results.h"
#include "rag/summary.h"

namespace rk::rag {

/// `results` are those that `summary` was made of.
std::string report_html(const Summary& summary, const std::vector<const SampleResult*>& results);

}  // namespace rk::rag
