#include <boost/json.hpp>
#include <iostream>
#include <memory>

#include "main/cli.h"
#include "main/pull.h"

namespace rk::cli {

/// redknot pull: a model into the model directory; prints its path.
Command cmd_pull() {
  return {
      .name = "pull",
      .summary = "fetch a model, verify it, print its path",
      .examples =
          "  redknot pull smollm2\n"
          "  redknot pull HuggingFaceTB/SmolLM2-360M-Instruct\n"
          "  redknot pull org/repo:model.Q4_K_M.gguf --sha256 DIGEST\n"
          "  redknot pull https://example.org/model.gguf\n",
      .uses = kUsesJson,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto o = std::make_shared<PullOptions>();
        o->source = "smollm2";
        flags.positional("SOURCE", o->source,
                         "known name, org/repo[:file] or URL (default smollm2)", false);
        flags.add("--sha256", o->sha256, "wanted digest of the one file, hex");
        flags.add("--hub", o->hub, "base URL of the hub (default https://huggingface.co)");
        flags.add("--dir", o->dir,
                  "model directory (default: $REDKNOT_HOME/models or the user's data)");
        flags.add("--max-bytes", o->max_bytes, "refuse files larger than this");
        flags.add("--retries", o->retries, "tries after a cut connection, each resuming");
        const auto check = [o]() -> Status {
          if (!o->sha256.empty() && o->sha256.size() != 64) {
            return invalid_argument("--sha256: ", o->sha256.size(), " characters, 64 wanted");
          }
          if (o->max_bytes <= 0 || o->retries < 0 || o->retries > 100) {
            return invalid_argument("--max-bytes must be positive, --retries within 0..100");
          }
          return {};
        };
        const auto run = [o, &common]() -> Status {
          Progress progress;
          RK_TRY(const Pulled got, pull(*o, progress));
          if (!got.verified) progress.note("the server named no SHA-256: bytes were not verified");
          if (common.json) {
            std::cout << boost::json::object{{"path", got.path},
                                             {"bytes", got.bytes},
                                             {"sha256", got.sha256},
                                             {"verified", got.verified},
                                             {"already_there", got.already_there}}
                      << "\n";
          } else {
            std::cout << got.path << "\n";
          }
          return {};
        };
        return {run, check};
      },
  };
}

}  // namespace rk::cli
