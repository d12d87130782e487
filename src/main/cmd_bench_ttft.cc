#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <random>

#include "base/divergence.h"
#include "main/bench_tools.h"
#include "main/cli.h"
#include "main/session.h"
#include "main/version.h"
#include "rag/metrics.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct TtftFlags {
  int documents = 14, repeats = 5, boundary_rows = 32;
  int64_t lead_tokens = 32, document_tokens = 512, question_tokens = 64;
  std::vector<std::string> ratios = {"0.15", "0.30"}, only;

  /// As engine::read_mode() takes them; dense first.
  std::vector<std::string> modes() const {
    std::vector<std::string> out{"dense"};
    if (!only.empty()) {
      for (const std::string& mode : only) {
        if (std::ranges::find(out, mode) == out.end()) out.push_back(mode);
      }
      return out;
    }
    out.insert(out.end(), {"prefix", "boundary", "reuse"});
    for (const std::string& ratio : ratios) out.push_back("selective:" + ratio);
    return out;
  }
};

struct ModeResult {
  std::vector<double> probe_ms, expand_ms;
  std::vector<double> ttft_ms, flops;  ///< of each round; the probe's counted too
  double kl_sum = 0;                   ///< KL(dense || mode) of the first token's distribution
  engine::RequestStats stats;
};

double median(const std::vector<double>& values) { return rag::quantile(values, 0.5); }

// How much longer a mode takes than its share of dense's arithmetic would: of the rounds' ratios
// the median, less one.
double overhead(const ModeResult& mode, const ModeResult& dense) {
  std::vector<double> ratios;
  for (size_t i = 0; i < mode.ttft_ms.size(); ++i) {
    const double wanted = mode.flops[i] / dense.flops[i];
    ratios.push_back(mode.ttft_ms[i] / dense.ttft_ms[i] / wanted);
  }
  return median(ratios) - 1;
}

// Round after round: the documents in a new order, a new question, every mode on the same ids.
Status measure(const TtftFlags& f, const CommonFlags& common, const Session& session,
               std::map<std::string, ModeResult>& results) {
  engine::Engine& engine = *session.engine;
  const int64_t vocab = engine.vocab_size();
  std::mt19937_64 random(common.seed + 1);
  std::vector<int> order(static_cast<size_t>(f.documents));
  std::iota(order.begin(), order.end(), 0);
  // The first two make the documents ready: behind the lead, and in company wherever they stand.
  for (int round = -2; round < f.repeats; ++round) {
    if (round == -1) {
      std::rotate(order.begin(), order.begin() + 1, order.end());
    } else {
      std::shuffle(order.begin(), order.end(), random);
    }
    engine::Request request;
    session.set_company(request);
    request.boundary_rows = f.boundary_rows;
    request.max_tokens = 1;
    if (f.lead_tokens > 0) {
      request.spans.push_back({random_tokens(f.lead_tokens, vocab, common.seed), false});
    }
    for (const int i : order) {
      const uint64_t seed = common.seed + 1000 + static_cast<uint64_t>(i);
      request.spans.push_back({random_tokens(f.document_tokens, vocab, seed), true});
    }
    const uint64_t question = common.seed + 500000 + static_cast<uint64_t>(round + 2);
    request.spans.push_back({random_tokens(f.question_tokens, vocab, question), false});
    // Rounds keep nothing: what one mode leaves must not serve the next.
    request.cache_write = round < 0;
    std::vector<float> dense_row, row;
    for (const std::string& mode : f.modes()) {
      if (round < 0 && mode != "reuse") continue;
      request.select = engine::SelectUnits::kBlocks;  // where the name says nothing
      RK_RETURN_IF_ERROR(engine::read_mode(mode, request));
      Timer timer;
      // The host has them anyway; a card that were asked for them would not choose the token.
      request.give_logits = common.device == "cpu";
      engine.drop_expanded();  // ready means stored: what reading them takes counts
      engine.run(request, 0, timer);
      RK_RETURN_IF_ERROR(timer.status);
      if (round < 0) continue;
      ModeResult& result = results[mode];
      result.ttft_ms.push_back(timer.stats.ttft_ms);
      result.flops.push_back(timer.stats.work.flops);
      result.probe_ms.push_back(timer.stats.probe_ms);
      result.expand_ms.push_back(timer.stats.expand_ms);
      result.stats = timer.stats;
      const bool dense = mode == "dense";
      auto& out = dense ? dense_row : row;
      out = timer.first_logits;
      if (out.empty()) RK_RETURN_IF_ERROR(engine.evaluate(request, 1, out, nullptr));
      to_log_probabilities(out, out.size());
      if (!dense) result.kl_sum += kl_divergence(dense_row, row);
    }
  }
  return {};
}

