// Real shapes with random weights made on the card: what the engine's own path takes, beside what
// this card's measured memory speed and matrix speed would allow.
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <iomanip>
#include <iostream>
#include <memory>

#include "kernels/layer/layer_cuda.h"
#include "main/bench_kernels.h"
#include "main/bench_tools.h"
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
  int repeats = 3, steps = 16, step_rows = 0;
};

constexpr int64_t kLeadTokens = 16;

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

Status print_ttft(const ShapesFlags& f, const CommonFlags& common, engine::Engine& engine,
                  int64_t length, const Ceilings& ceilings, json::array& rows) {
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
    engine::RequestStats stats;
    for (int i = -1; i < f.repeats; ++i) {  // the first warms up and computes the documents
      request.cache_write = i < 0;
      Timer timer;
      engine.drop_expanded();  // ready means stored: what reading them takes counts
      engine.run(request, 0, timer);
      RK_RETURN_IF_ERROR(timer.status);
      if (i >= 0) runs.push_back(timer.stats.ttft_ms);
      stats = timer.stats;
    }
    const double ms = median(runs);
    const bool is_dense = mode.mode == engine::Mode::kDense;
    if (is_dense) dense = ms;
    const double ideal = 1e3 *
                         prefill_flops(engine.config(), static_cast<double>(stats.prompt_tokens)) /
                         ceilings.flops;
    json::object row{{"what", "ttft"},
                     {"mode", mode.name},
                     {"prompt_tokens", stats.prompt_tokens},
                     {"active_rows", stats.recomputed + stats.fresh},
                     {"ttft_ms", ms},
                     {"runs_ms", json::array(runs.begin(), runs.end())},
                     {"probe_ms", stats.probe_ms},
                     {"ffn_skipped", stats.ffn_skipped},
                     {"store_bytes", stats.store_bytes},
                     {"speedup", dense / ms}};
    if (is_dense) row["gemm_bound_ms"] = ideal;
    rows.push_back(row);
    if (common.json) continue;
    std::cout << std::fixed << std::setprecision(1) << "ttft " << std::setw(7)
              << stats.prompt_tokens << " tokens  " << std::left << std::setw(14) << mode.name
              << std::right << std::setw(10) << ms << " ms" << std::setw(9) << dense / ms << "x";
    if (is_dense) std::cout << "   all at GEMM speed " << ideal << " ms";
    std::cout << std::endl;
  }
  return {};
}

