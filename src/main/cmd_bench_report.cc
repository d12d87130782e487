#include <iostream>
#include <memory>

#include "main/cli.h"
#include "main/rag_output.h"
#include "rag/join.h"
#include "rag/measured_card.h"

namespace rk::cli {
namespace {

struct ReportFlags {
  std::vector<std::string> folders;
  std::string times, facts, out;
};

Result<rag::Summary> summary_of(const rag::Joined& joined,
                                std::vector<const rag::SampleResult*>& results) {
  results.clear();
  for (const rag::SampleResult& r : joined.results) results.push_back(&r);
  rag::Summary summary = rag::summarize(results, joined.seed);
  summary.configuration = joined.configuration;
  summary.provenance = joined.provenance;
  return summary;
}

Result<rag::Summary> read_summary(const std::string& folder) {
  RK_TRY(const rag::Joined joined, rag::read_results({&folder, 1}));
  std::vector<const rag::SampleResult*> results;
  return summary_of(joined, results);
}

Status bench_report(const ReportFlags& f, const CommonFlags& common) {
  RK_TRY(const rag::Joined joined, rag::read_results(f.folders));
  std::vector<const rag::SampleResult*> results;
  RK_TRY(rag::Summary summary, summary_of(joined, results));
  if (!f.times.empty()) {
    RK_TRY(const rag::Summary times, read_summary(f.times));
    RK_RETURN_IF_ERROR(rag::take_times(times, summary));
  }
  if (!f.facts.empty()) {
    RK_TRY(const rag::Summary facts, read_summary(f.facts));
    RK_RETURN_IF_ERROR(rag::take_facts(facts, summary));
  }
  std::optional<engine::Card> card;
  if (const auto fit = rag::fit_of(joined.configuration); fit.ok()) {
    card = rag::measured_card(summary, results, rag::identity_of(joined.configuration), *fit);
  } else {
    std::cerr << "no card.json: " << fit.status().message() << "\n";
  }
  RK_RETURN_IF_ERROR(write_rag_output(f.out, summary, results, card));
  RK_RETURN_IF_ERROR(write_rag_samples(f.out, results));
  print_rag_summary(summary, f.out, common.json);
  return {};
}

}  // namespace

/// redknot bench report: the results of several `bench rag` folders as one report and card.
Command cmd_bench_report() {
  return {
      .name = "bench report",
      .summary = "joins folders of bench rag: shards, lengths; one summary, report and card",
      .examples =
          "  redknot bench report part.0 part.1 part.2 --out results/all\n"
          "  redknot bench report r4k r8k --times r-alone --out results/all\n",
      .uses = kUsesJson,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<ReportFlags>();
        flags.positionals("FOLDER", f->folders, "what bench rag wrote with --out");
        flags.add("--times", f->times,
                  "take all times from this folder: a run that had the machine to itself");
        flags.add("--facts", f->facts,
                  "take the planted facts lost from this folder: more samples of task mk");
        flags.add("--out", f->out,
                  "folder for summary.json, report.html, card.json and the joined samples.jsonl");
        return {[f, &common] { return bench_report(*f, common); },
                [f]() -> Status {
                  if (f->folders.empty()) {
                    return invalid_argument("bench report: no folder with results is named");
                  }
                  if (f->out.empty()) {
                    return invalid_argument("--out: a folder for the report is wanted");
                  }
                  return {};
                }};
      },
  };
}

}  // namespace rk::cli
