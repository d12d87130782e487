#include "rag/join.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <tuple>

#include "base/read_file.h"
#include "rag/tasks.h"

namespace rk::rag {
namespace {

namespace json = boost::json;

constexpr size_t kMaxBytes = size_t{1} << 30;
constexpr const char* kDense = "dense";

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

// Runs of before there was a choice name none.
std::string setting(const Fields& fields, std::string_view name) {
  const std::string value = field(fields, name);
  return value.empty() && name == "kv_store" ? "auto" : value;
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
  std::vector<std::string> hashes;  ///< of its own configuration, or of all that it joined
};

Result<Head> read_head(const std::string& path, const std::string& text) {
  boost::system::error_code error;
  const json::value root = json::parse(text, error);
  if (error) return data_loss(path, ": no JSON: ", error.message());
  if (!root.is_object()) return data_loss(path, ": no JSON object");
  const json::object& object = root.get_object();
  const json::value *configuration = object.if_contains("configuration"),
                    *provenance = object.if_contains("provenance");
  if (configuration == nullptr || provenance == nullptr) {
    return data_loss(path, ": no summary of bench rag: configuration or provenance is missing");
  }
  const json::value* hash =
      configuration->is_object() ? configuration->get_object().if_contains("hash") : nullptr;
  if (hash == nullptr || !hash->is_string()) {
    return data_loss(path, ": no summary of bench rag: configuration.hash is missing");
  }
  Head head{read_fields(*configuration), read_fields(*provenance), {}};
  const json::value* joined = configuration->get_object().if_contains("joined");
  if (joined == nullptr || !joined->is_array()) {
    head.hashes.emplace_back(hash->get_string());
    return head;
  }
  for (const json::value& one : joined->get_array()) {
    if (!one.is_string()) return data_loss(path, ": configuration.joined: no list of texts");
    head.hashes.emplace_back(one.get_string());
  }
  return head;
}

Status check_begins_with_dense(const SampleResult& r) {
  if (!r.modes.empty() && r.modes.front().mode == kDense) return {};
  return invalid_argument("samples.jsonl: ", r.id, " begins with ",
                          r.modes.empty() ? "no mode" : r.modes.front().mode,
                          "; dense is what all are compared with");
}

// "mk-4096-12" comes before "mk-4096-100".
std::tuple<int64_t, std::string, size_t, std::string> place(const SampleResult& r) {
  return {r.length_tokens, r.task, r.id.size(), r.id};
}

}  // namespace

Status Joiner::add(const std::string& folder, const std::string& samples,
                   const std::string* summary) {
  RK_RETURN_IF_ERROR(add_samples(folder + "/samples.jsonl", samples));
  return summary == nullptr ? Status() : add_summary(folder, *summary);
}

Status Joiner::add_samples(const std::string& path, const std::string& text) {
  size_t begin = 0;
  for (int64_t number = 1;; ++number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) return {};
    auto result = parse_json_line(text.substr(begin, end - begin));
    if (!result.ok()) return data_loss(path, ":", number, ": ", result.status().message());
    configs_.emplace(result->config, cat(path, ":", number));
    RK_RETURN_IF_ERROR(check_begins_with_dense(*result));
    add_result(std::move(result).value());
    begin = end + 1;
  }
}

// Modes that the sample was met with before are left out, and all of it where no other is left.
void Joiner::add_result(SampleResult result) {
  std::set<std::string>& known = known_[result.key()];
  const bool met = !known.empty();
  const size_t had = result.modes.size();
  std::erase_if(result.modes, [&](const ModeResult& m) {
    return !known.insert(m.mode).second && m.mode != kDense;
  });
  if (met && result.modes.size() == 1) return;
  if (result.modes.size() < had) result.order.clear();
  out_.results.push_back(std::move(result));
}

Status Joiner::add_summary(const std::string& folder, const std::string& text) {
  RK_TRY(const Head head, read_head(folder + "/summary.json", text));
  for (const char* name : kSame) {
    const std::string theirs = setting(head.configuration, name),
                      ours = setting(out_.configuration.fields, name);
    if (!hashes_.empty() && theirs != ours) {
      return invalid_argument(folder, ": ", name, " is ", theirs, ", that of the others ", ours,
                              "; such results cannot stand in one report");
    }
  }
  hashes_.insert(head.hashes.begin(), head.hashes.end());
  for (auto [from, to] : {std::pair(&head.configuration, &out_.configuration.fields),
                          std::pair(&head.provenance, &out_.provenance)}) {
    for (const auto& [name, value] : *from) {
      const auto at = std::ranges::find(*to, name, [](const auto& f) { return f.first; });
      if (at == to->end()) {
        to->emplace_back(name, value);
      } else if ((" | " + at->second + " | ").find(" | " + value + " | ") == std::string::npos) {
        at->second += " | " + value;
      }
    }
  }
  return {};
}

Result<Joined> Joiner::done() && {
  if (hashes_.empty()) return not_found("summary.json: none of the folders has one");
  if (out_.results.empty()) return invalid_argument("samples.jsonl: no sample in any folder");
  for (const auto& [config, where] : configs_) {
    if (hashes_.contains(config)) continue;
    return invalid_argument(where, ": a result of configuration ", config,
                            ", no summary here is of it; nobody knows on what it was measured");
  }
  std::ranges::sort(out_.results, {}, place);
  if (hashes_.size() > 1) out_.configuration.joined.assign(hashes_.begin(), hashes_.end());
  const std::string seed = field(out_.configuration.fields, "seed");
  std::from_chars(seed.data(), seed.data() + seed.size(), out_.seed);
  return std::move(out_);
}

Result<Joined> read_results(std::span<const std::string> folders) {
  Joiner joiner;
  for (const std::string& folder : folders) {
    RK_TRY(const std::string samples, read_file(folder + "/samples.jsonl", kMaxBytes));
    const auto summary = read_file(folder + "/summary.json", kMaxBytes);
    if (!summary.ok() && summary.code() != Code::kNotFound) return summary.status();
    RK_RETURN_IF_ERROR(joiner.add(folder, samples, summary.ok() ? &*summary : nullptr));
  }
  return std::move(joiner).done();
}

Status take_times(const Summary& alone, Summary& summary) {
  for (Group& g : summary.groups) {
    const Group* times = nullptr;  // of all tasks, or of the only one
    for (const Group& other : alone.groups) {
      const bool same = other.mode == g.mode && other.length_tokens == g.length_tokens;
      if (same && (times == nullptr || other.task == kAllTasks)) times = &other;
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

Status take_facts(const Summary& facts, Summary& summary) {
  bool any = false;
  for (Group& g : summary.groups) {
    if (g.task != kAllTasks) continue;
    for (const Group& other : facts.groups) {
      if (other.task != kPlantedFactTask || other.mode != g.mode ||
          other.length_tokens != g.length_tokens) {
        continue;
      }
      g.needle_found = other.needle_found;
      g.needle_lost = other.needle_lost;
      g.needle_loss_bound = other.needle_loss_bound;
      any = true;
    }
  }
  if (!any) return invalid_argument("facts: no sample of task ", kPlantedFactTask, " that fits");
  summary.provenance.emplace_back(
      "facts", cat("of ", facts.num_samples, " samples: ", field(facts.provenance, "command")));
  return {};
}

engine::CardIdentity identity_of(const Configuration& configuration) {
  const Fields& f = configuration.fields;
  return {field(f, "weights_sha256"), field(f, "plan"), field(f, "kv_dtype"),
          setting(f, "kv_store") != "auto"};
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
