#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <memory>

#include "base/clock.h"
#include "base/divergence.h"
#include "main/cli.h"
#include "main/demo_corpus.h"
#include "main/output.h"
#include "main/progress.h"
#include "main/session.h"

namespace rk::cli {
namespace {

namespace json = boost::json;
using engine::Mode;
using engine::RequestStats;

constexpr Mode kModes[] = {Mode::kDense, Mode::kPrefix, Mode::kReuse, Mode::kBoundary,
                           Mode::kSelective};
constexpr int kMaxTokens = 256;  // a row of probabilities is kept for each of them
constexpr size_t kShownBytes = 100;

struct DemoFlags {
  int max_tokens = 24, boundary_rows = 32;
  double ratio = 0.15;
};

// One distribution per answer token, [tokens, vocab], as log-probabilities.
using LogProbRows = std::vector<float>;

struct Outcome {
  Mode mode = Mode::kDense;
  std::string answer;
  std::vector<int32_t> tokens;
  RequestStats stats;
  LogProbRows rows;       // of its own tokens
  double kl = 0;          // mean over the dense answer's positions; NaN where it has none
  int64_t positions = 0;  // of the dense answer
  int64_t same = 0;       // positions with the most likely token of dense
};

bool is_exact(Mode mode) { return mode == Mode::kDense || mode == Mode::kPrefix; }

// Exact and spliced rows live apart, so that no mode is helped by what another left.
std::string cache_of(Mode mode) { return is_exact(mode) ? "prefix" : "splice"; }

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

int64_t reused_tokens(const RequestStats& s) { return s.prefix_cached + s.document_cached; }

// Keeps the tokens and their whole distributions. The engine takes the time to the first token
// before it asks for either.
class Recorder : public engine::Listener {
 public:
  Recorder(Outcome& out, int64_t vocab) : out_(out), vocab_(static_cast<size_t>(vocab)) {}
  bool on_token(const engine::TokenEvent& event) override {
    out_.tokens.push_back(event.token);
    const size_t begin = out_.rows.size();
    out_.rows.resize(begin + vocab_, -std::numeric_limits<float>::infinity());
    if (!event.logprobs) return true;
    for (const auto& entry : event.logprobs->top) {
      out_.rows[begin + static_cast<size_t>(entry.token)] = entry.logprob;
    }
    return true;
  }
  void on_done(const engine::Outcome& outcome) override {
    out_.stats = outcome.stats;
    status = outcome.status;
  }
  Status status;

 private:
  Outcome& out_;
  size_t vocab_;
};

// What the mode predicts along the dense answer, from the path and the stored rows that answered.
Result<LogProbRows> follow(Session& session, const engine::Request& base, const Outcome& own,
                           const std::vector<int32_t>& dense) {
  if (is_exact(own.mode) && own.tokens == dense) return own.rows;
  engine::Request request = base;
  std::vector<int32_t>& tail = request.spans.back().tokens;
  LogProbRows all;
  if (own.mode == Mode::kPrefix) {
    // All but a prompt's last row may be cached now, so one position at a time.
    for (const int32_t token : dense) {
      std::vector<float> row;
      RK_RETURN_IF_ERROR(session.engine->evaluate(request, 1, row, nullptr));
      all.insert(all.end(), row.begin(), row.end());
      tail.push_back(token);
    }
  } else if (!dense.empty()) {
    tail.insert(tail.end(), dense.begin(), dense.end() - 1);
    request.answer_tokens = static_cast<int>(dense.size()) - 1;
    const auto num_rows = static_cast<int64_t>(dense.size());
    RK_RETURN_IF_ERROR(session.engine->evaluate(request, num_rows, all, nullptr));
  }
  to_log_probabilities(all, static_cast<size_t>(session.engine->vocab_size()));
  return all;
}

void compare(const Outcome& dense, const LogProbRows& rows, size_t vocab, Outcome& out) {
  out.positions = static_cast<int64_t>(dense.tokens.size());
  double total = 0;
  for (size_t begin = 0; begin < dense.rows.size(); begin += vocab) {
    const auto p = std::span(dense.rows).subspan(begin, vocab);
    const auto q = std::span(rows).subspan(begin, vocab);
    total += kl_divergence(p, q);
    out.same += most_likely(p) == most_likely(q);
  }
  out.kl = out.positions > 0 ? total / static_cast<double>(out.positions)
                             : std::numeric_limits<double>::quiet_NaN();
}

std::string one_line(const std::string& text) {
  std::string line;
  for (const char c : text) line += c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
  if (line.size() <= kShownBytes) return line;
  size_t end = kShownBytes;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80) --end;  // whole letters
  return line.substr(0, end) + "...";
}

json::value json_of(const Outcome& o, const std::string& question) {
  const RequestStats& s = o.stats;
  const json::object tokens{{"prompt", s.prompt_tokens},
                            {"prefix_cached", s.prefix_cached},
                            {"document_cached", s.document_cached},
                            {"recomputed", s.recomputed},
                            {"fresh", s.fresh},
                            {"relocated", s.relocated},
                            {"generated", s.generated}};
  return json::object{{"mode", engine::mode_name(o.mode)},
                      {"question", question},
                      {"ttft_ms", s.ttft_ms},
                      {"tokens", tokens},
                      {"fit", describe_fits(s)},
                      {"kl", std::isfinite(o.kl) ? json::value(o.kl) : json::value()},
                      {"answer", o.answer}};
}

void print_outcome(const Outcome& o, const Outcome& dense) {
  const RequestStats& s = o.stats;
  std::string name = engine::mode_name(o.mode);
  name.resize(10, ' ');
  std::cout << "  " << name << "TTFT " << fixed(s.ttft_ms, 0) << " ms";
  if (o.mode != Mode::kDense) std::cout << ", " << fixed(dense.stats.ttft_ms / s.ttft_ms, 1) << "x";
  std::cout << "; tokens: " << reused_tokens(s) << " reused (" << s.relocated << " relocated), "
            << s.recomputed << " recomputed, " << s.fresh << " fresh";
  if (o.mode != Mode::kDense) {
    std::cout << "; KL " << fixed(o.kl, 4) << ", same tokens " << o.same << "/" << o.positions;
  }
  std::cout << "\n            " << one_line(o.answer) << "\n" << std::flush;
}

struct Totals {
  double ttft_ms = 0, kl = 0;
  int64_t requests = 0, prompt = 0, reused = 0, relocated = 0, recomputed = 0;
  int64_t answered = 0, positions = 0, same = 0;

