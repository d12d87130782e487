// What `bench kernels` measures, apart from how it prints it: kernels alone, each beside the time
// that this machine's memory or arithmetic would take. The file for a card needs one at run time,
// nothing of CUDA to build.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "kernels/context.h"
#include "model/config.h"
#include "tensor/device.h"

namespace rk::cli {

/// Milliseconds of a call, over several rounds.
struct Spread {
  double median = 0, least = 0, most = 0;
  /// Sorts `ms`, which must not be empty.
  static Spread of(std::vector<double> ms) {
    std::sort(ms.begin(), ms.end());
    return {ms[ms.size() / 2], ms.front(), ms.back()};
  }
};

/// What a machine does at best, measured in the same run; 0: not measured.
struct Ceilings {
  double bytes_per_s = 0;  ///< a card: copied, read and written; a host: read by all threads
  double flops = 0;        ///< a large bf16 product
};

struct KernelFigure {
  std::string kernel;  ///< "attention", "gemm", ...
  std::string name;
  Spread ms;
  double flops = 0, bytes = 0;  ///< of a call; bytes: each input and output once
  bool is_streaming = false;    ///< few rows: memory is the bound, whatever arithmetic could do
  double error = -1;            ///< of sampled rows against double; < 0: not checked
};

struct KernelBench {
  std::string part;  ///< cases whose "kernel name" contains it
  bool all_paths = false;
  std::function<void(const KernelFigure&)> report;
  bool wants(const std::string& kernel, const std::string& name) const {
    return (kernel + " " + name).find(part) != std::string::npos;
  }
};

/// Copy speed and a product's speed of the open card.
Result<Ceilings> card_ceilings();
/// `rounds` times `calls` calls, recorded once and replayed, after one round to warm up. call(i) is
/// the i-th call of a round.
Result<Spread> time_on_card(Stream stream, int rounds, int calls,
                            const std::function<Status(int)>& call);

/// Errors: kInternal where a result is wrong.
Status bench_card_attention(const KernelBench& bench);
/// Products and the rest of a layer of the shape.
Status bench_card_layers(const KernelBench& bench, const model::ModelConfig& config,
                         int64_t step_rows);

Result<Ceilings> host_ceilings(ThreadPool& pool);
Status bench_host_kernels(const KernelBench& bench, kernels::Context& ctx);

}  // namespace rk::cli
