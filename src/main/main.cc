// The program: a list of subcommands. To add one, write cmd_x.cc and add its line here.
#include <vector>

#include "main/cli.h"

// clang-format off
#define RK_COMMANDS(use) \
  use(cmd_pull)          \
  use(cmd_inspect)       \
  use(cmd_capacity)      \
  use(cmd_doctor)        \
  use(cmd_eval_tokens)   \
  use(cmd_run) \
  use(cmd_demo) \
  use(cmd_eval_logits) \
  use(cmd_bench_prefill) \
  use(cmd_bench_decode) \
  use(cmd_bench_ttft) \
  use(cmd_bench_rag) \
  use(cmd_bench_report) \
  use(cmd_bench_shapes) \
  use(cmd_bench_kernels) \
  use(cmd_serve)         \
  // last line
// clang-format on

namespace rk::cli {
#define RK_DECLARE(name) Command name();
RK_COMMANDS(RK_DECLARE)
}  // namespace rk::cli

int main(int argc, char** argv) {
#define RK_LIST(name) rk::cli::name(),
  const std::vector<rk::cli::Command> commands = {RK_COMMANDS(RK_LIST)};
  return rk::cli::run_commands(argc, argv, commands);
}
