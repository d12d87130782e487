#include "rag/summary.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <map>
#include <set>

#include "kv/identity.h"
#include "rag/random.h"
#include "rag/tasks.h"

namespace rk::rag {
namespace {

namespace json = boost::json;
// A sample that has the mode, and what that did there.
struct Ran {
  const SampleResult* sample = nullptr;
  const ModeResult* mode = nullptr;
  const ModeResult& dense() const { return sample->modes[0]; }
};
using Results = std::vector<Ran>;

double median(std::span<const double> values) { return quantile(values, 0.5); }

Figure figure(const std::vector<double>& values, const Statistic& statistic, uint64_t seed) {
  return {statistic(values), bootstrap(values, statistic, seed)};
}

template <class Get>
std::vector<double> each(const Results& results, const Get& get) {
  std::vector<double> out;
  for (const Ran& r : results) out.push_back(static_cast<double>(get(*r.mode)));
  return out;
}
Results dense_of(Results results) {
  for (Ran& r : results) r.mode = &r.dense();
  return results;
}

template <class Get>
double mean_of(const Results& results, const Get& get) {
  return mean(each(results, get));
}

std::optional<double> ratio(double a, double b) {
  if (b == 0) return std::nullopt;
  return a / b;
}

void add_scores(const Results& results, uint64_t seed, Group& g) {
  const auto scores = each(results, [](const ModeResult& m) { return m.score; });
  g.score = figure(scores, mean, seed);
  std::vector<double> diffs = each(dense_of(results), [](const ModeResult& m) { return -m.score; });
  for (size_t i = 0; i < diffs.size(); ++i) diffs[i] += scores[i];
  g.score_diff = figure(diffs, mean, seed);
  g.exact_match = mean_of(results, [](const ModeResult& m) { return m.exact_match; });
  g.f1 = mean_of(results, [](const ModeResult& m) { return m.f1; });
  // Of several tasks together only the planted facts count: the others ask for more than finding.
  const bool only_facts = g.task == kAllTasks && std::ranges::any_of(results, [](const Ran& r) {
                            return r.sample->task == kPlantedFactTask;
                          });
  bool needles = false;
  for (const Ran& r : results) {
    if (only_facts && r.sample->task != kPlantedFactTask) continue;
    needles = needles || r.sample->needle;
    if (!r.sample->needle || r.dense().score == 0) continue;
    ++g.needle_found;
    g.needle_lost += r.mode->score < r.dense().score;
  }
  const bool is_dense = results.front().mode == &results.front().dense();
  if (needles) {
    g.needle_loss_bound = is_dense ? 0 : rate_upper_bound(g.needle_lost, g.needle_found);
  }
}

void add_divergence(const Results& results, uint64_t seed, Group& g) {
  std::vector<double> kls;
  double tokens = 0, same = 0;
  for (const Ran& r : results) {
    const ModeResult& m = *r.mode;
    if (!m.kl) continue;
    kls.push_back(*m.kl);
    tokens += static_cast<double>(m.kl_tokens);
    same += static_cast<double>(m.same_top1);
  }
  g.kl_samples = static_cast<int64_t>(kls.size());
  g.same_answer = mean_of(results, [](const ModeResult& m) { return m.same_answer; });
  if (kls.empty()) return;
  g.kl = figure(kls, mean, seed);
  g.kl_p95 = quantile(kls, 0.95);
  g.same_top1 = same / tokens;
}

void add_times(const Results& results, uint64_t seed, Group& g) {
  const auto ttft = [](const ModeResult& m) { return m.ttft_ms; };
  const auto times = each(results, ttft);
  g.ttft_ms = median(times);
  std::vector<double> ratios = each(dense_of(results), ttft);
  for (size_t i = 0; i < ratios.size(); ++i) ratios[i] /= std::max(times[i], 1e-6);
  g.speedup = figure(ratios, median, seed);
  std::vector<double> rates, ingests;
  for (const Ran& r : results) {
    if (r.mode->tokens_per_s) rates.push_back(*r.mode->tokens_per_s);
    ingests.push_back(r.sample->ingest_ms);
    g.late_ingests += r.mode->ingest_in_ttft_ms > 0;
  }
  if (!rates.empty()) g.tokens_per_s = median(rates);
  g.ingest_ms = median(ingests);
}

Group group_of(const Results& results, const std::string& task, int64_t length, uint64_t seed) {
  Group g{.mode = results.front().mode->mode, .task = task, .length_tokens = length};
  g.num_samples = static_cast<int64_t>(results.size());
  const uint64_t own = derived_seed(seed, cat(g.mode, "/", task), static_cast<uint64_t>(length));
  add_scores(results, own, g);
  add_divergence(results, own, g);
  add_times(results, own, g);
  const auto answer = [](const ModeResult& m) { return m.answer_tokens; };
  g.answer_tokens = mean_of(results, answer);
  g.length_ratio = ratio(g.answer_tokens, mean_of(dense_of(results), answer));
  for (const Ran& r : results) g.prompt_tokens += static_cast<double>(r.sample->prompt_tokens);
  g.prompt_tokens /= static_cast<double>(results.size());
  g.prefix_cached = mean_of(results, [](const ModeResult& m) { return m.prefix_cached; });
  g.document_cached = mean_of(results, [](const ModeResult& m) { return m.document_cached; });
  g.recomputed = mean_of(results, [](const ModeResult& m) { return m.recomputed; });
  g.fresh = mean_of(results, [](const ModeResult& m) { return m.fresh; });
  const auto flops = [](const ModeResult& m) { return m.flops; };
  g.flops = mean_of(results, flops);
  g.flops_ratio = ratio(mean_of(dense_of(results), flops), g.flops);
  g.bytes = mean_of(results, [](const ModeResult& m) { return m.bytes; });
  g.predicted_flops = mean_of(results, [](const ModeResult& m) { return m.predicted_flops; });
  return g;
}

// Those of the samples that have the mode; dense once where a sample was met with other modes
// again.
Results runs_of(const std::vector<const SampleResult*>& samples, const std::string& mode) {
  Results out;
  std::set<std::string> known;
  for (const SampleResult* r : samples) {
    const ModeResult* ran = r->find(mode);
    if (ran == nullptr || !known.insert(r->key()).second) continue;
    out.push_back({r, ran});
  }
  return out;
}

json::value number(double v) { return std::isfinite(v) ? json::value(v) : json::value(); }
json::value number(const std::optional<double>& v) { return v ? number(*v) : json::value(); }
json::array interval(const Interval& i) { return {number(i.low), number(i.high)}; }

json::object to_json(const Group& g) {
  return {{"mode", g.mode},
          {"task", g.task},
          {"length_tokens", g.length_tokens},
          {"n", g.num_samples},
          {"score", number(g.score.value)},
          {"score_interval", interval(g.score.interval)},
          {"score_diff", number(g.score_diff.value)},
          {"score_diff_interval", interval(g.score_diff.interval)},
          {"exact_match", number(g.exact_match)},
          {"f1", number(g.f1)},
          {"kl_n", g.kl_samples},
          {"kl_mean", g.kl ? number(g.kl->value) : json::value()},
          {"kl_interval", g.kl ? json::value(interval(g.kl->interval)) : json::value()},
          {"kl_p95", number(g.kl_p95)},
          {"same_top1", number(g.same_top1)},
          {"same_answer", number(g.same_answer)},
          {"needle_found", g.needle_found},
          {"needle_lost", g.needle_lost},
          {"needle_loss_bound", number(g.needle_loss_bound)},
          {"ttft_ms", number(g.ttft_ms)},
          {"ttft_speedup", number(g.speedup.value)},
          {"ttft_speedup_interval", interval(g.speedup.interval)},
          {"tokens_per_s", number(g.tokens_per_s)},
          {"answer_tokens", number(g.answer_tokens)},
          {"answer_length_ratio", number(g.length_ratio)},
          {"rows", json::object{{"prompt", number(g.prompt_tokens)},
                                {"prefix_cached", number(g.prefix_cached)},
                                {"document_cached", number(g.document_cached)},
                                {"recomputed", number(g.recomputed)},
                                {"fresh", number(g.fresh)}}},
          {"flops", number(g.flops)},
          {"flops_ratio", number(g.flops_ratio)},
          {"bytes", number(g.bytes)},
          {"predicted_flops", number(g.predicted_flops)},
          {"ingest_ms", number(g.ingest_ms)},
          {"late_ingests", g.late_ingests}};
}

json::object to_json(const Fields& fields) {
  json::object out;
  for (const auto& [name, value] : fields) out[name] = value;
  return out;
}

}  // namespace

std::string Configuration::hash() const {
  kv::IdentityBuilder identity("bench rag 1");
  for (const auto& [name, value] : fields) identity.add(name, value);
  return identity.finish().hex().substr(0, 16);
}

Summary summarize(const std::vector<const SampleResult*>& results, uint64_t seed) {
  Summary summary;
  if (results.empty()) return summary;
  summary.num_samples = static_cast<int64_t>(runs_of(results, results[0]->modes[0].mode).size());
  for (const SampleResult* r : results) {
    for (const ModeResult& m : r->modes) {
      if (std::ranges::find(summary.modes, m.mode) == summary.modes.end()) {
        summary.modes.push_back(m.mode);
      }
    }
  }
  using Samples = std::vector<const SampleResult*>;
  // Tasks in the order in which they come.
  std::map<int64_t, std::vector<std::pair<std::string, Samples>>> by_length;
  for (const SampleResult* r : results) {
    auto& tasks = by_length[r->length_tokens];
    const auto known = std::find_if(tasks.begin(), tasks.end(),
                                    [&](const auto& task) { return task.first == r->task; });
    if (known == tasks.end()) {
      tasks.push_back({r->task, {r}});
    } else {
      known->second.push_back(r);
    }
  }
  for (auto& [length, tasks] : by_length) {
    Samples all;
    size_t generated = 0;
    for (const auto& [task, own] : tasks) {
      if (task == kDataTask) continue;
      all.insert(all.end(), own.begin(), own.end());
      ++generated;
    }
    if (generated > 1) tasks.push_back({kAllTasks, std::move(all)});
    for (const auto& [task, own] : tasks) {
      for (const std::string& mode : summary.modes) {
        const Results ran = runs_of(own, mode);
        if (ran.empty()) continue;
        summary.groups.push_back(group_of(ran, task, length, seed));
        summary.exploratory =
            summary.exploratory ||
            (task != kAllTasks && summary.groups.back().num_samples < kPublishedSamples);
      }
    }
  }
  return summary;
}

std::string summary_json(const Summary& summary) {
  json::array groups, skipped;
  for (const Group& g : summary.groups) groups.push_back(to_json(g));
  for (const Skipped& s : summary.skipped) {
    skipped.push_back(json::object{{"id", s.id}, {"why", s.why}});
  }
  json::object configuration = to_json(summary.configuration.fields);
  configuration["hash"] = summary.configuration.hash();
  const auto& joined = summary.configuration.joined;
  if (!joined.empty()) configuration["joined"] = json::array(joined.begin(), joined.end());
  return json::serialize(
      json::object{{"format", "redknot.bench.rag/1"},
                   {"samples", summary.num_samples},
                   {"exploratory", summary.exploratory},
                   {"provenance", to_json(summary.provenance)},
                   {"configuration", configuration},
                   {"modes", json::array(summary.modes.begin(), summary.modes.end())},
                   {"skipped", skipped},
                   {"groups", groups}});
}

}  // namespace rk::rag
