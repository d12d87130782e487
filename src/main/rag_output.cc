#include "main/rag_output.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "main/output.h"
#include "rag/plot.h"
#include "rag/report.h"

namespace rk::cli {
namespace {

namespace fs = std::filesystem;

Status write_whole(const fs::path& path, const std::string& text) {
  const fs::path part = path.string() + ".part";
  {
    std::ofstream out(part, std::ios::binary);
    out << text;
    out.flush();
    if (!out) return unavailable(part.string(), ": cannot be written");
  }
  std::error_code error;
  fs::rename(part, path, error);
  if (error) return unavailable(path.string(), ": ", error.message());
  return {};
}

}  // namespace

Status write_rag_summary(const std::string& folder, const rag::Summary& summary) {
  return write_whole(fs::path(folder) / "summary.json", rag::summary_json(summary) + "\n");
}

Status write_rag_output(const std::string& folder, const rag::Summary& summary,
                        const std::vector<const rag::SampleResult*>& results,
                        const std::optional<engine::Card>& card) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return unavailable(folder, ": ", error.message());
  const fs::path out = folder;
  RK_RETURN_IF_ERROR(write_rag_summary(folder, summary));
  RK_RETURN_IF_ERROR(write_whole(out / "report.html", rag::report_html(summary, results)));
  for (const rag::NamedPlot& plot : rag::report_plots(summary)) {
    RK_RETURN_IF_ERROR(write_whole(out / (plot.name + ".svg"), plot.svg));
  }
  if (card) return write_whole(out / "card.json", card->to_json());
  fs::remove(out / "card.json", error);  // of other results
  return error ? unavailable((out / "card.json").string(), ": ", error.message()) : Status();
}

Status write_rag_samples(const std::string& folder,
                         const std::vector<const rag::SampleResult*>& results) {
  std::string text;
  for (const rag::SampleResult* r : results) text += rag::to_json_line(*r) + "\n";
  return write_whole(fs::path(folder) / "samples.jsonl", text);
}

void print_rag_summary(const rag::Summary& summary, const std::string& folder, bool json) {
  if (json) {
    std::cout << rag::summary_json(summary) << "\n";
    return;
  }
  std::vector<std::vector<std::string>> table = {{"tokens", "task", "mode", "n", "score", "KL",
                                                  "KL <=", "top-1", "same answer", "lost",
                                                  "TTFT ms", "speed-up", "tokens/s", "answer"}};
  const auto percent = [](double share) { return cat(std::lround(100 * share), " %"); };
  for (const rag::Group& g : summary.groups) {
    const auto n = [](double v) { return rag::short_number(v); };
    table.push_back({cat(g.length_tokens), g.task, g.mode, cat(g.num_samples), n(g.score.value),
                     g.kl ? n(g.kl->value) : "-", g.kl ? n(g.kl->interval.high) : "-",
                     g.same_top1 ? percent(*g.same_top1) : "-", percent(g.same_answer),
                     g.needle_loss_bound ? cat(g.needle_lost, "/", g.needle_found) : "-",
                     n(g.ttft_ms), n(g.speedup.value) + "x",
                     g.tokens_per_s ? n(*g.tokens_per_s) : "-", n(g.answer_tokens)});
  }
  print_table(table);
  std::cout
      << "\nKL(dense || mode) along the dense answer, and the upper end of its 95 % interval; "
         "lost: needles that\ndense found and the mode did not; TTFT and speed-up: medians; "
         "answer: its mean tokens.\n";
  if (summary.exploratory) {
    std::cout << "Exploratory: fewer than " << rag::kPublishedSamples
              << " samples of a task and length.\n";
  }
  if (!summary.skipped.empty()) {
    std::cout << summary.skipped.size()
              << " samples skipped, the first: " << summary.skipped.front().id << ": "
              << summary.skipped.front().why << "\n";
  }
  std::cout << (fs::path(folder) / "report.html").string() << "\n";
}

}  // namespace rk::cli
