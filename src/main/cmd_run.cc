#include <algorithm>
#include <boost/json.hpp>
#include <iostream>
#include <memory>

#include "main/cli.h"
#include "main/session.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct RunFlags {
  std::vector<std::string> documents;
  std::string mode = "auto", quality = "strict", order = "keep", select = "blocks";
  std::string question;
  int max_tokens = 256, boundary_rows = 32;
  double ratio = 0.15;
  bool guardian = false;
  int64_t context = 0;
  double temperature = 0;
};

/// The mode and its numbers. Errors: kInvalidArgument.
Status read_recovery(const RunFlags& f, engine::Request& request) {
  request.boundary_rows = f.boundary_rows;
  request.selective_ratio = f.ratio;
  RK_TRY(request.select, engine::parse_select(f.select));
  request.any_order = f.order == "any";
  request.guardian = f.guardian;
  if (!(f.ratio >= 0 && f.ratio <= 1)) {
    return invalid_argument("--ratio: ", f.ratio, ", 0 to 1 wanted");
  }
  return engine::read_mode(f.mode, request);
}

json::object tokens_json(const engine::RequestStats& s) {
  return {{"prompt", s.prompt_tokens},
          {"prefix_cached", s.prefix_cached},
          {"document_cached", s.document_cached},
          {"recomputed", s.recomputed},
          {"fresh", s.fresh},
          {"relocated", s.relocated},
          {"generated", s.generated}};
}

json::object work_json(const engine::RequestStats& s) {
  return {{"flops", s.work.flops},
          {"bytes", s.work.bytes},
          {"predicted_flops", s.predicted_work.flops},
          {"predicted_bytes", s.predicted_work.bytes},
          {"decode_flops", s.decode_work.flops},
          {"decode_bytes", s.decode_work.bytes},
          {"ffn_skipped", s.ffn_skipped}};
}

Status run(const RunFlags& f, const CommonFlags& common) {
  engine::Request request;
  RK_RETURN_IF_ERROR(read_recovery(f, request));
  RK_TRY(request.quality, engine::parse_level(f.quality));
  std::vector<serve::Document> documents;
  for (const std::string& path : f.documents) {
    RK_TRY(auto document, read_document(path));
    documents.push_back(std::move(document));
  }
  RK_TRY(Session session, Session::open(common, f.context));
  RK_TRY(request.spans, session.prompt(f.question, documents));
  session.set_company(request);
  request.max_tokens = f.max_tokens;
  request.stop_tokens = session.tokenizer->eos();
  request.sampling.temperature = static_cast<float>(f.temperature);
  request.sampling.seed = common.seed;
  const auto show = [](const std::string& text) { std::cout << text << std::flush; };
  RK_TRY(const Answer a, answer(session, request, common.json ? nullptr : std::function(show)));
  const engine::RequestStats& s = a.stats;
  const double decode_ms = s.total_ms - s.ttft_ms;
  const double rate = s.generated > 1 && decode_ms > 0
                          ? 1000.0 * static_cast<double>(s.generated - 1) / decode_ms
                          : 0;
  if (common.json) {
    json::array documents;
    for (const engine::DocumentUse& use : s.documents) {
      documents.push_back({{"fit", use.fit_name()}, {"tokens", use.num_tokens}});
    }
    json::object out{{"mode", engine::mode_name(s.mode)},
                     {"question", f.question},
                     {"answer", a.text},
                     {"finish", a.finish},
                     {"ttft_ms", s.ttft_ms},
                     {"ingest_ms", s.ingest_ms},
                     {"probe_ms", s.probe_ms},
                     {"expand_ms", s.expand_ms},
                     {"store_bytes", s.store_bytes},
                     {"tokens_per_s", rate},
                     {"tokens", tokens_json(s)},
                     {"work", work_json(s)},
                     {"documents", std::move(documents)},
                     {"gate", s.gate},
                     {"gate_reason", s.gate_reason},
                     {"quality_used", engine::level_name(s.quality_used)}};
    const auto& order = s.document_order;
    if (!order.empty()) out["order"] = json::array(order.begin(), order.end());
    std::cout << out << "\n";
    return {};
  }
  std::cout << "\n";
  std::cerr << "[" << engine::mode_name(s.mode) << "] " << describe_tokens(s);
  if (!s.documents.empty()) std::cerr << "; documents: " << describe_fits(s);
  if (!std::ranges::is_sorted(s.document_order)) {
    std::cerr << " in the order";
    for (const int i : s.document_order) std::cerr << " " << i + 1;
  }
  std::cerr << "; TTFT " << static_cast<int64_t>(s.ttft_ms) << " ms";
  if (s.ingest_ms > 0) {
    std::cerr << " (" << static_cast<int64_t>(s.ingest_ms) << " of them computing new documents)";
  }
  if (s.probe_ms > 0) {
    std::cerr << " (" << static_cast<int64_t>(s.probe_ms) << " of them choosing rows)";
  }
  if (s.expand_ms >= 1) {
    std::cerr << " (" << static_cast<int64_t>(s.expand_ms) << " of them expanding documents)";
  }
  std::cerr << ", " << static_cast<int64_t>(rate * 10) / 10.0 << " tokens/s; gate " << s.gate;
  if (!s.gate_reason.empty()) std::cerr << ": " << s.gate_reason;
  if (a.finish == "guardian") std::cerr << "; stopped: the answer only repeats itself";
  std::cerr << "\n";
  return {};
}

}  // namespace

