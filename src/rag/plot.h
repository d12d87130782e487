// A small plot as inline SVG: points with bars for their intervals, or lines, on linear or
// logarithmic axes. Colours come from CSS classes s0..s7 (plot_style). Pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "rag/metrics.h"

namespace rk::rag {

struct Axis {
  std::string label;
  bool logarithmic = false;
  double low = 0, high = 1;  ///< values outside are drawn at the edge
};

struct PlotPoint {
  double x = 0, y = 0;
  std::optional<Interval> y_interval;
  std::string hint;  ///< shown when pointed at
};

struct PlotSeries {
  std::string name;
  size_t style = 0;  ///< colour and shape
  bool line = false;
  std::vector<PlotPoint> points;
};

struct Plot {
  std::string title;
  Axis x, y;
  std::vector<PlotSeries> series;
};

/// An axis from the values it must hold, a little wider; logarithmic ones start at `floor` at
/// least.
Axis fit_axis(const std::string& label, bool logarithmic, const std::vector<double>& values,
              double floor = 0);

/// Ticks at round values, at most about eight.
std::vector<double> axis_ticks(const Axis& axis);

std::string svg(const Plot& plot);
/// The same as an image of its own, with its colours and a legend.
std::string standalone_svg(const Plot& plot);
/// CSS that svg() needs in the page around it; dark where the reader's page is.
std::string plot_style();

/// Text made safe between tags and inside quoted attributes.
std::string escape_html(std::string_view text);

/// Up to three significant digits, no exponent where it can be avoided: "0.0421", "1,240".
std::string short_number(double value);

}  // namespace rk::rag
