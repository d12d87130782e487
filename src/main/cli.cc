#include "main/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <iostream>

#include "base/log.h"
#include "main/version.h"
#include "tensor/device.h"

namespace rk::cli {
namespace {

std::string env_name(const std::string& flag) {  // "--kv-dtype" -> "REDKNOT_KV_DTYPE"
  std::string out = "REDKNOT_";
  for (const char c : flag.substr(flag.find_first_not_of('-'))) {
    out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out;
}

class AppFlags final : public Flags {
 public:
  explicit AppFlags(CLI::App& app) : app_(app) {}

  void add(const char* names, std::string& v, const char* help) override { option(names, v, help); }
  void add(const char* names, int& v, const char* help) override { option(names, v, help); }
  void add(const char* names, int64_t& v, const char* help) override { option(names, v, help); }
  void add(const char* names, uint64_t& v, const char* help) override { option(names, v, help); }
  void add(const char* names, double& v, const char* help) override { option(names, v, help); }
  void add(const char* names, bool& v, const char* help) override {
    mirror(app_.add_flag(names, v, help));
  }
  void add(const char* names, std::vector<std::string>& v, const char* help) override {
    // One value for each occurrence, so that arguments without a flag may follow.
    mirror(app_.add_option(names, v, help)->allow_extra_args(false)->take_all());
  }
  void choice(const char* names, std::string& v, const std::vector<std::string>& known,
              const char* help) override {
    std::string list;
    for (const std::string& name : known) list += cat(list.empty() ? "" : ", ", name);
    const auto check = [known, list](const std::string& given) -> std::string {
      if (std::find(known.begin(), known.end(), given) != known.end()) return "";
      const std::string near = nearest(given, known);
      return cat("'", given, "' is none of ", list, near.empty() ? "" : "; did you mean ", near,
                 near.empty() ? "" : "?");
    };
    mirror(
        app_.add_option(names, v, cat(help, " (", list, ")"))->capture_default_str()->check(check));
  }
  void positional(const char* name, std::string& v, const char* help, bool required) override {
    app_.add_option(name, v, help);
    if (required) required_.push_back(name);
  }
  void positionals(const char* name, std::vector<std::string>& v, const char* help) override {
    app_.add_option(name, v, help);
  }
  const std::vector<std::string>& required() const { return required_; }

 private:
  template <class T>
  void option(const char* names, T& value, const char* help) {
    mirror(app_.add_option(names, value, help)->capture_default_str());
  }
  void mirror(CLI::Option* option) {
    option->multi_option_policy(option->get_items_expected_max() > 1
                                    ? CLI::MultiOptionPolicy::TakeAll
                                    : CLI::MultiOptionPolicy::TakeLast);
    if (!option->get_lnames().empty()) {
      option->envname(env_name("--" + option->get_lnames().front()));
    }
  }
  CLI::App& app_;
  std::vector<std::string> required_;
};

void add_common(CLI::App& app, AppFlags& flags, unsigned uses, CommonFlags& common,
                std::vector<std::string>& kernels, std::string& config) {
  if (uses & kUsesModel) flags.add("-m,--model", common.model, "path, or a name that `pull` knows");
  if (uses & kUsesPlan) flags.add("--plan", common.plan, "head plan, a JSON file");
  if (uses & kUsesEngine) {
    flags.add("--device", common.device, "where the model runs: cpu, cuda or cuda:N");
    flags.add("--card", common.card,
              "card of measured fidelity, a JSON file: what the gate allows; default: the cards "
              "of this model in $REDKNOT_HOME/cards and among those that came with redknot");
    flags.choice("--card-weights", common.card_weights, {"auto", "bf16", "fp8"},
                 "weights on a card: auto keeps what the file has");
    flags.add("--fit", common.fit, "on a card: a shorter context where the model's does not fit");
    flags.add("--threads", common.threads, "threads of the engine; 0: all usable cores");
    flags.add("--kernel", kernels, "OP=VARIANT, force a kernel's variant; may repeat");
    flags.choice("--kv-dtype", common.kv_dtype, {"f16", "f32"},
                 "type of K and V as computed; a card keeps bf16");
    flags.choice("--kv-store", common.kv_store, {"auto", "int8", "k8v4", "fp8"},
                 "how documents at rest are kept: auto as computed, the others in fewer bits");
    flags.add("--kv-store-bytes", common.kv_store_bytes,
              "room for documents at rest in fewer bits; 0: as much as the KV pool's");
  }
  if (uses & kUsesCompany) {
    flags.add("--company", common.company,
              "what documents are computed behind besides the lead: neutral[:TOKENS], mean:K, none "
              "or a text file");
  }
  if (uses & kUsesSeed) flags.add("--seed", common.seed, "seed of everything random");
  if (uses & kUsesJson) flags.add("--json", common.json, "print results as JSON");
  flags.choice("--log-level", common.log_level, {"debug", "info", "warn", "error", "off"},
               "diagnostics on stderr");
  app.add_option("--config", config, "TOML file with flags, keyed by their names")
      ->envname("REDKNOT_CONFIG");
}

/// One declared subcommand.
struct Entry {
  const Command* command = nullptr;
  CLI::App* app = nullptr;
  std::unique_ptr<AppFlags> flags;
  CommonFlags common;
  std::vector<std::string> kernels;
  std::string config;
  Action action;
};

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& known) {
  const std::string near = nearest(word, known);
  return near.empty() ? "" : cat("; did you mean ", near, "?");
}

/// What was left over by the parser, as an error.
Status leftover(const std::vector<std::string>& left, const CLI::App& app) {
  for (const std::string& word : left) {
    if (word.size() > 1 && word[0] == '-' && word != "--") {
      const std::string name = word.substr(0, word.find('='));
      return invalid_argument("unknown flag ", name, did_you_mean(name, flag_names(app)));
    }
  }
  return invalid_argument("unexpected argument '", left.front(), "'");
}

/// The entry a section of the config file belongs to; null where none does.
Entry* find_entry(std::vector<Entry>& entries, const std::string& section) {
  for (Entry& e : entries) {
    if (e.command->name == section) return &e;
  }
  return nullptr;
}

/// Applies the config file's values to flags that neither the command line nor the environment set.
Status apply_config(Entry& chosen, std::vector<Entry>& entries) {
  if (chosen.config.empty()) return {};
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_file(chosen.config);
  } catch (const CLI::Error& e) {
    return invalid_argument(chosen.config, ": ", e.what());
  }
  // A value in the command's own section beats one at the top: sections first.
  std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    return a.parents.size() > b.parents.size();
  });
  for (const CLI::ConfigItem& item : items) {
    if (item.name == "++" || item.name == "--") continue;  // the parser's section marks
    std::string section;
    for (const std::string& p : item.parents) section += cat(section.empty() ? "" : " ", p);
    const std::string flag = "--" + item.name;
    bool known = false;
    std::vector<std::string> all;
    for (const Entry& e : entries) {
      if (!section.empty() && e.command->name != section) continue;
      known = known || e.app->get_option_no_throw(flag) != nullptr;
      for (std::string& name : flag_names(*e.app)) all.push_back(std::move(name));
    }
    if (!section.empty() && find_entry(entries, section) == nullptr) {
      return invalid_argument(chosen.config, ": section [", section, "] is no subcommand");
    }
    if (!known || item.name == "config" || item.name == "help") {
      return invalid_argument(chosen.config, ": unknown key '", item.name, "'",
                              did_you_mean(flag, all));
    }
    CLI::Option* option = chosen.app->get_option_no_throw(flag);
    const bool ours = section.empty() || section == chosen.command->name;
    if (!ours || option == nullptr || option->count() > 0) continue;
    try {
      for (const std::string& value : item.inputs) option->add_result(value);
      option->run_callback();
    } catch (const CLI::Error& e) {
      return invalid_argument(chosen.config, ": ", item.name, ": ", e.what());
    }
  }
  return {};
}