/// redknot run: one answer over documents.
Command cmd_run() {
  return {
      .name = "run",
      .summary = "one answer over documents, streamed",
      .examples =
          "  redknot run 'What is a KV cache?'\n"
          "  redknot run -d report.txt -d notes.txt 'Who signed the report?'\n"
          "  redknot run -d report.txt --mode reuse --json 'Who signed the report?'\n"
          "  redknot run -d a.txt -d b.txt --mode selective --ratio 0.3 'Who signed?'\n",
      .uses = kUsesModel | kUsesPlan | kUsesEngine | kUsesSeed | kUsesJson | kUsesCompany,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<RunFlags>();
        flags.add("-d,--document", f->documents, "a UTF-8 text file; may repeat");
        flags.add(
            "--mode", f->mode,
            "dense, prefix, reuse, boundary[:k], selective[:ratio[:select]], redknot[:FFN "
            "threshold]; to compare with: random[:ratio], cacheblend[:ratio], none (no documents); "
            "or auto: what --card allows at --quality");
        flags.choice("--quality", f->quality, {"strict", "balanced", "fast"},
                     "mode auto: the fastest mode measured to be this faithful");
        flags.add("--boundary-rows", f->boundary_rows, "boundary: rows recomputed per document");
        flags.add("--ratio", f->ratio,
                  "selective, random, cacheblend: share of document rows recomputed, 0 to 1");
        flags.choice("--select", f->select, {"blocks", "both", "rows"},
                     "selective, random, cacheblend: blocks of 16 rows, or rows one by one; "
                     "selective: or both, half of the ratio each");
        flags.choice("--order", f->order, {"keep", "any"},
                     "any: documents may change places for the best fit of what is stored");
        flags.add(
            "--guardian", f->guardian,
            "stop where the answer only repeats itself: fewer than 20 new LZ77 factors in 250 "
            "tokens");
        flags.add("--max-tokens", f->max_tokens, "tokens generated at most");
        flags.add("--context", f->context, "context in tokens; 0: the model's");
        flags.add("--temperature", f->temperature, "0: greedy");
        flags.positional("question", f->question, "what to ask", true);
        return {[f, &common] { return run(*f, common); },
                [f]() -> Status {
                  engine::Request unused;
                  return read_recovery(*f, unused);
                }};
      },
  };
}

}  // namespace rk::cli