Status print_decode(const ShapesFlags& f, const CommonFlags& common,
                    const model::ModelConfig& config, const Device& device, int64_t batch,
                    const Ceilings& ceilings, json::array& rows) {
  model::Decoder::Options options;
  options.device = device;
  options.max_step_rows = static_cast<int>(std::max<int64_t>(batch, 16));
  options.max_sequences = static_cast<int>(batch);
  options.card_weights = card_weights(common);
  options.context_tokens = f.depth + f.steps + 64;
  RK_TRY(const auto decoder, model::Decoder::random(config, options));
  kv::PagePool::Options pool_options;
  pool_options.head_dim = config.head_dim;
  pool_options.dtype = DType::kBf16;
  pool_options.memory = Memory::kCard;
  const int heads = config.num_layers * config.num_kv_heads;
  const int64_t pages = (f.depth + f.steps + 2 * 16) / 16 * heads * batch;
  pool_options.capacity_bytes = pages * kv::PagePool::page_bytes(pool_options);
  RK_TRY(const auto pool, kv::PagePool::create(pool_options));
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(pool->k_pages(), 3, 1.0F, nullptr));
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(pool->v_pages(), 4, 1.0F, nullptr));
  RK_RETURN_IF_ERROR(sync_stream(nullptr));
  std::vector<std::unique_ptr<kv::SequenceKv>> sequences;
  std::vector<int32_t> positions(static_cast<size_t>(f.depth));
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
  for (int64_t b = 0; b < batch; ++b) {
    sequences.push_back(
        std::make_unique<kv::SequenceKv>(*pool, config.num_layers, config.num_kv_heads,
                                         std::vector<kv::Visible>(static_cast<size_t>(heads))));
    sequences.back()->add_fresh(0, static_cast<int32_t>(f.depth));
    RK_RETURN_IF_ERROR(sequences.back()->prepare(positions));
  }
  std::vector<int32_t> token(static_cast<size_t>(batch), 7), position(static_cast<size_t>(batch)),
      wanted(static_cast<size_t>(batch));
  const std::vector<kernels::SampleRow> greedy(static_cast<size_t>(batch));
  model::StepSampling sampling{greedy, {}, token.data()};
  std::vector<double> times, host_times;
  kernels::Context ctx;
  for (int step = 0; step < f.steps; ++step) {
    const double begin = now_ms();
    std::vector<model::StepSequence> active;
    for (size_t b = 0; b < sequences.size(); ++b) {
      position[b] = static_cast<int32_t>(f.depth) + step;
      wanted[b] = static_cast<int32_t>(b);
      RK_RETURN_IF_ERROR(sequences[b]->prepare({&position[b], 1}));
      active.push_back({sequences[b].get(), {&token[b], 1}, {&position[b], 1}});
    }
    const double prepared_ms = now_ms() - begin;
    RK_RETURN_IF_ERROR(decoder->forward({active, wanted, View(), &sampling}, ctx));
    if (step < 3) continue;
    times.push_back(now_ms() - begin);
    host_times.push_back(prepared_ms + decoder->host_ms());
  }
  const double ms = median(times);
  const double kv_bytes = static_cast<double>(batch * f.depth) * heads * config.head_dim * 4;
  const double bytes = static_cast<double>(decoder->weight_bytes()) -
                       static_cast<double>(config.vocab_size * config.hidden * 2) + kv_bytes;
  const double bound = 1e3 * bytes / ceilings.bytes_per_s;
  rows.push_back(json::object{{"what", "decode"},
                              {"batch", batch},
                              {"depth", f.depth},
                              {"step_ms", ms},
                              {"runs_ms", json::array(times.begin(), times.end())},
                              {"bytes", bytes},
                              {"host_ms", median(host_times)},
                              {"memory_bound_ms", bound},
                              {"over_bound", ms / bound}});
  if (!common.json) {
    std::cout << std::fixed << std::setprecision(2) << "decode at " << f.depth << ", batch "
              << batch << ": " << ms << " ms a step, memory bound " << bound << " ms ("
              << ms / bound << "x), host work " << median(host_times) << " ms" << std::endl;
  }
  return {};
}

Status bench_shapes(const ShapesFlags& f, const CommonFlags& common) {
  RK_TRY(const Device device, parse_device(common.device));
  if (!device.is_cuda())
    return invalid_argument("--device: real shapes run on a card; --device cuda wanted");
  RK_TRY(const auto lengths, numbers(f.lengths, "--lengths"));
  RK_TRY(const auto batches, numbers(f.batches, "--batches"));
  RK_TRY(const CardInfo card, open_card(device.index));
  RK_TRY(const Ceilings ceilings, card_ceilings());
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  RK_TRY(const auto config, model::model_shape(f.config, std::max(longest, f.depth) + 1024));
  if (!common.json) {
    std::cout << card.name << ": copy " << std::fixed << std::setprecision(2)
              << ceilings.bytes_per_s / 1e12 << " TB/s, bf16 GEMM " << ceilings.flops / 1e12
              << " TFLOP/s; " << f.config << ", random weights" << std::endl;
  }
  json::array rows;
  {
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
      RK_RETURN_IF_ERROR(print_ttft(f, common, *engine, length, ceilings, rows));
    }
  }
  for (const int64_t batch : batches) {
    RK_RETURN_IF_ERROR(print_decode(f, common, config, device, batch, ceilings, rows));
  }
  if (common.json) {
    std::cout << json::object{{"bench", "shapes"},
                              {"commit", commit()},
                              {"config", f.config},
                              {"card", card.name},
                              {"copy_bytes_per_s", ceilings.bytes_per_s},
                              {"gemm_flops", ceilings.flops},
                              {"plan", common.plan},
                              {"kv_store", common.kv_store},
                              {"results", rows}}
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
        flags.add("--repeats", f->repeats, "counted runs");
        flags.add("--steps", f->steps, "decode steps, the first three not counted");
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
