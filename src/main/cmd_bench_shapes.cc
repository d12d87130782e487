// Real shapes with random weights made on the card: what the engine's own path takes, beside what
// this card's measured memory speed and matrix speed would allow.
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <iomanip>
#include <iostream>
#include <memory>
#include <numeric>

#include "kernels/layer/layer_cuda.h"
#include "main/bench_kernels.h"
#include "main/bench_tools.h"
#include "main/card_state.h"
#include "main/cli.h"
#include "main/session.h"
#include "main/version.h"
#include "model/decoder.h"
#include "model/shapes.h"
#include "rag/metrics.h"
#include "rag/mode_spec.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct ShapesFlags {
  std::string config = "qwen3-32b", lengths = "8192,16384,32768", batches = "1,8",
              modes = "boundary:32,reuse,selective:0.15";
  int64_t depth = 32768, document_tokens = 1024, question_tokens = 64;
  int repeats = 3, steps = 19, step_rows = 0;  // steps: 16 counted ones cross a page each
};

constexpr int64_t kLeadTokens = 16, kLeastDepth = 512;
constexpr int kWarmSteps = 3;
constexpr double kEnoughMs = 20000;  // of counted runs; there are two at least

/// The card that is measured, and what was measured of it so far.
struct Bench {
  const ShapesFlags& flags;
  const CommonFlags& common;
  CardInfo card;
  Ceilings ceilings;
  json::array rows = {};
};

json::object as_json(const CardState& s) {
  return {{"sm_mhz", s.sm_mhz},
          {"memory_mhz", s.memory_mhz},
          {"power_w", s.power_w},
          {"power_limit_w", s.power_limit_w},
          {"celsius", s.celsius}};
}

/// Adds median, extremes and all runs of what was measured, and the card's state around them.
void add_times(json::object& row, const std::string& name, const std::vector<double>& ms,
               const CardState& before, const CardState& after) {
  const Spread spread = Spread::of(ms);
  row[name] = rag::quantile(ms, 0.5);
  row["least_ms"] = spread.least;
  row["most_ms"] = spread.most;
  row["runs_ms"] = json::array(ms.begin(), ms.end());
  row["sm_mhz"] = json::array{before.sm_mhz, after.sm_mhz};
}

Result<std::vector<int64_t>> numbers(const std::string& text, const char* flag) {
  std::vector<int64_t> out;
  const char *at = text.data(), *end = at + text.size();
  while (at < end) {
    int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || (next < end && *next != ',')) {
      return invalid_argument(flag, ": \"", text, "\" is no list of numbers such as 8192,16384");
    }
    out.push_back(value);
    at = next + 1;
  }
  return out;
}

double median(const std::vector<double>& values) { return rag::quantile(values, 0.5); }

/// Floating-point operations of a causal prefill: all layers, and the attention's two products.
double prefill_flops(const model::ModelConfig& c, double tokens) {
  const double q = double{1} * c.num_heads * c.head_dim,
               kv = double{1} * c.num_kv_heads * c.head_dim;
  const double h = static_cast<double>(c.hidden), f = static_cast<double>(c.ffn);
  const double weights = c.num_layers * (h * (q + 2 * kv) + q * h + 3 * h * f);
  return 2 * weights * tokens + 2 * tokens * tokens * q * c.num_layers;
}

