#include <algorithm>
#include <boost/json.hpp>
#include <iostream>
#include <memory>

#include "main/bench_tools.h"
#include "main/cli.h"
#include "main/session.h"
#include "main/version.h"
#include "tensor/buffer.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct BenchFlags {
  int64_t tokens = 512, depth = 0;
  int generate = 64, repeats = 3;
};

engine::Request random_request(int64_t tokens, int64_t vocab, uint64_t seed) {
  engine::Request request;
  request.mode = engine::Mode::kDense;
  request.spans.push_back({random_tokens(std::max<int64_t>(tokens, 1), vocab, seed), false});
  return request;
}

void report(const char* what, int64_t size, std::vector<double> rates, const Session& session,
            const CommonFlags& common) {
  std::sort(rates.begin(), rates.end());
  const double median = rates[rates.size() / 2];
  if (common.json) {
    json::array all(rates.begin(), rates.end());
    std::cout << json::object{{"bench", what},
                              {what == std::string("prefill") ? "tokens" : "depth", size},
                              {"tokens_per_s", median},
                              {"runs", all},
                              {"model", session.path.substr(session.path.find_last_of('/') + 1)},
                              {"load_ms", session.load_ms},
                              {"peak_resident_bytes", peak_resident_bytes()}}
              << "\n";
    return;
  }
  std::cout << what << " " << size << ": " << median << " tokens/s (" << rates.front() << " to "
            << rates.back() << ", " << rates.size() << " runs); loaded in " << session.load_ms
            << " ms, peak memory " << (peak_resident_bytes() >> 20) << " MiB\n";
}

Status bench_prefill(const BenchFlags& f, const CommonFlags& common) {
  RK_TRY(Session session, Session::open(common));
  std::vector<double> rates;
  for (int i = -1; i < f.repeats; ++i) {  // the first warms up
    engine::Request request = random_request(f.tokens, session.engine->vocab_size(),
                                             common.seed + static_cast<uint64_t>(i + 1));
    request.max_tokens = 1;
    Timer timer;
    session.engine->run(request, 0, timer);
    RK_RETURN_IF_ERROR(timer.status);
    if (i >= 0) rates.push_back(1000.0 * static_cast<double>(f.tokens) / timer.stats.ttft_ms);
  }
  report("prefill", f.tokens, std::move(rates), session, common);
  return {};
}

Status bench_decode(const BenchFlags& f, const CommonFlags& common) {
  RK_TRY(Session session, Session::open(common));
  std::vector<double> rates;
  for (int i = 0; i < f.repeats; ++i) {
    engine::Request request = random_request(f.depth, session.engine->vocab_size(), common.seed);
    request.max_tokens = f.generate + 1;
    Timer timer;
    session.engine->run(request, 0, timer);
    RK_RETURN_IF_ERROR(timer.status);
    if (timer.times_ms.size() < 2) return invalid_argument("decode: fewer than 2 tokens came");
    const double ms = timer.times_ms.back() - timer.times_ms.front();
    rates.push_back(1000.0 * static_cast<double>(timer.times_ms.size() - 1) / ms);
  }
  report("decode", f.depth, std::move(rates), session, common);
  return {};
}

constexpr unsigned kUses = kUsesModel | kUsesPlan | kUsesEngine | kUsesSeed | kUsesJson;

Status positive(int64_t value, const char* flag) {
  return value > 0 ? Status() : invalid_argument(flag, ": ", value, ", at least 1 wanted");
}

}  // namespace

/// redknot bench prefill: tokens/s from request to first token, on the path that answers.
Command cmd_bench_prefill() {
  return {
      .name = "bench prefill",
      .summary = "prefill speed of the engine alone, dense",
      .examples = "  redknot bench prefill --tokens 2048 --json\n",
      .uses = kUses,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<BenchFlags>();
        flags.add("--tokens", f->tokens, "prompt length");
        flags.add("--repeats", f->repeats, "counted runs, after one warm-up");
        return {[f, &common] { return bench_prefill(*f, common); },
                [f]() -> Status {
                  RK_RETURN_IF_ERROR(positive(f->tokens, "--tokens"));
                  return positive(f->repeats, "--repeats");
                }};
      },
  };
}

/// redknot bench decode: tokens/s after the first, behind a context of `depth`.
Command cmd_bench_decode() {
  return {
      .name = "bench decode",
      .summary = "decode speed of the engine alone, dense",
      .examples = "  redknot bench decode --depth 7936 --json\n",
      .uses = kUses,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<BenchFlags>();
        flags.add("--depth", f->depth, "tokens of context before decoding");
        flags.add("-n,--generate", f->generate, "tokens decoded");
        flags.add("--repeats", f->repeats, "counted runs");
        return {[f, &common] { return bench_decode(*f, common); },
                [f]() -> Status {
                  RK_RETURN_IF_ERROR(positive(f->depth + 1, "--depth"));
                  RK_RETURN_IF_ERROR(positive(f->generate, "--generate"));
                  return positive(f->repeats, "--repeats");
                }};
      },
  };
}

}  // namespace rk::cli
