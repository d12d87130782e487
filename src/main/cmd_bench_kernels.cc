#include <boost/json.hpp>
#include <iomanip>
#include <iostream>
#include <memory>

#include "main/bench_kernels.h"
#include "main/cli.h"
#include "main/version.h"
#include "model/shapes.h"

namespace rk::cli {
namespace {

namespace json = boost::json;

struct KernelsFlags {
  std::string shape = "qwen3-32b", part;
  int64_t step_rows = 4096;
  bool all_paths = false;
};

/// The share of the time that the slower of memory and arithmetic would take; < 0: not known.
double share_of_bound(const KernelFigure& f, const Ceilings& c) {
  if (c.flops <= 0 && !f.is_streaming) return -1;
  const double memory = f.bytes / c.bytes_per_s, arithmetic = c.flops > 0 ? f.flops / c.flops : 0;
  return std::max(memory, arithmetic) / (f.ms.median * 1e-3);
}

class Table {
 public:
  explicit Table(const Ceilings& ceilings) : ceilings_(ceilings) {}
  void head() const {
    std::cout << std::left << std::setw(48) << "kernel" << std::right << std::setw(11) << "ms"
              << std::setw(19) << "least to most" << std::setw(11) << "GFLOP/s" << std::setw(8)
              << "GB/s" << std::setw(10) << "of bound" << std::setw(10) << "error" << std::endl;
  }
  void row(const KernelFigure& f) const {
    const double seconds = f.ms.median * 1e-3;
    std::cout << std::left << std::setw(48) << f.kernel + " " + f.name << std::right << std::fixed
              << std::setprecision(4) << std::setw(11) << f.ms.median << std::setw(10) << f.ms.least
              << std::setw(9) << f.ms.most << std::setprecision(0) << std::setw(11)
              << f.flops / seconds * 1e-9 << std::setw(8) << f.bytes / seconds * 1e-9;
    if (const double share = share_of_bound(f, ceilings_); share >= 0) {
      std::cout << std::setw(8) << 100 * share << " %";
    } else {
      std::cout << std::setw(10) << "";
    }
    if (f.error >= 0)
      std::cout << std::scientific << std::setprecision(1) << std::setw(10) << f.error;
    std::cout << std::endl;
  }

 private:
  Ceilings ceilings_;
};

json::object row_of(const KernelFigure& f, const Ceilings& ceilings) {
  const double seconds = f.ms.median * 1e-3, share = share_of_bound(f, ceilings);
  json::object row{{"kernel", f.kernel},
                   {"name", f.name},
                   {"ms", f.ms.median},
                   {"least_ms", f.ms.least},
                   {"most_ms", f.ms.most},
                   {"flops_per_s", f.flops / seconds},
                   {"bytes_per_s", f.bytes / seconds}};
  if (share >= 0) row["of_bound"] = share;
  if (f.error >= 0) row["error"] = f.error;
  return row;
}

Status bench_kernels(const KernelsFlags& f, const CommonFlags& common) {
  RK_TRY(const Device device, parse_device(common.device));
  std::string machine;
  Ceilings ceilings;
  ThreadPool pool(common.threads);
  if (device.is_cuda()) {
    RK_TRY(const CardInfo card, open_card(device.index));
    machine = card.name;
    RK_TRY(ceilings, card_ceilings());
  } else {
    machine = cat("cpu, ", pool.num_threads(), " threads");
    RK_TRY(ceilings, host_ceilings(pool));
  }
  if (!common.json) {
    std::cout << machine << ": memory " << std::fixed << std::setprecision(0)
              << ceilings.bytes_per_s * 1e-9 << " GB/s";
    if (device.is_cuda())
      std::cout << " copied, bf16 GEMM " << ceilings.flops * 1e-12 << " TFLOP/s";
    std::cout << std::endl;
  }
  const Table table(ceilings);
  json::array rows;
  KernelBench bench{.part = f.part, .all_paths = f.all_paths};
  bench.report = [&](const KernelFigure& figure) {
    rows.push_back(row_of(figure, ceilings));
    if (common.json) return;
    if (rows.size() == 1) table.head();
    table.row(figure);
  };
  if (device.is_cuda()) {
    RK_TRY(const auto config, model::model_shape(f.shape, 4096));
    RK_RETURN_IF_ERROR(bench_card_attention(bench));
    RK_RETURN_IF_ERROR(bench_card_layers(bench, config, f.step_rows));
  } else {
    kernels::Context ctx{.pool = &pool, .forced = &common.kernels};
    RK_RETURN_IF_ERROR(bench_host_kernels(bench, ctx));
  }
  if (rows.empty()) return invalid_argument("--part: no case's name contains \"", f.part, "\"");
  if (common.json) {
    std::cout << json::object{{"bench", "kernels"},
                              {"commit", commit()},
                              {"machine", machine},
                              {"memory_bytes_per_s", ceilings.bytes_per_s},
                              {"gemm_flops", ceilings.flops},
                              {"shape", device.is_cuda() ? f.shape : ""},
                              {"results", rows}}
              << "\n";
  }
  return {};
}

}  // namespace

/// redknot bench kernels: attention, products and row operations alone, beside what this machine's
/// memory and arithmetic do in the same run.
Command cmd_bench_kernels() {
  return {
      .name = "bench kernels",
      .summary = "kernels alone, each beside this machine's memory and arithmetic speed",
      .examples =
          "  redknot bench kernels --device cuda --json\n"
          "  redknot bench kernels --device cuda --part 'decode 1 x 32K'\n"
          "  redknot bench kernels --part gemm\n",
      .uses = kUsesEngine | kUsesJson,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<KernelsFlags>();
        std::vector<std::string> known;
        for (const auto name : model::model_shape_names()) known.emplace_back(name);
        flags.add("--part", f->part, "only cases whose name contains this");
        flags.choice("--shape", f->shape, known, "whose products a card runs");
        flags.add("--step-rows", f->step_rows, "rows of a prefill step on a card");
        flags.add("--all-paths", f->all_paths,
                  "on a card, also the paths that the engine would not take");
        return {[f, &common] { return bench_kernels(*f, common); },
                [f]() -> Status {
                  if (f->step_rows >= 1) return {};
                  return invalid_argument("--step-rows: ", f->step_rows, ", at least 1 wanted");
                }};
      },
  };
}

}  // namespace rk::cli