Status print_ttft(Bench& bench, engine::Engine& engine, int64_t length, bool is_first) {
  const ShapesFlags& f = bench.flags;
  const CommonFlags& common = bench.common;
  // The prompt has `length` tokens: the last document takes what is left.
  const int64_t document_rows = length - kLeadTokens - f.question_tokens;
  const int64_t documents = std::max<int64_t>(1, document_rows / f.document_tokens);
  engine::Request request;
  request.max_tokens = 1;
  const int64_t vocab = engine.vocab_size();
  request.spans.push_back({random_tokens(kLeadTokens, vocab, common.seed), false});
  for (int64_t i = 0; i < documents; ++i) {
    const int64_t size =
        i + 1 < documents ? f.document_tokens : document_rows - (documents - 1) * f.document_tokens;
    const uint64_t seed = common.seed + 10 + static_cast<uint64_t>(i);
    request.spans.push_back({random_tokens(std::max<int64_t>(size, 1), vocab, seed), true});
  }
  request.spans.push_back({random_tokens(f.question_tokens, vocab, common.seed + 1), false});
  double dense = 0;
  RK_TRY(const auto modes, rag::parse_mode_list(f.modes));
  for (const rag::ModeSpec& mode : modes) {
    mode.apply(request);
    std::vector<double> runs;
    double all_ms = 0;
    engine::RequestStats stats;
    // The first run warms up and computes the documents; later lengths' dense runs need neither.
    const bool is_dense = mode.mode == engine::Mode::kDense;
    const CardState before = card_state(bench.card.bus_id);
    for (int i = is_dense && !is_first ? 0 : -1; i < f.repeats; ++i) {
      request.cache_write = i < 0;
      Timer timer;
      engine.drop_expanded();  // ready means stored: what reading them takes counts
      engine.run(request, 0, timer);
      RK_RETURN_IF_ERROR(timer.status);
      stats = timer.stats;
      if (i >= 0) all_ms += runs.emplace_back(stats.ttft_ms);
      if (all_ms > kEnoughMs && runs.size() > 1) break;
    }
    const CardState after = card_state(bench.card.bus_id);
    const double ms = median(runs);
    if (is_dense) dense = ms;
    const double ideal = 1e3 *
                         prefill_flops(engine.config(), static_cast<double>(stats.prompt_tokens)) /
                         bench.ceilings.flops;
    json::object row{{"what", "ttft"},
                     {"mode", mode.name},
                     {"prompt_tokens", stats.prompt_tokens},
                     {"active_rows", stats.recomputed + stats.fresh},
                     {"probe_ms", stats.probe_ms},
                     {"ffn_skipped", stats.ffn_skipped},
                     {"store_bytes", stats.store_bytes},
                     {"speedup", dense / ms}};
    if (is_dense) row["gemm_bound_ms"] = ideal;
    add_times(row, "ttft_ms", runs, before, after);
    bench.rows.push_back(row);
    if (common.json) {
      std::cerr << json::serialize(row) << std::endl;  // a run that is cut short leaves its rows
      continue;
    }
    std::cout << std::fixed << std::setprecision(1) << "ttft " << std::setw(7)
              << stats.prompt_tokens << " tokens  " << std::left << std::setw(14) << mode.name
              << std::right << std::setw(10) << ms << " ms" << std::setw(9) << dense / ms << "x";
    if (is_dense) std::cout << "   all at GEMM speed " << ideal << " ms";
    std::cout << std::endl;
  }
  return {};
}

/// Pages of `batch` sequences of `depth` tokens and the steps behind them.
int64_t decode_pages(const ShapesFlags& f, const model::ModelConfig& config, int64_t batch,
                     int64_t depth) {
  return (depth + f.steps + 2 * 16) / 16 * config.num_layers * config.num_kv_heads * batch;
}

/// The asked depth or, where the card has no room for it, the largest half of a half of it that
/// fits. Errors: kExhausted with both numbers.
Result<int64_t> fitting_depth(const Bench& bench, const model::ModelConfig& config, int64_t batch,
                              int64_t page_bytes, model::Decoder::Options options) {
  constexpr int64_t kReserveBytes = int64_t{2} << 30;  // cuBLASLt, graphs, measuring algorithms
  RK_TRY(const CardInfo card, open_card(options.device.index));
  int64_t wanted = 0;
  for (int64_t depth = bench.flags.depth; depth >= std::min(kLeastDepth, bench.flags.depth);
       depth /= 2) {
    options.context_tokens = depth + bench.flags.steps + 64;
    const int64_t kv_bytes = decode_pages(bench.flags, config, batch, depth) * page_bytes;
    const int64_t need = model::card_memory(nullptr, config, options).total() + kv_bytes;
    if (need + kReserveBytes <= card.free_bytes) return depth;
    if (wanted == 0) wanted = need;
  }
  return exhausted("decode at ", bench.flags.depth, ", batch ", batch, ": ", wanted >> 20,
                   " MiB wanted, ", card_room(card.free_bytes, card.total_bytes),
                   ", and no shorter context fits; try --card-weights fp8");
}

