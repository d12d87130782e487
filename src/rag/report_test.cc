#include "rag/report.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>

#include "rag/plot.h"

namespace rk::rag {
namespace {

namespace json = boost::json;

SampleResult sample(int i, int64_t length, const std::string& task) {
  SampleResult r{.id = cat(task, "-", length, "-", i), .task = task, .config = "c"};
  r.length_tokens = length;
  r.prompt_tokens = 96;
  r.needle = task != "data";
  r.ingest_ms = 5;
  const bool lost = i == 0;
  r.modes = {{.mode = "dense",
              .answer_tokens = 4,
              .score = i == 3 ? 0.0 : 1.0,
              .kl = 0,
              .kl_tokens = 4,
              .same_top1 = 4,
              .same_answer = true,
              .ttft_ms = 100,
              .tokens_per_s = 10},
             {.mode = "reuse<b>",
              .answer_tokens = 6,
              .score = lost ? 0.0 : 1.0,
              .kl = 0.1 * i,
              .kl_tokens = 4,
              .same_top1 = 3,
              .same_answer = !lost,
              .ttft_ms = 20.0 + i,
              .recomputed = 24,
              .recomputed_at = {{48, 72}}}};
  return r;
}

struct Made {
  std::vector<SampleResult> samples;
  std::vector<const SampleResult*> results;
  Summary summary;
};

Made make() {
  Made m;
  for (const int64_t length : {1024, 4096}) {
    for (const char* task : {"mk", "cwe"}) {
      for (int i = 0; i < 4; ++i) m.samples.push_back(sample(i, length, task));
    }
  }
  for (const auto& s : m.samples) m.results.push_back(&s);
  m.summary = summarize(m.results, 3);
  m.summary.configuration.fields = {{"model", "tiny & <small>"}, {"seed", "3"}};
  m.summary.provenance = {{"command", "redknot bench rag"}};
  return m;
}

TEST(Summary, GroupsByLengthTaskAndMode) {
  const Made m = make();
  ASSERT_EQ(m.summary.groups.size(), 2U * 3U * 2U);
  const Group& g = m.summary.groups[1];  // mk, 1024, reuse
  EXPECT_EQ(g.mode, "reuse<b>");
  EXPECT_EQ(g.task, "mk");
  EXPECT_EQ(g.num_samples, 4);
  EXPECT_DOUBLE_EQ(g.score.value, 0.75);
  EXPECT_DOUBLE_EQ(g.score_diff.value, 0);  // one lost, one won
  EXPECT_EQ(g.needle_found, 3);             // of dense
  EXPECT_EQ(g.needle_lost, 1);              // a win elsewhere does not make up for it
  EXPECT_NEAR(*g.needle_loss_bound, rate_upper_bound(1, 3), 1e-12);
  EXPECT_NEAR(g.kl->value, 0.15, 1e-12);
  EXPECT_NEAR(*g.kl_p95, 0.285, 1e-12);
  EXPECT_LE(g.kl->interval.low, 0.15);
  EXPECT_GE(g.kl->interval.high, 0.15);
  EXPECT_DOUBLE_EQ(*g.same_top1, 0.75);
  EXPECT_DOUBLE_EQ(g.same_answer, 0.75);
  EXPECT_DOUBLE_EQ(g.ttft_ms, 21.5);
  EXPECT_NEAR(g.speedup.value, (100.0 / 21 + 100.0 / 22) / 2, 1e-9);
  EXPECT_FALSE(g.tokens_per_s.has_value());
  EXPECT_DOUBLE_EQ(*g.length_ratio, 1.5);
  EXPECT_DOUBLE_EQ(g.recomputed, 24);
  EXPECT_EQ(m.summary.groups[4].task, "all");
  EXPECT_EQ(m.summary.groups[4].num_samples, 8);
  EXPECT_TRUE(m.summary.exploratory);
}

TEST(Report, AHeadPlanIsDrawn) {
  Made m = make();
  EXPECT_EQ(report_html(m.summary, m.results).find("Head map"), std::string::npos);
  m.summary.configuration.fields.emplace_back(kHeadMapField, "lg/ll/gd");
  const std::string page = report_html(m.summary, m.results);
  EXPECT_NE(page.find("Head map"), std::string::npos);
  size_t cells = 0;
  for (size_t at = page.find("<rect class"); at != std::string::npos;
       at = page.find("<rect class", at + 1)) {
    ++cells;
  }
  EXPECT_EQ(cells, 6U);
  EXPECT_NE(page.find("viewBox=\"0 0 36 24\""), std::string::npos);  // three layers of two heads
}

TEST(Report, PlotsStandAlone) {
  const auto plots = report_plots(make().summary);
  std::vector<std::string> names;
  for (const NamedPlot& plot : plots) {
    names.push_back(plot.name);
    EXPECT_EQ(plot.svg.find("<svg xmlns="), 0U);
    EXPECT_EQ(plot.svg.find("var(--"), std::string::npos);
    EXPECT_NE(plot.svg.find(".s1{fill:#"), std::string::npos);        // its colours
    EXPECT_NE(plot.svg.find(">reuse&lt;b&gt;<"), std::string::npos);  // its legend
  }
  EXPECT_EQ(names, (std::vector<std::string>{"kl-1024", "score-1024", "kl-4096", "score-4096",
                                             "kl-by-length", "speedup-by-length"}));
}

TEST(Summary, OfSeveralTasksOnlyPlantedFactsAreNeedles) {
  const Made m = make();
  const Group &all = m.summary.groups[5], &cwe = m.summary.groups[3];
  EXPECT_EQ(cwe.task, "cwe");
  EXPECT_EQ(cwe.needle_lost, 1);
  EXPECT_EQ(all.task, "all");
  EXPECT_EQ(all.num_samples, 8);
  EXPECT_EQ(all.needle_found, 3);  // of mk alone
  EXPECT_EQ(all.needle_lost, 1);
}

TEST(Summary, WithoutADenseAnswerThereIsNoDivergence) {
  SampleResult r = sample(1, 0, "data");
  for (ModeResult& m : r.modes) {
    m.kl.reset();
    m.kl_tokens = m.same_top1 = 0;
  }
  const Summary s = summarize({&r}, 1);
  EXPECT_FALSE(s.groups[1].kl.has_value());
  EXPECT_FALSE(s.groups[1].same_top1.has_value());
  EXPECT_FALSE(s.groups[1].needle_loss_bound.has_value());
  const auto value = json::parse(summary_json(s));
  EXPECT_TRUE(value.at("groups").at(1).at("kl_mean").is_null());
}

TEST(Summary, JsonIsWholeAndSeeded) {
  const Made a = make(), b = make();
  const std::string text = summary_json(a.summary);
  EXPECT_EQ(text, summary_json(b.summary));
  const auto value = json::parse(text);
  EXPECT_EQ(value.at("format").as_string(), "redknot.bench.rag/1");
  EXPECT_EQ(value.at("samples").as_int64(), 16);
  EXPECT_EQ(value.at("configuration").at("hash").as_string(), a.summary.configuration.hash());
  EXPECT_EQ(value.at("groups").at(1).at("rows").at("recomputed").as_double(), 24);
  Configuration other = a.summary.configuration;
  other.fields[1].second = "4";
  EXPECT_NE(other.hash(), a.summary.configuration.hash());
}

TEST(Report, IsOnePageThatNeedsNothingElse) {
  const Made m = make();
  const std::string html = report_html(m.summary, m.results);
  EXPECT_TRUE(html.starts_with("<!doctype html>"));
  EXPECT_TRUE(html.ends_with("</html>\n"));
  for (const char* outside : {"<script", "http://", "https://", "src=", "@import", "<link"}) {
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  }
  EXPECT_NE(html.find("prefers-color-scheme:dark"), std::string::npos);
  EXPECT_NE(html.find("Exploratory"), std::string::npos);
  EXPECT_NE(html.find("By length"), std::string::npos);
  EXPECT_NE(html.find("Where rows were recomputed"), std::string::npos);
  EXPECT_NE(html.find("1 of 3 <small>"), std::string::npos);
  EXPECT_EQ(html.find("reuse<b>"), std::string::npos);  // names are escaped
  EXPECT_NE(html.find("tiny &amp; &lt;small&gt;"), std::string::npos);
  for (const char* tag : {"svg", "g", "table", "tr", "td", "div", "p"}) {
    size_t open = 0, close = 0;
    const std::string a = std::string("<") + tag, b = std::string("</") + tag + ">";
    for (size_t at = 0; (at = html.find(a, at)) != std::string::npos; ++at) {
      const char next = html[at + a.size()];
      open += next == ' ' || next == '>';
    }
    for (size_t at = 0; (at = html.find(b, at)) != std::string::npos; ++at) ++close;
    EXPECT_EQ(open, close) << tag;
  }
}

TEST(Plot, NumbersAreShort) {
  EXPECT_EQ(short_number(0.04213), "0.0421");
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(12.5), "12.5");
  EXPECT_EQ(short_number(1234.5), "1,234");
  EXPECT_EQ(short_number(-1234567), "-1,234,567");
  EXPECT_EQ(short_number(-123), "-123");
  EXPECT_EQ(short_number(100), "100");
  EXPECT_EQ(short_number(NAN), "-");
  EXPECT_EQ(short_number(2e-7), "2e-07");
}

TEST(Plot, TicksAreRoundAndInside) {
  EXPECT_EQ(axis_ticks({"", false, 0, 1}).size(), 6U);  // 0, .2, ... 1
  const auto ticks = axis_ticks({"", true, 15, 700});
  EXPECT_EQ(ticks.front(), 20);
  EXPECT_EQ(ticks.back(), 500);
  for (const Axis& a : {fit_axis("", true, {0, 1e-9}, 1e-4), fit_axis("", false, {3}),
                        fit_axis("", true, {}), fit_axis("", false, {NAN, 1, 2})}) {
    EXPECT_LT(a.low, a.high);
    EXPECT_LT(axis_ticks(a).size(), 20U);
  }
}

TEST(Plot, PointsLieInsideWhateverTheValues) {
  const Plot plot{.x = {"x", true, 1, 10},
                  .y = {"y", true, 1e-4, 1},
                  .series = {{.name = "m", .points = {{0, 0, Interval{0, 5}, "a\"b"}}}}};
  const std::string text = svg(plot);
  EXPECT_EQ(text.find("nan"), std::string::npos);
  EXPECT_EQ(text.find("inf"), std::string::npos);
  EXPECT_NE(text.find("a&quot;b"), std::string::npos);
}

}  // namespace
}  // namespace rk::rag