Status check_entry(Entry& e) {
  for (const std::string& name : e.flags->required()) {
    if (e.app->get_option(name)->count() == 0) return invalid_argument("missing argument ", name);
  }
  for (const std::string& pair : e.kernels) {
    const size_t eq = pair.find('=');
    if (eq == std::string::npos || eq == 0 || eq + 1 == pair.size()) {
      return invalid_argument("--kernel: '", pair, "' is not OP=VARIANT");
    }
    e.common.kernels[pair.substr(0, eq)] = pair.substr(eq + 1);
  }
  RK_RETURN_IF_ERROR(parse_device(e.common.device).status());
  if (e.common.kv_store_bytes < 0) {
    return invalid_argument("--kv-store-bytes: ", e.common.kv_store_bytes, " is negative");
  }
  if (e.common.threads < 0 || e.common.threads > 4096) {
    return invalid_argument("--threads: ", e.common.threads, " is outside 0..4096");
  }
  RK_TRY(const log::Level level, log::parse_level(e.common.log_level));
  log::set_level(level);
  return e.action.check ? e.action.check() : Status();
}

int usage_error(const std::string& where, const std::string& message) {
  std::cerr << where << ": " << message << "\n(" << where << " --help shows what it takes)\n";
  return 2;
}

void declare(CLI::App& root, std::map<std::string, CLI::App*>& groups, Entry& e) {
  const std::string& name = e.command->name;
  CLI::App* parent = &root;
  std::string leaf = name;
  if (const size_t space = name.find(' '); space != std::string::npos) {
    const std::string group = name.substr(0, space);
    leaf = name.substr(space + 1);
    CLI::App*& made = groups[group];
    if (made == nullptr) {
      made = root.add_subcommand(group, "");
      made->allow_extras();
    }
    parent = made;
    const std::string so_far = made->get_description();
    made->description(cat(so_far, so_far.empty() ? "one of: " : ", ", leaf));
  }
  e.app = parent->add_subcommand(leaf, e.command->summary);
  e.app->allow_extras();
  e.app->footer(e.command->examples.empty() ? "" : "Examples:\n" + e.command->examples);
  e.flags = std::make_unique<AppFlags>(*e.app);
  e.action = e.command->declare(*e.flags, e.common);
  add_common(*e.app, *e.flags, e.command->uses, e.common, e.kernels, e.config);
}

