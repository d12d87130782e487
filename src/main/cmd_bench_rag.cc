#include <sys/stat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "base/cpu.h"
#include "base/thread_pool.h"
#include "kv/identity.h"
#include "main/cli.h"
#include "main/output.h"
#include "main/progress.h"
#include "main/rag_output.h"
#include "main/session.h"
#include "main/version.h"
#include "rag/compare.h"
#include "rag/dataset.h"
#include "rag/measured_card.h"
#include "rag/plot.h"
#include "rag/report.h"
#include "rag/summary.h"
#include "tensor/buffer.h"

namespace rk::cli {
namespace {

namespace fs = std::filesystem;

// Templates that print the date must not change the prompt from day to day.
constexpr int64_t kPromptTime = 1'704'067'200;  // 2024-01-01
constexpr int kDefaultSamples = 20;
constexpr int64_t kMinLength = 128, kMaxLength = 1 << 20;
constexpr int kMaxAnswerTokens = 1024;
constexpr int64_t kSlackTokens = 4;  // where spans meet

struct RagFlags {
  std::string data, tasks, modes = "dense,prefix,reuse,boundary:32", lengths = "4096", out;
  std::string shard = "0/1";
  double predecessors = 0;
  int num_samples = 0, num_documents = 0, max_tokens = 32;
};

// "1/4": the second of four parts.
struct Shard {
  size_t index = 0, count = 1;
};
Result<Shard> parse_shard(const std::string& text) {
  Shard shard;
  const char* end = text.data() + text.size();
  const auto index = std::from_chars(text.data(), end, shard.index);
  if (index.ec == std::errc() && index.ptr != end && *index.ptr == '/') {
    const auto count = std::from_chars(index.ptr + 1, end, shard.count);
    if (count.ec == std::errc() && count.ptr == end && shard.index < shard.count) return shard;
  }
  return invalid_argument("--shard: '", text, "', wanted I/N with I from 0 to N - 1");
}

Result<std::vector<int64_t>> parse_lengths(const std::string& text) {
  std::vector<int64_t> lengths;
  for (const std::string& part : rag::split_list(text)) {
    char* end = nullptr;
    const long long value = std::strtoll(part.c_str(), &end, 10);
    if (*end != '\0' || value < kMinLength || value > kMaxLength) {
      return invalid_argument("--lengths: '", part, "', ", kMinLength, " to ", kMaxLength,
                              " tokens wanted");
    }
    if (std::find(lengths.begin(), lengths.end(), value) != lengths.end()) {
      return invalid_argument("--lengths: ", value, " is given twice");
    }
    lengths.push_back(value);
  }
  if (lengths.empty()) return invalid_argument("--lengths: none given");
  return lengths;
}

// The generators asked for; all where neither they nor a file are named.
Result<std::vector<std::string>> parse_tasks(const RagFlags& f) {
  std::vector<std::string> tasks = rag::split_list(f.tasks);
  const auto& known = rag::task_names();
  if (tasks.empty() && f.data.empty()) return known;
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (std::find(known.begin(), known.end(), tasks[i]) == known.end()) {
      const std::string near = nearest(tasks[i], known);
      std::string list;
      for (const std::string& name : known) list += cat(list.empty() ? "" : ", ", name);
      return invalid_argument("--tasks: '", tasks[i], "' is none of ", list,
                              near.empty() ? "" : cat("; did you mean ", near, "?"));
    }
    if (std::find(tasks.begin(), tasks.begin() + static_cast<std::ptrdiff_t>(i), tasks[i]) !=
        tasks.begin() + static_cast<std::ptrdiff_t>(i)) {
      return invalid_argument("--tasks: '", tasks[i], "' is given twice");
    }
  }
  return tasks;
}

Status check(const RagFlags& f) {
  RK_RETURN_IF_ERROR(parse_tasks(f).status());
  RK_RETURN_IF_ERROR(parse_lengths(f.lengths).status());
  RK_RETURN_IF_ERROR(rag::parse_mode_list(f.modes).status());
  RK_RETURN_IF_ERROR(parse_shard(f.shard).status());
  if (!(f.predecessors >= 0 && f.predecessors <= 1)) {
    return invalid_argument("--predecessors: ", f.predecessors, ", 0 to 1 wanted");
  }
  if (f.out.empty()) return invalid_argument("--out: a folder for the results is wanted");
  if (f.num_samples < 0) {
    return invalid_argument("-n: ", f.num_samples, ", at least 0 wanted");
  }
  if (f.num_documents != 0 && (f.num_documents < 2 || f.num_documents > 10'000)) {
    return invalid_argument("--documents: ", f.num_documents, ", 2 to 10000 wanted");
  }
  if (f.max_tokens < 1 || f.max_tokens > kMaxAnswerTokens) {
    return invalid_argument("--max-tokens: ", f.max_tokens, ", 1 to ", kMaxAnswerTokens, " wanted");
  }
  return {};
}

// A letter a head, a slash between layers: "lg/ll" (local, global, retrieval, dense).
std::string head_map(const kv::HeadPlan& plan) {
  std::string out;
  for (int layer = 0; layer < plan.num_layers(); ++layer) {
    if (layer > 0) out += '/';
    for (int head = 0; head < plan.num_kv_heads(); ++head) {
      out += kv::head_class_name(plan.at(layer, head).cls)[0];
    }
  }
  return out;
}

class RagBench {
 public:
  RagBench(const RagFlags& flags, const CommonFlags& common) : flags_(flags), common_(common) {}

  Status run() {
    RK_RETURN_IF_ERROR(prepare());
    std::error_code error;
    fs::create_directories(flags_.out, error);
    if (error) return unavailable(flags_.out, ": ", error.message());
    const fs::path out = flags_.out;
    RK_TRY(auto file, rag::ResultsFile::open((out / "samples.jsonl").string(), options_.config));
    // Now already, so that `bench report` can read what a run that is cut has finished.
    std::vector<const rag::SampleResult*> results;
    RK_RETURN_IF_ERROR(write_rag_summary(flags_.out, summary_of(file, results)));
    Progress progress(common_.json);
    RK_TRY(auto skipped, rag::compare_all(sources_, subject(), options_, file,
                                          [&](size_t done, size_t total, const std::string&) {
                                            progress.steps("bench rag", static_cast<int64_t>(done),
                                                           static_cast<int64_t>(total));
                                          }));
    progress.end();
    rag::Summary summary = summary_of(file, results);
    summary.provenance.emplace(summary.provenance.begin(), "finished", time_now());
    summary.skipped = std::move(skipped);
    // A mixture of fits says nothing of the worst of them, which is what a card must speak of.
    std::optional<engine::Card> card;
    if (flags_.predecessors == 0 || flags_.predecessors == 1) {
      engine::Request asked;
      session_->set_company(asked);
      const engine::Fit fit =
          flags_.predecessors == 1 ? engine::Fit::kPredecessor : engine::asked_fit(asked);
      card = rag::measured_card(summary, results, identity_, fit);
    }
    RK_RETURN_IF_ERROR(write_rag_output(flags_.out, summary, results, card));
    print_rag_summary(summary, flags_.out, common_.json);
    return {};
  }

 private:
  // Everything that can be wrong before the first sample, and nothing written.
  Status prepare() {
    RK_TRY(tasks_, parse_tasks(flags_));
    RK_TRY(lengths_, parse_lengths(flags_.lengths));
    if (!flags_.data.empty()) {
      RK_TRY(data_, rag::read_samples(flags_.data, {.max_samples = flags_.num_samples}));
    }
    const int64_t longest =
        tasks_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end());
    RK_TRY(Session opened, Session::open(common_, data_.empty() ? longest : 0));
    session_ = std::make_unique<Session>(std::move(opened));
    if (longest > session_->engine->context_tokens()) {
      return invalid_argument("--lengths: ", longest, " tokens, the model's context holds ",
                              session_->engine->context_tokens());
    }
    RK_TRY(options_.modes, rag::parse_mode_list(flags_.modes));
    options_.max_tokens = flags_.max_tokens;
    options_.stop_tokens = session_->tokenizer->eos();
    options_.seed = common_.seed;
    options_.company = session_->company.tokens;
    options_.company_pieces = session_->company.pieces;
    options_.predecessors = flags_.predecessors;
    RK_RETURN_IF_ERROR(configure());
    options_.config = configuration_.hash();
    return plan();
  }

  Result<std::vector<engine::PromptSpan>> make_prompt(
      const std::string& question, const std::vector<rag::Document>& documents) const {
    std::vector<serve::Document> shown;
    for (const rag::Document& d : documents) shown.push_back({d.title, d.text});
    const text::Tokenizer& tokenizer = *session_->tokenizer;
    if (!session_->chat) return serve::plain_prompt(tokenizer, question, shown);
    return serve::chat_prompt(tokenizer, *session_->chat, {{"user", question}}, shown,
                              serve::chat_options(tokenizer, kPromptTime));
  }

  rag::Subject subject() const {
    engine::Engine& engine = *session_->engine;
    return {
        .engine = &engine,
        .evaluate =
            [&engine](const engine::Request& request, int64_t rows, std::vector<float>& logits) {
              return engine.evaluate(request, rows, logits, nullptr);
            },
        .clear_store = [&engine] { engine.clear_cache(); },
        .drop_expanded = [&engine] { engine.drop_expanded(); },
        .make_prompt = [this](const auto& question,
                              const auto& documents) { return make_prompt(question, documents); },
        .decode =
            [this](std::span<const int32_t> ids) {
              return session_->tokenizer->decode(ids, true);
            }};
  }

  // The order mixes tasks and lengths, so that a bench cut short has some of each.
  Status plan() {
    RK_TRY(const auto empty, make_prompt("?", {}));
    int64_t overhead = flags_.max_tokens + kSlackTokens;
    for (const auto& span : empty) overhead += static_cast<int64_t>(span.tokens.size());
    const int num = flags_.num_samples > 0 ? flags_.num_samples : kDefaultSamples;
    for (int i = 0; i < num && !tasks_.empty(); ++i) {
      for (const int64_t length : lengths_) {
        for (size_t t = 0; t < tasks_.size(); ++t) {
          rag::TaskOptions options{.length_tokens = length,
                                   .num_documents = flags_.num_documents > 0
                                                        ? flags_.num_documents
                                                        : rag::default_num_documents(length),
                                   .seed = common_.seed,
                                   .index = i,
                                   .overhead_tokens = overhead};
          options.count_tokens = [this](const std::string& text) {
            return static_cast<int64_t>(session_->tokenizer->encode(text, false, false).size());
          };
          sources_.push_back({.id = cat(tasks_[t], "-", length, "-", i),
                              .turn = static_cast<size_t>(i) + t,
                              .make = [task = tasks_[t], options] {
                                return rag::generate_sample(task, options);
                              }});
        }
      }
    }
    for (size_t i = 0; i < data_.size(); ++i) {
      sources_.push_back({.id = "data/" + data_[i].id, .turn = i, .make = [this, i] {
                            rag::Sample sample = data_[i];
                            sample.id = "data/" + sample.id;
                            return Result<rag::Sample>(std::move(sample));
                          }});
    }
    RK_TRY(const Shard shard, parse_shard(flags_.shard));
    std::vector<rag::SampleSource> ours;
    for (size_t i = shard.index; i < sources_.size(); i += shard.count) {
      ours.push_back(std::move(sources_[i]));
    }
    sources_ = std::move(ours);
    return {};
  }

  // What a figure depends on; never which or how many samples.
  Status configure() {
    RK_TRY(identity_, session_->engine->card_identity());
    RK_TRY(const kv::Digest program, kv::file_digest("/proc/self/exe"));
    rag::Fields& fields = configuration_.fields;
    const auto add = [&](const char* name, const auto& value) {
      fields.emplace_back(name, cat(value));
    };
    add("model", session_->path.substr(session_->path.find_last_of('/') + 1));
    add("weights_sha256", identity_.weights);
    add("tokenizer", session_->tokenizer->fingerprint());
    add("plan", identity_.plan);
    const kv::HeadPlan& plan = session_->engine->plan();
    if (!plan.all_global()) add(rag::kHeadMapField, head_map(plan));
    add("company", common_.company);
    add("version", version());
    add("commit", commit());
    add("program_sha256", program.hex());
    add("machine", cpu_brand());
    add("device", common_.device);
    add("threads", common_.threads > 0 ? common_.threads : usable_cores());
    std::string kernels;
    for (const auto& [op, variant] : common_.kernels) kernels += cat(op, "=", variant, " ");
    add("kernels", kernels);
    add("kv_dtype", identity_.kv_dtype);
    add("kv_store", common_.kv_store);
    std::string modes;
    for (const auto& mode : options_.modes) modes += cat(modes.empty() ? "" : ",", mode.name);
    add("modes", modes);
    add("max_tokens", flags_.max_tokens);
    add("documents", flags_.num_documents);
    add("predecessors", flags_.predecessors);
    add("seed", common_.seed);
    if (!flags_.data.empty()) {
      RK_TRY(const kv::Digest data, kv::file_digest(flags_.data));
      add("data_sha256", data.hex());
    }
    return {};
  }

  // Of this run's samples that `file` holds; `results` becomes those.
  rag::Summary summary_of(const rag::ResultsFile& file,
                          std::vector<const rag::SampleResult*>& results) const {
    results.clear();
    for (const rag::SampleSource& source : sources_) {
      if (const auto* result = file.find(source.id)) results.push_back(result);
    }
    rag::Summary summary = rag::summarize(results, common_.seed);
    summary.configuration = configuration_;
    summary.provenance = provenance();
    return summary;
  }

  static std::string time_now() {
    char date[32] = "";
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return date;
  }

  rag::Fields provenance() const {
    rag::Fields fields;
    fields.emplace_back("cpu_features", cpu_feature_names());
    fields.emplace_back("cores", cat(usable_cores()));
    std::string tasks;
    for (const std::string& task : tasks_) tasks += cat(tasks.empty() ? "" : ",", task);
    std::string command = cat("redknot bench rag -m ", configuration_.fields[0].second);
    if (!common_.plan.empty()) command += " --plan " + common_.plan;
    if (!flags_.data.empty()) command += " --data " + fs::path(flags_.data).filename().string();
    if (!tasks.empty()) command += cat(" --tasks ", tasks, " --lengths ", flags_.lengths);
    command += cat(" --modes ", flags_.modes, " -n ", flags_.num_samples, " --documents ",
                   flags_.num_documents, " --max-tokens ", flags_.max_tokens, " --predecessors ",
                   flags_.predecessors, " --company ", common_.company, " --seed ", common_.seed,
                   " --device ", common_.device, " --threads ", common_.threads, " --kv-dtype ",
                   common_.kv_dtype, " --kv-store ", common_.kv_store);
    for (const auto& [op, variant] : common_.kernels)
      command += cat(" --kernel ", op, "=", variant);
    fields.emplace_back("command", command);
    return fields;
  }

  const RagFlags& flags_;
  const CommonFlags& common_;
  std::vector<std::string> tasks_;
  std::vector<int64_t> lengths_;
  std::vector<rag::Sample> data_;
  std::unique_ptr<Session> session_;
  rag::CompareOptions options_;
  rag::Configuration configuration_;
  engine::CardIdentity identity_;
  std::vector<rag::SampleSource> sources_;
};

}  // namespace