Status print_decode(Bench& bench, const model::ModelConfig& config, const Device& device,
                    int64_t batch) {
  const ShapesFlags& f = bench.flags;
  const CommonFlags& common = bench.common;
  kv::PagePool::Options pool_options;
  pool_options.head_dim = config.head_dim;
  pool_options.dtype = DType::kBf16;
  pool_options.memory = Memory::kCard;
  model::Decoder::Options options;
  options.device = device;
  options.max_step_rows = static_cast<int>(std::max<int64_t>(batch, 16));
  options.max_sequences = static_cast<int>(batch);
  options.card_weights = card_weights(common);
  RK_TRY(const int64_t depth,
         fitting_depth(bench, config, batch, kv::PagePool::page_bytes(pool_options), options));
  options.context_tokens = depth + f.steps + 64;
  RK_TRY(const auto decoder, model::Decoder::random(config, options));
  const int heads = config.num_layers * config.num_kv_heads;
  pool_options.capacity_bytes =
      decode_pages(f, config, batch, depth) * kv::PagePool::page_bytes(pool_options);
  RK_TRY(const auto pool, kv::PagePool::create(pool_options));
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(pool->k_pages(), 3, 1.0F, nullptr));
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(pool->v_pages(), 4, 1.0F, nullptr));
  RK_RETURN_IF_ERROR(sync_stream(nullptr));
  std::vector<std::unique_ptr<kv::SequenceKv>> sequences;
  std::vector<int32_t> positions(static_cast<size_t>(depth));
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
  for (int64_t b = 0; b < batch; ++b) {
    sequences.push_back(
        std::make_unique<kv::SequenceKv>(*pool, config.num_layers, config.num_kv_heads,
                                         std::vector<kv::Visible>(static_cast<size_t>(heads))));
    sequences.back()->add_fresh(0, static_cast<int32_t>(depth));
    RK_RETURN_IF_ERROR(sequences.back()->prepare(positions));
  }
  std::vector<int32_t> token(static_cast<size_t>(batch), 7), position(static_cast<size_t>(batch)),
      wanted(static_cast<size_t>(batch));
  const std::vector<kernels::SampleRow> greedy(static_cast<size_t>(batch));
  model::StepSampling sampling{greedy, {}, token.data()};
  std::vector<double> times, host_times, uploaded;
  model::Decoder::HostWork host;
  kernels::Context ctx;
  const CardState before = card_state(bench.card.bus_id);
  for (int step = 0; step < f.steps; ++step) {
    const double begin = now_ms();
    std::vector<model::StepSequence> active;
    for (size_t b = 0; b < sequences.size(); ++b) {
      position[b] = static_cast<int32_t>(depth) + step;
      wanted[b] = static_cast<int32_t>(b);
      RK_RETURN_IF_ERROR(sequences[b]->prepare({&position[b], 1}));
      active.push_back({sequences[b].get(), {&token[b], 1}, {&position[b], 1}});
    }
    const double prepared_ms = now_ms() - begin;
    RK_RETURN_IF_ERROR(decoder->forward({active, wanted, View(), &sampling}, ctx));
    host = decoder->host_work();
    if (step < kWarmSteps) continue;
    times.push_back(now_ms() - begin);
    host_times.push_back(prepared_ms + host.ms);
    uploaded.push_back(static_cast<double>(host.uploaded_bytes));
  }
  const CardState after = card_state(bench.card.bus_id);
  const auto mean = [](const std::vector<double>& v) {
    return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
  };
  // Host work is a mean: a step in 16 brings every sequence a new page.
  const double ms = median(times), host_ms = mean(host_times);
  const double kv_bytes = static_cast<double>(batch * depth) * heads * config.head_dim * 4;
  const double bytes = static_cast<double>(decoder->weight_bytes()) -
                       static_cast<double>(config.vocab_size * config.hidden * 2) + kv_bytes;
  const double bound = 1e3 * bytes / bench.ceilings.bytes_per_s;
  const double metadata = static_cast<double>(host.table_bytes) + mean(uploaded);
  json::object row{{"what", "decode"},
                   {"batch", batch},
                   {"depth", depth},
                   {"asked_depth", f.depth},
                   {"bytes", bytes},
                   {"kv_bytes", kv_bytes},
                   {"table_bytes", host.table_bytes},
                   {"uploaded_bytes", mean(uploaded)},
                   {"metadata_share", metadata / kv_bytes},
                   {"host_ms", host_ms},
                   {"host_share", host_ms / mean(times)},
                   {"memory_bound_ms", bound},
                   {"over_bound", ms / bound}};
  add_times(row, "step_ms", times, before, after);
  bench.rows.push_back(row);
  if (common.json) {
    std::cerr << json::serialize(row) << std::endl;
    return {};
  }
  std::cout << std::fixed << std::setprecision(2) << "decode at " << depth << ", batch " << batch
            << (depth < f.depth ? cat(" (", f.depth, " do not fit)") : "") << ": " << ms
            << " ms a step, memory bound " << bound << " ms (" << ms / bound << "x), host work "
            << host_ms << " ms (" << 100 * host_ms / mean(times) << " %), page metadata "
            << 100 * metadata / kv_bytes << " % of KV" << std::endl;
  return {};
}

