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

/// The report's plots against time and length as images of their own.
struct NamedPlot {
  std::string name;  ///< of a file: "kl-8192", "score-8192", "kl-by-length"
  std::string svg;
};
std::vector<NamedPlot> report_plots(const Summary& summary);

}  // namespace rk::rag
