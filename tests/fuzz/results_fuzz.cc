// What `bench report` reads: lines of samples.jsonl and, behind a line that is "%", a summary.json.
// No crash, what is taken comes back the same, and what can be joined can be shown.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "rag/join.h"
#include "rag/measured_card.h"
#include "rag/report.h"

namespace rk::rag {
namespace {

constexpr size_t kMostFigures = 24;  // each takes a bootstrap

void read_lines(std::string_view text) {
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    const auto result = parse_json_line(std::string(text.substr(0, end)));
    if (!result.ok()) {
      RK_CHECK(!result.status().message().empty());
      continue;
    }
    const std::string line = to_json_line(*result);
    const auto again = parse_json_line(line);
    RK_CHECK_OK(again.status());
    RK_CHECK(again->modes.size() == result->modes.size() && again->id == result->id);
  }
}

void join(const std::string& samples, const std::string& summary) {
  Joiner joiner;
  if (!joiner.add("fuzz", samples, &summary).ok()) return;
  if (!joiner.add("again", samples, nullptr).ok()) return;
  const auto joined = std::move(joiner).done();
  if (!joined.ok()) return;
  RK_CHECK(!joined->results.empty());
  std::vector<const SampleResult*> results;
  size_t figures = 0;
  for (const SampleResult& r : joined->results) {
    results.push_back(&r);
    RK_CHECK(!r.modes.empty() && r.modes[0].mode == "dense");
    figures += r.modes.size();
  }
  if (figures > kMostFigures) return;
  Summary all = summarize(results, joined->seed);
  all.configuration = joined->configuration;
  all.provenance = joined->provenance;
  RK_CHECK(!summary_json(all).empty() && !report_html(all, results).empty());
  const auto fit = fit_of(joined->configuration);
  if (!fit.ok()) return;
  const auto card = measured_card(all, results, identity_of(joined->configuration), *fit);
  RK_CHECK(!card.to_json().empty());
}

}  // namespace
}  // namespace rk::rag

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find("\n%\n");
  const std::string samples = cut == std::string::npos ? text : text.substr(0, cut + 1);
  rk::rag::read_lines(samples);
  if (cut != std::string::npos) rk::rag::join(samples, text.substr(cut + 3));
  return 0;
}
