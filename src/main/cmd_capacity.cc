#include <boost/json.hpp>
#include <iostream>
#include <memory>

#include "kv/quant_rows.h"
#include "kv/visible.h"
#include "main/cli.h"
#include "main/output.h"
#include "main/progress.h"
#include "main/pull.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/weight_files.h"
#include "tensor/buffer.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

constexpr int kPageRows = 16;

struct CapacityFlags {
  int64_t context = 8192;
  int64_t memory_bytes = 0;
  std::string kv_dtype = "f16";
};

Status capacity(const CapacityFlags& f, const CommonFlags& common) {
  RK_TRY(const std::string path, resolve_model(common.model));
  RK_TRY(const model::WeightFiles files, model::WeightFiles::open(path));
  RK_TRY(const model::ModelConfig c, model::read_config(path));
  RK_TRY(const DType dtype, parse_dtype(f.kv_dtype));
  kv::HeadPlan plan = kv::HeadPlan::all_global(c.num_layers, c.num_kv_heads);
  if (!common.plan.empty()) {
    RK_TRY(plan, kv::HeadPlan::load(common.plan, {c.num_layers, c.num_kv_heads, c.head_dim}));
  }
  const std::vector<int32_t> windows(static_cast<size_t>(c.num_layers), c.sliding_window);
  const kv::Footprint need = kv::footprint(plan, f.context, c.head_dim, dtype, kPageRows, windows);
  const int64_t weights = model::estimate_memory_bytes(files, c, {});
  const int64_t memory = f.memory_bytes > 0
                             ? f.memory_bytes
                             : std::max<int64_t>(0, available_memory_bytes() - weights);
  const auto fit = [memory](int64_t bytes) { return bytes > 0 ? memory / bytes : 0; };
  const int64_t heads = int64_t{c.num_layers} * c.num_kv_heads;
  json::object stored;  // bytes a token of a document at rest takes
  std::vector<std::vector<std::string>> table{
      {"documents at rest", "bytes per token", "tokens in " + human_bytes(memory)}};
  const auto add_format = [&](const char* name, int64_t page_bytes) {
    const int64_t bytes = page_bytes * heads / kPageRows;
    stored[name] = bytes;
    table.push_back({name, cat(bytes), cat(fit(bytes))});
  };
  add_format(
      dtype_name(dtype),
      kv::PagePool::page_bytes({.page_rows = kPageRows, .head_dim = c.head_dim, .dtype = dtype}));
  for (const auto format : {kv::RowFormat::kInt8, kv::RowFormat::kFp8, kv::RowFormat::kK8V4}) {
    if (!kv::check_row_format(format, c.head_dim).ok()) continue;
    add_format(kv::row_format_name(format), kv::quant_page_bytes(format, kPageRows, c.head_dim));
  }
  if (common.json) {
    std::cout << json::object{{"context", f.context},
                              {"dense_bytes", need.dense_bytes},
                              {"head_aware_bytes", need.head_aware_bytes},
                              {"kv_memory_bytes", memory},
                              {"store_bytes_per_token", std::move(stored)},
                              {"sessions",
                               json::object{{"dense", fit(need.dense_bytes)},
                                            {"head_aware", fit(need.head_aware_bytes)}}}}
              << "\n";
    return {};
  }
  if (f.context > c.context_tokens) {
    std::cerr << "the model was trained for " << c.context_tokens << " tokens, " << f.context
              << " asked for\n";
  }
  print_table(
      {{cat(f.context, " tokens"), "bytes per session", "sessions in " + human_bytes(memory)},
       {"dense", human_bytes(need.dense_bytes), cat(fit(need.dense_bytes))},
       {common.plan.empty() ? "head-aware (no plan: all global)" : "head-aware",
        human_bytes(need.head_aware_bytes), cat(fit(need.head_aware_bytes))}});
  std::cout << "\n";
  print_table(table);
  return {};
}

}  // namespace

/// redknot capacity: KV bytes per session, dense beside head-aware.
Command cmd_capacity() {
  return {
      .name = "capacity",
      .summary = "KV bytes per session and sessions that fit, dense beside head-aware",
      .examples =
          "  redknot capacity --context 8192\n"
          "  redknot capacity -m model.gguf --plan plan.json --context 32768 --json\n",
      .uses = kUsesModel | kUsesPlan | kUsesJson,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<CapacityFlags>();
        flags.add("--context", f->context, "tokens each session holds");
        flags.add("--kv-memory", f->memory_bytes,
                  "bytes for KV; 0: what is available less the weights");
        flags.choice("--kv-dtype", f->kv_dtype, {"f16", "f32"}, "type of K and V as computed");
        const auto check = [f]() -> Status {
          if (f->context < 1 || f->context > (int64_t{1} << 30)) {
            return invalid_argument("--context: ", f->context, " is outside 1..", int64_t{1} << 30);
          }
          return f->memory_bytes < 0
                     ? invalid_argument("--kv-memory: ", f->memory_bytes, " is negative")
                     : Status();
        };
        return {[f, &common] { return capacity(*f, common); }, check};
      },
  };
}

}  // namespace rk::cli