  void add(const Outcome& o) {
    ++requests;
    ttft_ms += o.stats.ttft_ms;
    prompt += o.stats.prompt_tokens;
    reused += reused_tokens(o.stats);
    relocated += o.stats.relocated;
    recomputed += o.stats.recomputed;
    positions += o.positions;
    same += o.same;
    if (o.positions > 0) {
      ++answered;
      kl += o.kl;
    }
  }
};

std::string percent(int64_t part, int64_t whole) {
  if (whole == 0) return "-";
  return fixed(100.0 * static_cast<double>(part) / static_cast<double>(whole), 1) + " %";
}

void print_totals(const std::vector<Totals>& totals) {
  std::vector<std::vector<std::string>> table = {{"mode", "mean TTFT", "speed-up", "reused",
                                                  "relocated", "recomputed", "KL to dense",
                                                  "same tokens", "gate"}};
  for (size_t m = 0; m < totals.size(); ++m) {
    const Totals& t = totals[m];
    table.push_back({engine::mode_name(kModes[m]),
                     fixed(t.ttft_ms / static_cast<double>(t.requests), 0) + " ms",
                     fixed(totals[0].ttft_ms / t.ttft_ms, 1) + "x", percent(t.reused, t.prompt),
                     percent(t.relocated, t.prompt), percent(t.recomputed, t.prompt),
                     t.answered == 0 ? "-" : fixed(t.kl / static_cast<double>(t.answered), 4),
                     percent(t.same, t.positions), is_exact(kModes[m]) ? "exact" : "bypassed"});
  }
  std::cout << "\n";
  print_table(table);
  std::cout << "\nShares are of prompt tokens; KL and same tokens (most likely token) are measured "
               "along the dense answer.\n"
               "Approximate modes are served by hand here: gate bypassed. 'exact' modes compute "
               "what dense computes, up to rounding.\n";
}

class Demo {
 public:
  Demo(const DemoFlags& flags, const CommonFlags& common, Session& session)
      : flags_(flags),
        json_(common.json),
        seed_(common.seed),
        session_(session),
        progress_(common.json) {}

  Status run() {
    RK_RETURN_IF_ERROR(ingest());
    const auto& questions = demo_questions();
    for (size_t i = 0; i < questions.size(); ++i) RK_RETURN_IF_ERROR(ask(i));
    if (json_) {
      std::cout << results_ << "\n";
    } else {
      print_totals(totals_);
    }
    return {};
  }

 private:
  Result<engine::Request> request(const DemoQuestion& question) const {
    std::vector<serve::Document> documents;
    for (const int d : question.documents) {
      documents.push_back(demo_documents()[static_cast<size_t>(d)]);
    }
    engine::Request request;
    RK_TRY(request.spans, session_.prompt(question.text, documents));
    session_.set_company(request);
    request.boundary_rows = flags_.boundary_rows;
    request.selective_ratio = flags_.ratio;
    request.max_tokens = flags_.max_tokens;
    request.stop_tokens = session_.tokenizer->eos();
    request.sampling.seed = seed_;
    return request;
  }

  Result<Outcome> serve(engine::Request request, bool with_rows) const {
    Outcome out;
    out.mode = request.mode;
    if (with_rows) request.num_logprobs = static_cast<int>(session_.engine->vocab_size());
    Recorder recorder(out, with_rows ? session_.engine->vocab_size() : 0);
    session_.engine->run(request, 0, recorder);
    RK_RETURN_IF_ERROR(recorder.status);
    out.answer = session_.tokenizer->decode(out.tokens, true);
    return out;
  }