Status bench_shapes(const ShapesFlags& f, const CommonFlags& common) {
  RK_TRY(const Device device, parse_device(common.device));
  if (!device.is_cuda())
    return invalid_argument("--device: real shapes run on a card; --device cuda wanted");
  RK_TRY(const auto lengths, numbers(f.lengths, "--lengths"));
  RK_TRY(const auto batches, numbers(f.batches, "--batches"));
  RK_TRY(const CardInfo card, open_card(device.index));
  const CardState at_rest = card_state(card.bus_id);
  RK_TRY(const Ceilings ceilings, card_ceilings());
  const int64_t longest = lengths.empty() ? 0 : std::ranges::max(lengths);
  RK_TRY(const auto config, model::model_shape(f.config, std::max(longest, f.depth) + 1024));
  if (!common.json) {
    std::cout << card.name << ": copy " << std::fixed << std::setprecision(2)
              << ceilings.bytes_per_s / 1e12 << " TB/s, bf16 GEMM " << ceilings.flops / 1e12
              << " TFLOP/s; " << f.config << ", random weights" << std::endl;
  }
  Bench bench{f, common, card, ceilings};
  if (!lengths.empty()) {
    engine::Engine::Options options;
    options.device = device;
    options.random_shape = config;
    options.threads = common.threads;
    options.card_weights = card_weights(common);
    if (!common.json) {
      options.on_memory_plan = [](const std::string& plan) { std::cout << plan << std::endl; };
    }
    options.plan = common.plan;
    RK_TRY(options.store_format, kv::parse_row_format(common.kv_store));
    options.store_bytes = common.kv_store_bytes;
    options.context_tokens = longest + 1024;
    options.max_step_rows = f.step_rows;
    const int64_t row_bytes =
        int64_t{4} * config.num_layers * config.num_kv_heads * config.head_dim;
    options.kv_bytes = 2 * (longest + 2048) * row_bytes;  // the documents, and a dense run beside
    RK_TRY(const auto engine, engine::Engine::create(options));
    for (const int64_t length : lengths) {
      RK_RETURN_IF_ERROR(print_ttft(bench, *engine, length, length == lengths.front()));
    }
  }
  for (const int64_t batch : batches) {
    RK_RETURN_IF_ERROR(print_decode(bench, config, device, batch));
  }
  if (common.json) {
    std::cout << json::object{{"bench", "shapes"},
                              {"commit", commit()},
                              {"command", common.command_line},
                              {"config", f.config},
                              {"card", card.name},
                              {"driver", driver_version()},
                              {"cuda", cat(card.runtime_version / 1000, ".",
                                           card.runtime_version % 1000 / 10)},
                              {"clocks", "as found, nothing was set"},
                              {"state_at_rest", as_json(at_rest)},
                              {"state_at_end", as_json(card_state(card.bus_id))},
                              {"card_weights", common.card_weights},
                              {"step_rows", f.step_rows},
                              {"copy_bytes_per_s", ceilings.bytes_per_s},
                              {"gemm_flops", ceilings.flops},
                              {"plan", common.plan},
                              {"kv_store", common.kv_store},
                              {"results", bench.rows}}
              << "\n";
  }
  return {};
}

}  // namespace

/// redknot bench shapes: TTFT and decode steps of real shapes with random weights, on a card.
Command cmd_bench_shapes() {
  return {
      .name = "bench shapes",
      .summary = "real model shapes with random weights on a card: TTFT and decode steps",
      .examples = "  redknot bench shapes --device cuda --shape qwen3-32b --lengths 32768\n",
      .uses = kUsesPlan | kUsesEngine | kUsesSeed | kUsesJson,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<ShapesFlags>();
        std::vector<std::string> known;
        for (const auto name : model::model_shape_names()) known.emplace_back(name);
        flags.choice("--shape", f->config, known, "whose shape");
        flags.add("--lengths", f->lengths, "prompt lengths of the TTFT runs, separated by commas");
        flags.add("--batches", f->batches, "batch sizes of the decode runs");
        flags.add("--depth", f->depth, "context of the decode runs");
        flags.add("--document-tokens", f->document_tokens, "tokens of a document");
        flags.add("--question-tokens", f->question_tokens, "tokens behind the documents");
        flags.add("--modes", f->modes, "modes beside dense, with their number: boundary:32");
        flags.add("--step-rows", f->step_rows,
                  "rows of a prefill step; 0: the engine's own choice");
        flags.add("--repeats", f->repeats,
                  "counted runs; of long ones two at least, until 20 s have passed");
        flags.add("--steps", f->steps,
                  "decode steps, the first three not counted; 16 more have one of each page");
        return {[f, &common] { return bench_shapes(*f, common); },
                [f]() -> Status {
                  if (f->repeats < 1 || f->steps < 4 || f->document_tokens < 1 ||
                      f->question_tokens < 1 || f->depth < 1) {
                    return invalid_argument("bench shapes: a count is too small");
                  }
                  return rag::parse_mode_list(f->modes).status();
                }};
      },
  };
}

}  // namespace rk::cli
