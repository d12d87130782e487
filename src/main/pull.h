// Models by name: where they live on disk, and how they get there. Main thread only.
//
// A model is a file or folder under the model directory: $REDKNOT_HOME/models, or
// $XDG_DATA_HOME/redknot/models, or ~/.local/share/redknot/models.
//   known name     smollm2                     <dir>/SmolLM2-135M-Instruct.Q4_1.gguf
//   org/repo:file  one file of a hub repo      <dir>/org/repo/file
//   org/repo       its one GGUF, or its folder <dir>/org/repo
//   URL            one file                    <dir>/host/path
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "main/progress.h"

namespace rk::cli {

struct PullOptions {
  std::string source;  ///< known name, org/repo[:file] or URL
  std::string sha256;  ///< wanted digest of a single file; empty: the server's, if it names one
  std::string hub;     ///< base URL of the hub; empty: $REDKNOT_HUB or https://huggingface.co
  std::string dir;     ///< model directory; empty: the default
  int64_t max_bytes = int64_t{1} << 40;
  int retries = 5;
};

struct Pulled {
  std::string path;  ///< what -m takes
  int64_t bytes = 0;
  std::string sha256;          ///< of a single file
  bool verified = false;       ///< all bytes were compared with a wanted digest
  bool already_there = false;  ///< nothing was fetched
};

/// Fetches a model, or finds that it is there. Errors: download's (main/download.h), with the way
/// to do it by hand where the network is the reason.
Result<Pulled> pull(const PullOptions& options, Progress& progress);

/// Path of a model on this machine: a path that exists, a known name, org/repo[:file], or a file of
/// the model directory. Fetches nothing. Errors: kNotFound saying how to get it.
Result<std::string> resolve_model(const std::string& name_or_path);

/// resolve_model, after a pull where it is a name that is not here yet.
Result<std::string> resolve_or_pull_model(const std::string& name_or_path, Progress& progress);

/// Errors: kNotFound where neither HOME nor REDKNOT_HOME is set.
Result<std::string> model_directory();

/// Where cards (engine/card.h) are looked for: beside the models, and what came with the program.
std::vector<std::string> card_folders();

}  // namespace rk::cli
