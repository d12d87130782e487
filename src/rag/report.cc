#include "rag/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "rag/plot.h"

namespace rk::rag {
namespace {

constexpr double kKlFloor = 1e-4;  // below it modes are drawn alike
constexpr size_t kBins = 48;

constexpr const char* kStyle =
    R"(body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);margin:0 auto;
max-width:1100px;padding:1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
p.note,figcaption{color:var(--soft);font-size:.9rem}
.warn{border-left:4px solid var(--c2);padding:.3rem .8rem;background:var(--head)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:1rem}
svg{width:100%;height:auto}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;width:100%}
th,td{padding:.25rem .55rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{background:var(--head)}th.l,td.l{text-align:left}td.wrap{white-space:normal;word-break:break-word}
td small{color:var(--soft)}.legend span{margin-right:1.2rem;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
)";

std::string style() {
  std::string out = cat("<style>\n", plot_style(), kStyle);
  for (int i = 0; i < 8; ++i) out += cat(".legend .s", i, "{background:var(--c", i, ")}");
  return out + "\n</style>\n";
}

std::string length_name(int64_t tokens) {
  return short_number(static_cast<double>(tokens)) + " tokens";
}

std::string percent(double share) {
  if (!std::isfinite(share)) return "-";
  return short_number(std::round(1000 * share) / 10) + " %";
}

std::string with_interval(const Figure& f) {
  return cat(short_number(f.value), " <small>[", short_number(f.interval.low), ", ",
             short_number(f.interval.high), "]</small>");
}

template <class T>
std::string or_dash(const std::optional<T>& v) {
  if (!v) return "-";
  return short_number(*v);
}

class Page {
 public:
  Page(const Summary& summary, const std::vector<const SampleResult*>& results)
      : summary_(summary), results_(results) {
    for (size_t i = 0; i < summary.modes.size(); ++i) style_of_[summary.modes[i]] = i;
    for (const Group& g : summary.groups) lengths_.insert(g.length_tokens);
  }

  std::string html() const {
    return cat("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
               "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">",
               "<title>RedKnot: quality and speed of every mode</title>\n", style(),
               "</head><body>\n", head(), quality_against_time(), by_length(), head_map(),
               recomputed(), table(), skipped(),
               fields("Configuration", summary_.configuration.fields),
               fields("Provenance", summary_.provenance), "</body></html>\n");
  }

  std::vector<NamedPlot> plots() const {
    std::vector<NamedPlot> out;
    for (const int64_t length : lengths_) {
      const std::string name = std::to_string(length);
      out.push_back({"kl-" + name, standalone_svg(time_plot(length, true))});
      out.push_back({"score-" + name, standalone_svg(time_plot(length, false))});
    }
    if (const auto over = length_plots()) {
      out.push_back({"kl-by-length", standalone_svg(over->first)});
      out.push_back({"speedup-by-length", standalone_svg(over->second)});
    }
    return out;
  }

 private:
  // Every group of a length that speaks for all its tasks.
  std::vector<const Group*> overall(int64_t length) const {
    std::vector<const Group*> all, last;
    for (const Group& g : summary_.groups) {
      if (g.length_tokens != length) continue;
      if (g.task == kAllTasks) all.push_back(&g);
      last.push_back(&g);
    }
    return all.empty() ? last : all;
  }

  std::string head() const {
    std::string out = cat(
        "<h1>Quality and speed of every mode</h1>\n<p class=\"note\">", summary_.num_samples,
        " samples; every mode on the same token ids and the same stored documents. Dense is the "
        "baseline. Brackets and bars: 95 % bootstrap intervals, paired where differences are "
        "shown.</p>\n");
    if (summary_.exploratory) {
      out += cat("<p class=\"warn\">Exploratory: a task has fewer than ", kPublishedSamples,
                 " samples at a length. These figures decide nothing.</p>\n");
    }
    int64_t late = 0;
    for (const Group& g : summary_.groups) late += g.task == kAllTasks ? 0 : g.late_ingests;
    if (late > 0) {
      out += cat("<p class=\"warn\">", late,
                 " requests computed a document within their time to "
                 "the first token: the store was too small for the sample.</p>\n");
    }
    out += "<p class=\"legend\">";
    for (const std::string& mode : summary_.modes) {
      out += cat("<span><i class=\"s", style_of_.at(mode) % 8, "\"></i>", escape_html(mode),
                 "</span>");
    }
    return out + "</p>\n";
  }

  Plot time_plot(int64_t length, bool divergence) const {
    Plot plot{.title =
                  cat(divergence ? "Divergence from dense, " : "Score, ", length_name(length))};
    std::vector<double> xs, ys;
    for (const Group* g : overall(length)) {
      if (divergence && !g->kl) continue;
      const Figure& y = divergence ? *g->kl : g->score;
      xs.push_back(g->ttft_ms);
      ys.insert(ys.end(), {y.value, y.interval.low, y.interval.high});
      plot.series.push_back(
          {.name = g->mode,
           .style = style_of_.at(g->mode),
           .points = {{g->ttft_ms, y.value, y.interval,
                       cat(g->mode, ": ", short_number(g->ttft_ms), " ms, ",
                           divergence ? "KL " : "score ", short_number(y.value))}}});
    }
    plot.x = fit_axis("time to first token, ms (median)", true, xs);
    plot.y = divergence ? fit_axis("mean KL(dense || mode)", true, ys, kKlFloor)
                        : Axis{"mean score", false, 0, 1.02};
    return plot;
  }

  std::string quality_against_time() const {
    std::string out =
        "<h2>Quality against time to the first token</h2>\n<p class=\"note\">Left and low is good "
        "for the divergence, left and high for the score. A KL below 0.0001 is drawn at the "
        "floor.</p>\n<div class=\"plots\">\n";
    for (const int64_t length : lengths_) {
      out += svg(time_plot(length, true)) + svg(time_plot(length, false));
    }
    return out + "</div>\n";
  }

  std::string by_length() const {
    const auto plots = length_plots();
    if (!plots) return "";
    return cat("<h2>By length</h2>\n<div class=\"plots\">\n", svg(plots->first), svg(plots->second),
               "</div>\n");
  }

  // Divergence and speed-up over the lengths of the generators, where there are several.
  std::optional<std::pair<Plot, Plot>> length_plots() const {
    std::set<int64_t> lengths = lengths_;
    lengths.erase(0);
    if (lengths.size() < 2) return std::nullopt;
    Plot kl{.title = "Divergence from dense by length"}, speed{.title = "Speed-up by length"};
    std::vector<double> xs(lengths.begin(), lengths.end()), kls, speeds;
    for (const std::string& mode : summary_.modes) {
      PlotSeries a{.name = mode, .style = style_of_.at(mode), .line = true}, b = a;
      for (const int64_t length : lengths) {
        for (const Group* g : overall(length)) {
          if (g->mode != mode) continue;
          const auto x = static_cast<double>(length);
          const std::string where = cat(mode, ", ", length_name(length), ": ");
          if (g->kl) {
            a.points.push_back(
                {x, g->kl->value, g->kl->interval, where + "KL " + short_number(g->kl->value)});
            kls.insert(kls.end(), {g->kl->value, g->kl->interval.low, g->kl->interval.high});
          }
          b.points.push_back({x, g->speedup.value, g->speedup.interval,
                              where + short_number(g->speedup.value) + "x"});
          speeds.insert(speeds.end(),
                        {g->speedup.value, g->speedup.interval.low, g->speedup.interval.high});
        }
      }
      kl.series.push_back(std::move(a));
      speed.series.push_back(std::move(b));
    }
    kl.x = speed.x = fit_axis("prompt tokens", true, xs);
    kl.y = fit_axis("mean KL(dense || mode)", true, kls, kKlFloor);
    speed.y = fit_axis("TTFT dense / mode (median)", true, speeds);
    return std::pair(std::move(kl), std::move(speed));
  }

  // Layers from left to right, KV heads from top to bottom.
  std::string head_map() const {
    constexpr int kCell = 12;
    for (const auto& [name, map] : summary_.configuration.fields) {
      if (name != kHeadMapField) continue;
      std::string cells;
      int x = 0, y = 0, rows = 0;
      for (const char c : map) {
        if (c == '/') {
          x += kCell;
          y = 0;
          continue;
        }
        const int colour = c == 'l' ? 6 : c == 'g' ? 2 : c == 'r' ? 5 : 0;
        cells += cat("<rect class=\"s", colour, "\" x=\"", x, "\" y=\"", y, "\" width=\"",
                     kCell - 1, "\" height=\"", kCell - 1, "\"/>");
        y += kCell;
        rows = std::max(rows, y);
      }
      return cat(
          "<h2>Head map</h2>\n<p class=\"note legend\"><span><i class=\"s2\"></i>global"
          "</span><span><i class=\"s6\"></i>local</span><span><i class=\"s5\"></i>retrieval"
          "</span><span><i class=\"s0\"></i>dense</span> a column a layer, a row a KV head"
          "</p>\n<svg viewBox=\"0 0 ",
          x + kCell, " ", rows,
          "\" role=\"img\" aria-label=\"Head "
          "map\" style=\"max-width:",
          x + kCell, "px\">", cells, "</svg>\n");
    }
    return "";
  }

  // Share of rows recomputed in each of kBins parts of the prompt, mean over samples.
  std::vector<double> recomputed_share(const std::string& name) const {
    std::vector<double> share(kBins, 0);
    int64_t samples = 0;
    for (const SampleResult* r : results_) {
      const ModeResult* ran = r->find(name);
      if (ran == nullptr || ran->recomputed_at.empty()) continue;
      ++samples;
      const double bin = static_cast<double>(r->prompt_tokens) / static_cast<double>(kBins);
      for (const auto& [begin, end] : ran->recomputed_at) {
        for (size_t i = 0; i < kBins; ++i) {
          const double from = std::max(static_cast<double>(begin), bin * static_cast<double>(i));
          const double to = std::min(static_cast<double>(end), bin * static_cast<double>(i + 1));
          if (to > from) share[i] += (to - from) / bin;
        }
      }
    }
    if (samples == 0) return {};
    for (double& s : share) s /= static_cast<double>(samples);
    return share;
  }

  std::string recomputed() const {
    std::string plots;
    for (size_t mode = 0; mode < summary_.modes.size(); ++mode) {
      const std::vector<double> share = recomputed_share(summary_.modes[mode]);
      if (share.empty()) continue;
      PlotSeries series{.name = summary_.modes[mode], .style = mode, .line = true};
      for (size_t i = 0; i < kBins; ++i) {
        const double at = (static_cast<double>(i) + 0.5) / static_cast<double>(kBins);
        series.points.push_back({at, share[i], {}, cat(percent(share[i]), " of the rows")});
      }
      std::vector<double> ys = share;
      ys.push_back(0);
      Plot plot{.title = "Recomputed rows: " + summary_.modes[mode]};
      plot.x = {"place in the prompt", false, 0, 1};
      plot.y = fit_axis("share of rows", false, ys);
      plot.series.push_back(std::move(series));
      plots += svg(plot);
    }
    if (plots.empty()) return "";
    return cat(
        "<h2>Where rows were recomputed</h2>\n<p class=\"note\">Mean over all samples; 0 is "
        "the prompt's start.</p>\n<div class=\"plots\">\n",
        plots, "</div>\n");
  }

  std::string row(const Group& g) const {
    std::string needle = "-";
    if (g.needle_loss_bound) {
      needle = cat(g.needle_lost, " of ", g.needle_found, " <small>&le; ",
                   percent(*g.needle_loss_bound), "</small>");
    }
    const double active = g.recomputed / std::max(g.prompt_tokens, 1.0);
    std::string out = cat("<tr><td class=\"l\">", escape_html(length_name(g.length_tokens)),
                          "</td><td class=\"l\">", escape_html(g.task), "</td><td class=\"l\">",
                          escape_html(g.mode), "</td>");
    const std::string cells[] = {
        std::to_string(g.num_samples),
        with_interval(g.score),
        with_interval(g.score_diff),
        g.kl ? with_interval(*g.kl) : "-",
        or_dash(g.kl_p95),
        g.same_top1 ? percent(*g.same_top1) : "-",
        percent(g.same_answer),
        needle,
        short_number(g.ttft_ms),
        with_interval(g.speedup),
        or_dash(g.flops_ratio),
        or_dash(g.tokens_per_s),
        cat(short_number(g.answer_tokens), " <small>", or_dash(g.length_ratio), "x</small>"),
        percent(active)};
    for (const std::string& cell : cells) out += "<td>" + cell + "</td>";
    return out + "</tr>\n";
  }

  std::string table() const {
    std::string out =
        "<h2>All figures</h2>\n<div class=\"scroll\"><table><thead><tr>"
        "<th class=\"l\">length</th><th class=\"l\">task</th><th class=\"l\">mode</th><th>n</th>"
        "<th>score</th><th>score - dense</th><th>KL mean</th><th>KL p95</th><th>same top token</th>"
        "<th>same answer</th><th>needles lost</th><th>TTFT ms</th><th>speed-up</th><th>less "
        "work</th>"
        "<th>tokens/s</th><th>answer tokens</th><th>recomputed</th></tr></thead><tbody>\n";
    for (const Group& g : summary_.groups) out += row(g);
    return out +
           "</tbody></table></div>\n<p class=\"note\">Needles lost: of the samples that dense "
           "scored, those that the mode scored lower, with the exact one-sided 95 % bound of "
           "the rate. TTFT and speed-up are medians. Less work: FLOPs of dense up to the first "
           "token "
           "over the mode's. Answer tokens: mean, and over dense's.</p>\n";
  }

  std::string skipped() const {
    if (summary_.skipped.empty()) return "";
    std::string out =
        cat("<h2>Skipped</h2>\n<p>", summary_.skipped.size(), " samples did not fit.</p>\n<ul>\n");
    constexpr size_t kShown = 20;
    for (size_t i = 0; i < std::min(kShown, summary_.skipped.size()); ++i) {
      out += cat("<li>", escape_html(summary_.skipped[i].id), ": ",
                 escape_html(summary_.skipped[i].why), "</li>\n");
    }
    if (summary_.skipped.size() > kShown) out += "<li>...</li>\n";
    return out + "</ul>\n";
  }

  static std::string fields(const char* title, const Fields& fields) {
    if (fields.empty()) return "";
    std::string out = cat("<h2>", title, "</h2>\n<table><tbody>\n");
    for (const auto& [name, value] : fields) {
      out += cat("<tr><th class=\"l\">", escape_html(name), "</th><td class=\"l wrap\">",
                 escape_html(value), "</td></tr>\n");
    }
    return out + "</tbody></table>\n";
  }

  const Summary& summary_;
  const std::vector<const SampleResult*>& results_;
  std::map<std::string, size_t> style_of_;
  std::set<int64_t> lengths_;
};

}  // namespace

std::vector<NamedPlot> report_plots(const Summary& summary) { return Page(summary, {}).plots(); }

std::string report_html(const Summary& summary, const std::vector<const SampleResult*>& results) {
  return Page(summary, results).html();
}

}  // namespace rk::rag
