#include "rag/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/status.h"

namespace rk::rag {
namespace {

constexpr double kWidth = 440, kHeight = 300, kLeft = 58, kRight = 14, kTop = 30, kBottom = 46;
constexpr double kMarker = 5;
constexpr double kLegend = 120, kLegendRow = 17;

struct Colours {
  const char *text, *back, *soft, *line, *head;
  const char* series[8];
};
constexpr Colours kLight = {
    "#1b1e23",
    "#fff",
    "#667",
    "#d8dce2",
    "#f3f5f8",
    {"#3b3f46", "#0072b2", "#c14a00", "#00805c", "#a8518a", "#9a6a00", "#2f7fb8", "#7a5cc0"}};
constexpr Colours kDark = {
    "#e4e7ec",
    "#15181d",
    "#9aa3b0",
    "#343a44",
    "#1e232b",
    {"#d0d4da", "#5db3ea", "#ff8c4a", "#3fcf9f", "#e69ac8", "#f0b93a", "#8fc6ee", "#b7a0f2"}};
constexpr const char* kShapes =
    "svg{font:11px system-ui,sans-serif}svg .title{font-weight:600;font-size:12.5px}"
    "svg .bar{stroke-width:1.6;opacity:.75}svg polyline{fill:none;stroke-width:2}\n";

std::string variables(const Colours& c) {
  std::string out = cat(":root{color-scheme:light dark;--text:", c.text, ";--back:", c.back,
                        ";--soft:", c.soft, ";--line:", c.line, ";--head:", c.head);
  for (int i = 0; i < 8; ++i) out += cat(";--c", i, ":", c.series[i]);
  return out + "}\n";
}

// Without variables: not every program that draws SVG knows them.
std::string literal_style(const Colours& c) {
  std::string out = cat("svg text{fill:", c.text, "}.back{fill:", c.back, "}.grid{stroke:", c.line,
                        "}.axis{stroke:", c.soft, "}");
  for (int i = 0; i < 8; ++i) {
    out += cat(".s", i, "{fill:", c.series[i], ";stroke:", c.series[i], "}");
  }
  return out + "\n";
}
constexpr size_t kMaxMarkers = 16;  // of a line

double place(const Axis& axis, double value) {
  const double v = std::clamp(value, axis.low, axis.high);
  if (axis.logarithmic) return std::log(v / axis.low) / std::log(axis.high / axis.low);
  return (v - axis.low) / (axis.high - axis.low);
}

std::string pixel(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", v);
  return text;
}

double x_of(const Plot& plot, double v) {
  return kLeft + place(plot.x, v) * (kWidth - kLeft - kRight);
}
double y_of(const Plot& plot, double v) {
  return kHeight - kBottom - place(plot.y, v) * (kHeight - kTop - kBottom);
}

std::string text_at(double x, double y, const char* anchor, const std::string& text,
                    const char* extra = "") {
  return cat("<text x=\"", pixel(x), "\" y=\"", pixel(y), "\" text-anchor=\"", anchor, "\"", extra,
             ">", escape_html(text), "</text>");
}

std::string line(double x1, double y1, double x2, double y2, const std::string& css) {
  return cat("<line class=\"", css, "\" x1=\"", pixel(x1), "\" y1=\"", pixel(y1), "\" x2=\"",
             pixel(x2), "\" y2=\"", pixel(y2), "\"/>");
}

// A shape of its own for each style, so that colour is not all that tells modes apart.
std::string marker(double x, double y, size_t style) {
  const auto polygon = [&](std::initializer_list<std::pair<double, double>> corners) {
    std::string points;
    for (const auto& [dx, dy] : corners) {
      points += cat(points.empty() ? "" : " ", pixel(x + dx), ",", pixel(y + dy));
    }
    return cat("<polygon points=\"", points, "\"/>");
  };
  const double r = kMarker;
  switch (style % 6) {
    case 0:
      return cat("<circle cx=\"", pixel(x), "\" cy=\"", pixel(y), "\" r=\"", pixel(r), "\"/>");
    case 1:
      return polygon({{-r, -r}, {r, -r}, {r, r}, {-r, r}});
    case 2:
      return polygon({{0, -r - 1}, {r + 1, r}, {-r - 1, r}});
    case 3:
      return polygon({{0, -r - 1}, {r + 1, 0}, {0, r + 1}, {-r - 1, 0}});
    case 4:
      return polygon({{0, r + 1}, {r + 1, -r}, {-r - 1, -r}});
    default:  // a bow tie
      return polygon({{-r, -r}, {-r, r}, {r, -r}, {r, r}});
  }
}

std::string axes(const Plot& plot) {
  std::string out;
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  for (const double tick : axis_ticks(plot.x)) {
    const double x = x_of(plot, tick);
    out += line(x, kTop, x, bottom, "grid") + text_at(x, bottom + 15, "middle", short_number(tick));
  }
  for (const double tick : axis_ticks(plot.y)) {
    const double y = y_of(plot, tick);
    out += line(kLeft, y, right, y, "grid") + text_at(kLeft - 6, y + 4, "end", short_number(tick));
  }
  out += line(kLeft, bottom, right, bottom, "axis") + line(kLeft, kTop, kLeft, bottom, "axis");
  out += text_at((kLeft + right) / 2, kHeight - 8, "middle", plot.x.label);
  const double middle = (kTop + bottom) / 2;
  out += text_at(13, middle, "middle", plot.y.label,
                 cat(" transform=\"rotate(-90 13 ", pixel(middle), ")\"").c_str());
  out += text_at(kLeft, 18, "start", plot.title, " class=\"title\"");
  return out;
}

std::string draw(const Plot& plot, const PlotSeries& series) {
  std::string out = cat("<g class=\"s", series.style % 8, "\">");
  if (series.line) {
    std::string points;
    for (const PlotPoint& p : series.points) {
      points += cat(points.empty() ? "" : " ", pixel(x_of(plot, p.x)), ",", pixel(y_of(plot, p.y)));
    }
    out += cat("<polyline points=\"", points, "\"/>");
  }
  if (series.line && series.points.size() > kMaxMarkers) return out + "</g>";
  for (const PlotPoint& p : series.points) {
    const double x = x_of(plot, p.x);
    out += cat("<g><title>", escape_html(p.hint), "</title>");
    if (p.y_interval) {
      out += line(x, y_of(plot, p.y_interval->low), x, y_of(plot, p.y_interval->high), "bar");
    }
    out += marker(x, y_of(plot, p.y), series.style) + "</g>";
  }
  return out + "</g>";
}

}  // namespace

Axis fit_axis(const std::string& label, bool logarithmic, const std::vector<double>& values,
              double floor) {
  std::vector<double> good;
  for (const double v : values) {
    if (std::isfinite(v)) good.push_back(logarithmic ? std::max(v, floor) : v);
  }
  if (good.empty()) good.push_back(logarithmic ? std::max(floor, 1.0) : 0);
  const auto [low, high] = std::minmax_element(good.begin(), good.end());
  if (logarithmic) {
    const double least = std::max(*low, 1e-12), most = std::max(*high, least);
    return {label, true, std::max(least / 1.25, floor > 0 ? floor : 1e-12),
            std::max(most * 1.25, least * 2)};
  }
  const double room = std::max((*high - *low) * 0.08, 1e-9);
  if (*high == *low) return {label, false, *low - 0.5, *high + 0.5};
  return {label, false, *low - room, *high + room};
}

std::vector<double> axis_ticks(const Axis& axis) {
  std::vector<double> ticks;
  if (axis.logarithmic) {
    const bool decades_only = axis.high / axis.low > 300;
    for (double decade = std::pow(10, std::floor(std::log10(axis.low))); decade <= axis.high;
         decade *= 10) {
      for (const double step : {1.0, 2.0, 5.0}) {
        const double tick = decade * step;
        if (step > 1 && decades_only) continue;
        if (tick >= axis.low * 0.999 && tick <= axis.high * 1.001) ticks.push_back(tick);
      }
    }
    return ticks;
  }
  const double span = axis.high - axis.low;
  double step = std::pow(10, std::floor(std::log10(span / 4)));
  while (span / step > 8) step *= span / step > 16 ? 5 : 2;
  for (double i = std::ceil(axis.low / step); i * step <= axis.high * 1.0001; ++i) {
    ticks.push_back(i * step);
  }
  return ticks;
}

std::string svg(const Plot& plot) {
  std::string out =
      cat("<svg viewBox=\"0 0 ", kWidth, " ", kHeight, "\" role=\"img\" aria-label=\"",
          escape_html(plot.title), "\">", axes(plot));
  for (const PlotSeries& series : plot.series) out += draw(plot, series);
  return out + "</svg>\n";
}

std::string plot_style() {
  std::string out = cat(variables(kLight), "@media (prefers-color-scheme:dark){", variables(kDark),
                        "}\n", kShapes,
                        "svg text{fill:var(--text)}svg .grid{stroke:var(--line)}"
                        "svg .axis{stroke:var(--soft)}");
  for (int i = 0; i < 8; ++i) {
    out += cat("svg .s", i, "{fill:var(--c", i, ");stroke:var(--c", i, ")}");
  }
  return out + "\n";
}

std::string standalone_svg(const Plot& plot) {
  std::string out =
      cat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", kWidth + kLegend, " ",
          kHeight, "\" width=\"", 1.4 * (kWidth + kLegend), "\">\n<style>\n", kShapes,
          literal_style(kLight), "@media (prefers-color-scheme:dark){\n", literal_style(kDark),
          "}\n", "</style>\n<rect width=\"100%\" height=\"100%\" class=\"back\"/>\n", axes(plot));
  double y = kTop + 10;
  for (const PlotSeries& series : plot.series) {
    out += draw(plot, series);
    out += cat("<g class=\"s", series.style % 8, "\">", marker(kWidth + 8, y - 4, series.style),
               "</g>", text_at(kWidth + 20, y, "start", series.name));
    y += kLegendRow;
  }
  return out + "</svg>\n";
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::abs(value);
  if (size < 1e-9) return "0";
  if (size < 1e-4 || size >= 1e9) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", value);
    return text;
  }
  const int whole = static_cast<int>(std::floor(std::log10(size)));
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", std::clamp(2 - whole, 0, 6), value);
  std::string out = text;
  if (out.find('.') != std::string::npos) {
    out.erase(out.find_last_not_of('0') + 1);
    if (out.back() == '.') out.pop_back();
  }
  for (size_t i = std::min(out.find('.'), out.size()); i > 3; i -= 3) {
    if (out[i - 4] == '-') break;
    out.insert(i - 3, ",");
  }
  return out;
}

}  // namespace rk::rag