Status bench_ttft(const TtftFlags& f, const CommonFlags& common) {
  RK_TRY(Session session, Session::open(common));
  std::map<std::string, ModeResult> results;
  RK_RETURN_IF_ERROR(measure(f, common, session, results));
  const double dense = median(results["dense"].ttft_ms);
  json::array rows;
  if (!common.json) {
    std::cout
        << results["dense"].stats.prompt_tokens << " tokens: " << f.documents << " documents of "
        << f.document_tokens << " in a new order each time, question of " << f.question_tokens
        << ", " << f.repeats << " runs\n"
        << "mode             TTFT ms (min .. max)            speed-up  KL/token  active rows  "
           "probe ms  expand ms    GFLOP  overhead\n";
  }
  for (const std::string& mode : f.modes()) {
    const ModeResult& r = results[mode];
    const double ms = median(r.ttft_ms), kl = r.kl_sum / f.repeats;
    const auto [least, most] = std::minmax_element(r.ttft_ms.begin(), r.ttft_ms.end());
    const double over = overhead(r, results["dense"]);
    const int64_t active = r.stats.recomputed + r.stats.fresh;
    if (common.json) {
      rows.push_back(json::object{{"mode", mode},
                                  {"ttft_ms", ms},
                                  {"runs_ms", json::array(r.ttft_ms.begin(), r.ttft_ms.end())},
                                  {"speedup", dense / ms},
                                  {"kl", kl},
                                  {"probe_ms", median(r.probe_ms)},
                                  {"expand_ms", median(r.expand_ms)},
                                  {"active_rows", active},
                                  {"flops", median(r.flops)},
                                  {"overhead", over}});
      continue;
    }
    std::cout << std::left << std::setw(15) << mode << std::right << std::fixed
              << std::setprecision(2) << std::setw(10) << ms << " (" << *least << " .. " << *most
              << ")" << std::setw(14) << dense / ms << "x" << std::setprecision(4) << std::setw(10)
              << kl << std::setw(10) << active << std::setprecision(2) << std::setw(13)
              << median(r.probe_ms) << std::setw(11) << median(r.expand_ms) << std::setprecision(1)
              << std::setw(9) << median(r.flops) * 1e-9 << std::setw(9) << over * 100 << "%\n";
  }
  if (common.json) {
    std::cout << json::object{{"bench", "ttft"},
                              {"commit", commit()},
                              {"prompt_tokens", results["dense"].stats.prompt_tokens},
                              {"documents", f.documents},
                              {"document_tokens", f.document_tokens},
                              {"question_tokens", f.question_tokens},
                              {"boundary_rows", f.boundary_rows},
                              {"device", common.device},
                              {"kv_store", common.kv_store},
                              {"store_bytes", session.engine->segments().num_bytes()},
                              {"model", session.path.substr(session.path.find_last_of('/') + 1)},
                              {"modes", rows}}
              << "\n";
  }
  return {};
}

}  // namespace

/// redknot bench ttft: request to first token in every mode, documents ready, order new each time.
Command cmd_bench_ttft() {
  return {
      .name = "bench ttft",
      .summary = "time to first token of every mode over ready documents in new orders",
      .examples =
          "  redknot bench ttft --documents 14 --document-tokens 512 --question-tokens 64\n",
      .uses = kUsesModel | kUsesPlan | kUsesEngine | kUsesSeed | kUsesJson | kUsesCompany,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<TtftFlags>();
        flags.add("--documents", f->documents, "documents in a prompt");
        flags.add("--document-tokens", f->document_tokens, "tokens of each");
        flags.add("--question-tokens", f->question_tokens, "tokens behind them");
        flags.add("--lead-tokens", f->lead_tokens, "tokens before them");
        flags.add("--boundary-rows", f->boundary_rows, "boundary: rows recomputed per document");
        flags.add("--ratio", f->ratios, "selective: a share of rows recomputed; may repeat");
        flags.add("--mode", f->only, "measure this one beside dense, not all; may repeat");
        flags.add("--repeats", f->repeats, "counted rounds, after one that computes the documents");
        return {[f, &common] { return bench_ttft(*f, common); },
                [f]() -> Status {
                  const std::pair<int64_t, const char*> wanted[] = {
                      {f->documents, "--documents"},
                      {f->document_tokens, "--document-tokens"},
                      {f->question_tokens, "--question-tokens"},
                      {f->repeats, "--repeats"},
                      {f->lead_tokens + 1, "--lead-tokens"},
                      {f->boundary_rows + 1, "--boundary-rows"}};
                  for (const auto& [value, flag] : wanted) {
                    if (value < 1) return invalid_argument(flag, ": ", value, " is too small");
                  }
                  engine::Request unused;
                  for (const std::string& mode : f->modes()) {
                    RK_RETURN_IF_ERROR(engine::read_mode(mode, unused));
                  }
                  return {};
                }};
      },
  };
}

}  // namespace rk::cli
