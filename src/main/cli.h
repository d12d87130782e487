// Subcommands and their flags. A subcommand is one file with one function that returns a Command,
// and one line in main.cc. Flags are also read from the environment (REDKNOT_<NAME>) and a TOML
// file
// (--config); order: default < file < environment < flag. Only cli.cc sees the flag library.
// Main thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace rk::cli {

/// Flags that several subcommands share; each takes the groups that it names in Command::uses.
struct CommonFlags {
  std::string model = "smollm2";    ///< path, or a name that `pull` knows
  std::string plan;                 ///< head plan JSON; empty: all heads global
  std::string card;                 ///< card of measured fidelity; empty: none
  std::string company = "neutral";  ///< what documents are computed behind, see serve/company.h
  std::string device = "cpu";
  std::string card_weights = "auto";  ///< how a card keeps the layers' matrices
  bool fit = false;  ///< on a card: a shorter context where the model's does not fit
  int threads = 0;   ///< 0: the cores this process may use
  std::map<std::string, std::string, std::less<>> kernels;  ///< op -> forced variant
  std::string kv_dtype = "f16";
  std::string kv_store = "auto";  ///< how documents at rest are kept, kv::RowFormat
  int64_t kv_store_bytes = 0;     ///< of documents at rest in fewer bits; 0: as many as the pool's
  uint64_t seed = 0;
  bool json = false;
  std::string log_level = "warn";
  std::string command_line;  ///< as it was given, for results: "redknot bench shapes --json"
};

enum Uses : unsigned {
  kUsesNothing = 0,
  kUsesModel = 1,     ///< -m/--model
  kUsesPlan = 2,      ///< --plan
  kUsesEngine = 4,    ///< --device, --card, --card-weights, --fit, --threads, --kernel, --kv-dtype,
                      ///< --kv-store, --kv-store-bytes
  kUsesSeed = 8,      ///< --seed
  kUsesJson = 16,     ///< --json
  kUsesCompany = 32,  ///< --company
};

/// What a subcommand declares its own flags on. `names` is "--mode" or "-d,--document"; the default
/// is the value that the variable holds. Variables must live as long as the Action.
class Flags {
 public:
  virtual ~Flags() = default;
  virtual void add(const char* names, std::string& value, const char* help) = 0;
  virtual void add(const char* names, int& value, const char* help) = 0;
  virtual void add(const char* names, int64_t& value, const char* help) = 0;
  virtual void add(const char* names, uint64_t& value, const char* help) = 0;
  virtual void add(const char* names, double& value, const char* help) = 0;
  virtual void add(const char* names, bool& value, const char* help) = 0;  ///< takes no value
  virtual void add(const char* names, std::vector<std::string>& value,
                   const char* help) = 0;  ///< may repeat
  /// A value out of `known`.
  virtual void choice(const char* names, std::string& value, const std::vector<std::string>& known,
                      const char* help) = 0;
  /// An argument without a flag, in order of declaration.
  virtual void positional(const char* name, std::string& value, const char* help,
                          bool required) = 0;
  /// All further arguments without a flag.
  virtual void positionals(const char* name, std::vector<std::string>& value, const char* help) = 0;
};

struct Action {
  std::function<Status()> run;         ///< not ok: one line on stderr, exit code 1
  std::function<Status()> check = {};  ///< before run; not ok: wrong usage, exit code 2
};

struct Command {
  std::string name;  ///< "pull", or "eval tokens": a subcommand of a group
  std::string summary;
  std::string examples;  ///< lines of --help
  unsigned uses = kUsesNothing;
  std::function<Action(Flags& flags, const CommonFlags& common)> declare;
};

/// Parses, runs, reports. Returns the exit code: 0 ok, 1 failed, 2 wrong usage.
int run_commands(int argc, char** argv, std::span<const Command> commands);

/// The nearest of `known` to a mistyped `word`, or "" where none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace rk::cli