/// No subcommand was chosen: say which there are.
int no_command(const CLI::App& root, const CLI::App& app, const std::string& where) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  const std::vector<std::string> left = root.remaining(true);
  if (left.empty()) {
    std::cerr << app.help();
    return 2;
  }
  if (left.front()[0] == '-') return usage_error(where, leftover(left, app).message());
  return usage_error(where,
                     cat("no subcommand '", left.front(), "'", did_you_mean(left.front(), names)));
}

int run(int argc, char** argv, std::span<const Command> commands) {
  CLI::App root("RedKnot: a language model engine that reuses documents' KV per head", "redknot");
  root.allow_extras();
  root.set_version_flag("--version", version_text());
  std::vector<Entry> entries(commands.size());
  std::map<std::string, CLI::App*> groups;
  for (size_t i = 0; i < commands.size(); ++i) {
    entries[i].command = &commands[i];
    declare(root, groups, entries[i]);
  }
  const auto parsed_entry = [&]() -> Entry* {
    for (Entry& e : entries) {
      if (e.app->parsed()) return &e;
    }
    return nullptr;
  };
  const auto where = [&] {
    const Entry* e = parsed_entry();
    return e == nullptr ? std::string("redknot") : "redknot " + e->command->name;
  };
  try {
    root.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return root.exit(e, std::cout, std::cerr);
  } catch (const CLI::ParseError& e) {
    return usage_error(where(), e.what());
  }
  Entry* chosen = parsed_entry();
  if (chosen == nullptr) {
    for (const CLI::App* group : root.get_subcommands()) {
      return no_command(root, *group, "redknot " + group->get_name());
    }
    return no_command(root, root, "redknot");
  }
  if (const auto left = root.remaining(true); !left.empty()) {
    return usage_error(where(), leftover(left, *chosen->app).message());
  }
  if (const Status s = apply_config(*chosen, entries); !s.ok())
    return usage_error(where(), s.message());
  if (const Status s = check_entry(*chosen); !s.ok()) return usage_error(where(), s.message());
  chosen->common.command_line = "redknot";
  for (int i = 1; i < argc; ++i) chosen->common.command_line += cat(" ", argv[i]);
  const Status status = chosen->action.run();
  std::cout.flush();
  if (!status.ok()) {
    std::cerr << where() << ": " << status.message() << "\n";
    return 1;
  }
  if (!std::cout) {
    std::cerr << where() << ": the output could not be written\n";
    return 1;
  }
  return 0;
}

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    // Edit distance, with a swap of neighbours as one step.
    const size_t n = word.size(), m = candidate.size();
    std::vector<std::vector<size_t>> d(n + 1, std::vector<size_t>(m + 1));
    for (size_t i = 0; i <= n; ++i) {
      for (size_t j = 0; j <= m; ++j) {
        if (i == 0 || j == 0) {
          d[i][j] = i + j;
          continue;
        }
        const size_t same = word[i - 1] == candidate[j - 1] ? 0 : 1;
        d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + same});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1]) {
          d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
        }
      }
    }
    if (d[n][m] < best_distance && d[n][m] < std::max(n, m)) {
      best_distance = d[n][m];
      best = candidate;
    }
  }
  return best;
}

int run_commands(int argc, char** argv, std::span<const Command> commands) {
  try {
    return run(argc, argv, commands);
  } catch (const std::exception& e) {  // out of memory, or a library's surprise
    std::cerr << "redknot: " << e.what() << "\n";
    return 1;
  }
}

}  // namespace rk::cli