  // Both caches see the documents in the order of the archive. The first of them was computed
  // behind the lead alone then: in a second order it is computed in company too, as the others
  // were.
  Status ingest() {
    DemoQuestion all{.text = "What is this archive about?"};
    for (size_t d = 0; d < demo_documents().size(); ++d)
      all.documents.push_back(static_cast<int>(d));
    RK_TRY(engine::Request warm, request(all));
    warm.max_tokens = 1;
    int64_t tokens = 0;
    for (const auto& span : warm.spans) {
      if (span.segment) tokens += static_cast<int64_t>(span.tokens.size());
    }
    progress_.note(cat("computing ", all.documents.size(), " documents"));
    for (const Mode mode : {Mode::kReuse, Mode::kPrefix}) {
      warm.mode = mode;
      warm.cache_namespace = cache_of(mode);
      RK_TRY(const Outcome out, serve(warm, false));
      double total_ms = out.stats.total_ms;
      if (mode == Mode::kReuse) {
        engine::Request again = warm;
        const auto first = std::ranges::find(again.spans, true, &engine::PromptSpan::segment);
        std::iter_swap(first, std::find_if(first + 1, again.spans.end(),
                                           [](const auto& span) { return span.segment; }));
        RK_TRY(const Outcome second, serve(again, false));
        total_ms += second.stats.total_ms;
      }
      if (json_) continue;
      std::cout << (mode == Mode::kReuse ? "ingest: " : "prefix cache: ") << all.documents.size()
                << " documents, " << tokens << " tokens, " << fixed(total_ms, 0) << " ms\n"
                << std::flush;
    }
    return {};
  }

  Status ask(size_t index) {
    const DemoQuestion& question = demo_questions()[index];
    RK_TRY(engine::Request base, request(question));
    Outcome dense;
    for (size_t m = 0; m < std::size(kModes); ++m) {
      base.mode = kModes[m];
      base.cache_namespace = cache_of(base.mode);
      progress_.note(cat("question ", index + 1, " of ", demo_questions().size(), ": ",
                         engine::mode_name(base.mode)));
      RK_TRY(Outcome out, serve(base, is_exact(base.mode)));
      if (m == 0) dense = out;
      RK_TRY(const LogProbRows rows, follow(session_, base, out, dense.tokens));
      compare(dense, rows, static_cast<size_t>(session_.engine->vocab_size()), out);
      totals_[m].add(out);
      if (json_) {
        results_.push_back(json_of(out, question.text));
        continue;
      }
      if (m == 0) {
        std::cout << "\nQuestion " << index + 1 << ": " << question.text
                  << "\n  documents in order";
        for (const int d : question.documents) std::cout << " " << d + 1;
        std::cout << "; " << out.stats.prompt_tokens << " tokens\n";
      }
      print_outcome(out, dense);
    }
    return {};
  }

  const DemoFlags& flags_;
  const bool json_;
  const uint64_t seed_;
  Session& session_;
  Progress progress_;
  std::vector<Totals> totals_ = std::vector<Totals>(std::size(kModes));
  json::array results_;
};

Status run(const DemoFlags& flags, const CommonFlags& common) {
  RK_TRY(Session session, Session::open(common));
  return Demo(flags, common, session).run();
}

Status check(const DemoFlags& flags) {
  if (flags.max_tokens < 1 || flags.max_tokens > kMaxTokens) {
    return invalid_argument("--max-tokens: ", flags.max_tokens, ", 1 to ", kMaxTokens, " wanted");
  }
  if (flags.boundary_rows < 0) {
    return invalid_argument("--boundary-rows: ", flags.boundary_rows, ", at least 0 wanted");
  }
  if (!(flags.ratio >= 0 && flags.ratio <= 1)) {
    return invalid_argument("--ratio: ", flags.ratio, ", 0 to 1 wanted");
  }
  return {};
}

}  // namespace

/// redknot demo: the main job on small real input.
Command cmd_demo() {
  return {
      .name = "demo",
      .summary = "questions over documents in several orders, every mode beside dense",
      .examples =
          "  redknot demo\n"
          "  redknot demo -m MODEL.gguf --max-tokens 12\n"
          "  redknot demo --json\n",
      .uses = kUsesModel | kUsesPlan | kUsesEngine | kUsesSeed | kUsesJson | kUsesCompany,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<DemoFlags>();
        flags.add("--max-tokens", f->max_tokens, "tokens generated per answer at most");
        flags.add("--boundary-rows", f->boundary_rows, "boundary: rows recomputed per document");
        flags.add("--ratio", f->ratio, "selective: share of document rows recomputed, 0 to 1");
        return {[f, &common] { return run(*f, common); }, [f] { return check(*f); }};
      },
  };
}

}  // namespace rk::cli
