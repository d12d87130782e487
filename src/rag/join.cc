#include "rag/join.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <tuple>

namespace rk::rag {
namespace {

namespace json = boost::json;

constexpr size_t kMaxBytes = size_t{1} << 30;

// What results that stand together must agree in.
constexpr const char* kSame[] = {"model",     "weights_sha256", "tokenizer", "plan",
                                 "company",   "kv_dtype",       "kv_store",  "predecessors",
                                 "documents", "max_tokens"};

const std::string* find(const Fields& fields, std::string_view name) {
  for (const auto& [key, value] : fields) {
    if (key == name) return &value;
  }
  return nullptr;
}
std::string field(const Fields& fields, std::string_view name) {
  const std::string* value = find(fields, name);
  return value == nullptr ? "" : *value;
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path, ": no such file");
  std::string text;
  char buffer[1 << 16];
  while (in.read(buffer, sizeof buffer) || in.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxBytes) {
      return invalid_argument(path, ": more than ", kMaxBytes, " bytes of results");
    }
  }
  return text;
}

Fields read_fields(const json::value& value) {
  Fields out;
  if (!value.is_object()) return out;
  for (const auto& [key, text] : value.get_object()) {
    if (text.is_string() && key != "hash") out.emplace_back(key, text.get_string());
  }
  return out;
}

struct Head {
  Fields configuration, provenance;
};

Result<Head> read_head(const std::string& path) {
  RK_TRY(const std::string text, read_text(path));
  boost::system::error_code error;
  const json::value root = json::parse(text, error);
  if (error || !root.is_object()) return data_loss(path, ": no JSON object: ", error.message());
  const json::object& object = root.get_object();
  const json::value *configuration = object.if_contains("configuration"),
                    *provenance = object.if_contains("provenance");
  if (configuration == nullptr || provenance == nullptr) {
    return data_loss(path, ": no summary of bench rag: configuration or provenance is missing");
  }
  return Head{read_fields(*configuration), read_fields(*provenance)};
}

Status add_samples(const std::string& path, std::set<std::string>& known,
                   std::vector<SampleResult>& out) {
  RK_TRY(const std::string text, read_text(path));
  size_t begin = 0;
  for (int64_t number = 1;; ++number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) return {};
    auto result = parse_json_line(text.substr(begin, end - begin));
    if (!result.ok()) return data_loss(path, ":", number, ": ", result.status().message());
    if (known.insert(cat(result->id, "/", result->prompt_digest)).second) {
      out.push_back(std::move(result).value());
    }
    begin = end + 1;
  }
}

// Every sample keeps the modes that all have, in the order of the first.
void keep_common_modes(std::vector<SampleResult>& results) {
  if (results.empty()) return;
  std::vector<std::string> common;
  for (const ModeResult& m : results.front().modes) common.push_back(m.mode);
  for (const SampleResult& r : results) {
    std::erase_if(common, [&](const std::string& name) {
      return std::ranges::find(r.modes, name, &ModeResult::mode) == r.modes.end();
    });
  }
  for (SampleResult& r : results) {
    std::vector<ModeResult> kept;
    for (const std::string& name : common) {
      kept.push_back(std::move(*std::ranges::find(r.modes, name, &ModeResult::mode)));
    }
    r.modes = std::move(kept);
    r.order.clear();
  }
}

// "mk-4096-12" comes before "mk-4096-100".
std::tuple<int64_t, std::string, size_t, std::string> place(const SampleResult& r) {
  return {r.length_tokens, r.task, r.id.size(), r.id};
}

}  // namespace

Result<Joined> read_results(std::span<const std::string> folders) {
  Joined out;
  std::set<std::string> known;
  bool first = true;
  for (const std::string& folder : folders) {
    RK_RETURN_IF_ERROR(add_samples(folder + "/samples.jsonl", known, out.results));
    const auto head = read_head(folder + "/summary.json");
    if (head.code() == Code::kNotFound) continue;
    RK_RETURN_IF_ERROR(head.status());
    for (const char* name : kSame) {
      const std::string theirs = field(head->configuration, name),
                        ours = field(out.configuration.fields, name);
      if (!first && theirs != ours) {
        return invalid_argument(folder, ": ", name, " is ", theirs, ", that of the others ", ours,
                                "; such results cannot stand in one report");
      }
    }
    for (auto [from, to] : {std::pair(&head->configuration, &out.configuration.fields),
                            std::pair(&head->provenance, &out.provenance)}) {
      for (const auto& [name, value] : *from) {
        const auto at = std::ranges::find(*to, name, [](const auto& f) { return f.first; });
        if (at == to->end()) {
          to->emplace_back(name, value);
        } else if ((" | " + at->second + " | ").find(" | " + value + " | ") == std::string::npos) {
          at->second += " | " + value;
        }
      }
    }
    first = false;
  }
  if (first) return not_found("summary.json: none of the folders has one");
  if (out.results.empty()) return invalid_argument("samples.jsonl: no sample in any folder");
  keep_common_modes(out.results);
  std::ranges::sort(out.results, {}, place);
  const std::string seed = field(out.configuration.fields, "seed");
  std::from_chars(seed.data(), seed.data() + seed.size(), out.seed);
  return out;
}

Status take_times(const Summary& alone, Summary& summary) {
  for (Group& g : summary.groups) {
    const Group* times = nullptr;  // of all tasks, or of the only one
    for (const Group& other : alone.groups) {
      const bool same = other.mode == g.mode && other.length_tokens == g.length_tokens;
      if (same && (times == nullptr || other.task == "all")) times = &other;
    }
    if (times == nullptr) {
      return invalid_argument("times: none of mode ", g.mode, " at ", g.length_tokens, " tokens");
    }
    g.ttft_ms = times->ttft_ms;
    g.speedup = times->speedup;
    g.tokens_per_s = times->tokens_per_s;
    g.ingest_ms = times->ingest_ms;
    g.late_ingests = times->late_ingests;
  }
  summary.provenance.emplace_back(
      "times",
      cat("of ", alone.num_samples, " samples run alone: ", field(alone.provenance, "command")));
  return {};
}

engine::CardIdentity identity_of(const Configuration& configuration) {
  const Fields& f = configuration.fields;
  return {field(f, "weights_sha256"), field(f, "plan"), field(f, "kv_dtype")};
}

Result<engine::Fit> fit_of(const Configuration& configuration) {
  const std::string company = field(configuration.fields, "company"),
                    predecessors = field(configuration.fields, "predecessors");
  if (predecessors == "1") return engine::Fit::kPredecessor;
  if (!predecessors.empty() && predecessors != "0") {
    return invalid_argument("predecessors: ", predecessors,
                            " of the documents behind the one before them: a card speaks of the "
                            "worst fit, this is a mixture");
  }
  if (company == "none") return engine::Fit::kLead;
  return company.starts_with("mean:") ? engine::Fit::kMean : engine::Fit::kCompany;
}

}  // namespace rk::rag