/// redknot bench rag: quality and speed of every mode beside dense, on identical token ids.
Command cmd_bench_rag() {
  return {
      .name = "bench rag",
      .summary = "quality and speed of every mode beside dense, with intervals and a report",
      .examples =
          "  redknot bench rag --tasks mk,hop2 --lengths 1024,4096 -n 50 --out results/smollm2\n"
          "  redknot bench rag -m MODEL.gguf --data questions.jsonl --modes dense,reuse --out r1\n"
          "  redknot bench rag --out results/smollm2     (goes on where it was interrupted)\n",
      .uses = kUsesModel | kUsesPlan | kUsesEngine | kUsesSeed | kUsesJson | kUsesCompany,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<RagFlags>();
        flags.add("--data", f->data,
                  "JSON lines with id, question, answers and documents of your own");
        flags.add("--tasks", f->tasks,
                  "generated samples: mk, mv, hop2, vt2, cwe; all unless --data is given");
        flags.add("--modes", f->modes,
                  "modes beside dense, with their number: prefix, reuse, boundary:32 (EPIC), "
                  "selective:0.15, selective:0.15:both (half of the rows one by one), redknot:0.6, "
                  "random:0.15, cacheblend:0.15, none (no documents)");
        flags.add("-n,--samples", f->num_samples,
                  "samples of each task and length, and of --data; 0: 20, and all of --data");
        flags.add("--lengths", f->lengths, "tokens of a generated prompt with its answer");
        flags.add("--documents", f->num_documents,
                  "documents of a generated prompt; 0: 8, above 8192 tokens 16");
        flags.add("--max-tokens", f->max_tokens, "tokens of an answer at most");
        flags.add("--predecessors", f->predecessors,
                  "share of the documents that are stored behind the one before them too, as "
                  "prompts that recur leave them; a card is written for 0 and 1 only");
        flags.add("--shard", f->shard,
                  "I/N: part I of N, for several processes; `redknot bench report` joins them");
        flags.add("--out", f->out,
                  "folder for samples.jsonl, summary.json, report.html and card.json (for --card)");
        return {[f, &common] { return RagBench(*f, common).run(); }, [f] { return check(*f); }};
      },
  };
}

}  // namespace rk::cli
