#include "rag/compare.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/divergence.h"
#include "kv/identity.h"
#include "rag/metrics.h"
#include "rag/random.h"

namespace rk::rag {

using engine::Mode;
using engine::PromptSpan;
using engine::Request;

namespace {

constexpr int kWarmTokens = 9;

int64_t count_tokens(const std::vector<PromptSpan>& spans) {
  int64_t total = 0;
  for (const PromptSpan& span : spans) total += static_cast<int64_t>(span.tokens.size());
  return total;
}

class Collector : public engine::Listener {
 public:
  bool on_token(const engine::TokenEvent& event) override {
    tokens.push_back(event.token);
    times_ms.push_back(now_ms());
    rows.insert(rows.end(), event.logits.begin(), event.logits.end());
    return true;
  }
  void on_done(const engine::Outcome& outcome) override { done = outcome; }

  std::vector<int32_t> tokens;
  std::vector<double> times_ms;
  std::vector<float> rows;  ///< [tokens, vocab] logits where they were asked
  engine::Outcome done;
};

void copy_stats(const engine::RequestStats& s, ModeResult& result) {
  result.ran = engine::mode_name(s.mode);
  result.answer_tokens = s.generated;
  result.ttft_ms = s.ttft_ms;
  result.ingest_in_ttft_ms = s.ingest_ms;
  result.prefix_cached = s.prefix_cached;
  result.document_cached = s.document_cached;
  result.recomputed = s.recomputed;
  result.fresh = s.fresh;
  result.relocated = s.relocated;
  result.kv_bytes = s.kv_bytes;
  result.flops = s.work.flops;
  result.bytes = s.work.bytes;
  result.predicted_flops = s.predicted_work.flops;
  result.predicted_bytes = s.predicted_work.bytes;
  for (const auto& [begin, end] : s.recomputed_rows) result.recomputed_at.emplace_back(begin, end);
}

}  // namespace

// What a timed run leaves for the comparison.
struct Comparer::Timed {
  std::vector<int32_t> tokens;
  std::vector<float> rows;  ///< [tokens, vocab], log probabilities
  size_t vocab = 0;
  std::span<const float> row(size_t i) const { return std::span(rows).subspan(i * vocab, vocab); }
};

Request Comparer::request(const std::vector<PromptSpan>& spans) const {
  Request request;
  request.spans = spans;
  request.mode = Mode::kDense;
  request.max_tokens = options_.max_tokens;
  request.stop_tokens = options_.stop_tokens;
  request.sampling.seed = options_.seed;
  request.company = options_.company;
  request.company_pieces = options_.company_pieces;
  request.cache_write = false;
  return request;
}

Status Comparer::check_fits(const std::vector<PromptSpan>& spans) const {
  const int64_t tokens = count_tokens(spans), context = subject_.engine->context_tokens();
  if (tokens + options_.max_tokens <= context) return {};
  return exhausted("prompt of ", tokens, " tokens and answer of ", options_.max_tokens,
                   ", the context holds ", context);
}

// Touches the weights, and measures what a distribution costs, on the prompt without documents.
Status Comparer::warm_up(const std::vector<PromptSpan>& spans) {
  Request plain = request({});
  for (const PromptSpan& span : spans) {
    if (!span.segment) plain.spans.push_back(span);
  }
  plain.stop_tokens.clear();
  plain.max_tokens = kWarmTokens;
  double gap_ms[2] = {};
  for (const bool with : {false, false, true}) {  // the first only warms
    plain.give_logits = with;
    Collector collector;
    subject_.engine->run(plain, 0, collector);
    RK_RETURN_IF_ERROR(collector.done.status);
    std::vector<double> gaps;
    for (size_t i = 1; i < collector.times_ms.size(); ++i) {
      gaps.push_back(collector.times_ms[i] - collector.times_ms[i - 1]);
    }
    gap_ms[with ? 1 : 0] = gaps.empty() ? 0 : quantile(gaps, 0.5);
  }
  distribution_ms_ = std::max(0.0, gap_ms[1] - gap_ms[0]);
  warm_ = true;
  return {};
}

Result<double> Comparer::ingest(const std::vector<PromptSpan>& spans) {
  Request all = request(spans);
  all.mode = Mode::kReuse;
  all.max_tokens = 0;
  all.cache_write = true;
  Collector collector;
  subject_.engine->run(all, 0, collector);
  RK_RETURN_IF_ERROR(collector.done.status);
  return collector.done.stats.total_ms;
}

// Each chosen pair is asked twice; the engine then computes the second document behind the first.
Status Comparer::learn_predecessors(const std::vector<PromptSpan>& spans, const std::string& id) {
  Random random(derived_seed(options_.seed, "predecessors/" + id, 0));
  std::vector<size_t> documents;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].segment && !spans[i].tokens.empty()) documents.push_back(i);
  }
  for (size_t d = 1; d < documents.size(); ++d) {
    if (!random.chance(options_.predecessors)) continue;
    Request pair = request({});
    for (size_t i = 0; i < spans.size(); ++i) {
      const bool between = i >= documents[d - 1] && i <= documents[d];
      if (between || i < documents.front() || i > documents.back()) pair.spans.push_back(spans[i]);
    }
    pair.mode = Mode::kReuse;
    pair.max_tokens = 0;
    pair.cache_write = true;
    for (int times = 0; times < 2; ++times) {
      Collector collector;
      subject_.engine->run(pair, 0, collector);
      RK_RETURN_IF_ERROR(collector.done.status);
    }
    while (subject_.engine->idle_work()) {
    }
  }
  return {};
}

Status Comparer::time_mode(const std::vector<PromptSpan>& spans, size_t mode, const Sample& sample,
                           Timed& timed, ModeResult& result) {
  Request asked = request(spans);
  options_.modes[mode].apply(asked);
  timed.vocab = static_cast<size_t>(subject_.engine->vocab_size());
  // The engine takes the time to the first token before it hands out a distribution.
  asked.give_logits = true;
  Collector collector;
  if (subject_.drop_expanded) subject_.drop_expanded();
  subject_.engine->run(asked, 0, collector);
  RK_RETURN_IF_ERROR(collector.done.status);
  copy_stats(collector.done.stats, result);
  result.mode = options_.modes[mode].name;
  result.finish = collector.done.finish == engine::FinishReason::kStop ? "stop" : "length";
  result.answer = subject_.decode(collector.tokens);
  result.exact_match = exact_match(result.answer, sample.answers);
  result.f1 = answer_f1(result.answer, sample.answers);
  result.score = sample.needle ? needle_score(result.answer, sample.answers) : result.f1;
  if (const auto& times = collector.times_ms; times.size() > 1) {
    const auto steps = static_cast<double>(times.size() - 1);
    const double spent = times.back() - times.front() - steps * distribution_ms_;
    if (spent > 0) result.tokens_per_s = 1000 * steps / spent;
  }
  timed.tokens = std::move(collector.tokens);
  timed.rows = std::move(collector.rows);
  to_log_probabilities(timed.rows, timed.vocab);
  return {};
}

Status Comparer::follow(const std::vector<PromptSpan>& spans, size_t mode, const Timed& dense,
                        const Timed& own, ModeResult& result) {
  const size_t num_tokens = dense.tokens.size();
  if (num_tokens == 0) return {};
  std::vector<float> rows;
  // A distribution is behind the tokens before it: its own token may differ.
  const bool own_rows_follow =
      own.tokens.size() >= num_tokens && own.rows.size() >= dense.rows.size() &&
      std::equal(dense.tokens.begin(), dense.tokens.end() - 1, own.tokens.begin());
  if (own_rows_follow) {
    rows.assign(own.rows.begin(), own.rows.begin() + static_cast<int64_t>(dense.rows.size()));
  } else {
    Request led = request(spans);
    options_.modes[mode].apply(led);
    led.answer_tokens = static_cast<int>(num_tokens) - 1;
    std::vector<int32_t>& tail = led.spans.back().tokens;
    tail.insert(tail.end(), dense.tokens.begin(), dense.tokens.end() - 1);
    RK_RETURN_IF_ERROR(subject_.evaluate(led, static_cast<int64_t>(num_tokens), rows));
    if (rows.size() != dense.rows.size()) {
      return internal("mode ", result.mode, ": ", rows.size(), " logits, ", dense.rows.size(),
                      " of the dense answer");
    }
    to_log_probabilities(rows, dense.vocab);
  }
  double kl = 0;
  for (size_t i = 0; i < num_tokens; ++i) {
    const auto row = std::span<const float>(rows).subspan(i * dense.vocab, dense.vocab);
    kl += kl_divergence(dense.row(i), row);
    result.same_top1 += most_likely(dense.row(i)) == most_likely(row);
  }
  if (!std::isfinite(kl)) {
    return internal("mode ", result.mode, ": the divergence from dense is not finite");
  }
  result.kl = kl / static_cast<double>(num_tokens);
  result.kl_tokens = static_cast<int64_t>(num_tokens);
  return {};
}

Result<SampleResult> Comparer::compare(const Sample& sample, size_t turn) {
  RK_TRY(const auto spans, subject_.make_prompt(sample.question, sample.documents));
  RK_RETURN_IF_ERROR(check_fits(spans));
  if (!warm_) RK_RETURN_IF_ERROR(warm_up(spans));
  const size_t num_modes = options_.modes.size();
  SampleResult out{.id = sample.id,
                   .task = sample.task,
                   .question = sample.question,
                   .answers = sample.answers,
                   .config = options_.config,
                   .length_tokens = sample.length_tokens > 0 ? sample.length_tokens
                                                             : length_class(count_tokens(spans)),
                   .prompt_tokens = count_tokens(spans),
                   .num_documents = static_cast<int64_t>(sample.documents.size()),
                   .needle = sample.needle,
                   .evidence = sample.evidence};
  kv::IdentityBuilder ids("bench prompt");
  for (const PromptSpan& span : spans) {
    ids.add(span.segment ? "document" : "fresh", std::span(span.tokens));
  }
  out.prompt_digest = ids.finish().hex();
  subject_.clear_store();
  if (num_modes > 1) {
    RK_TRY(out.ingest_ms, ingest(spans));
    if (options_.predecessors > 0) RK_RETURN_IF_ERROR(learn_predecessors(spans, sample.id));
  }
  out.modes.resize(num_modes);
  std::vector<Timed> timed(num_modes);
  for (size_t i = 0; i < num_modes; ++i) {
    const size_t mode = (turn + i) % num_modes;
    out.order.push_back(static_cast<int>(mode));
    RK_RETURN_IF_ERROR(time_mode(spans, mode, sample, timed[mode], out.modes[mode]));
  }
  for (size_t mode = 0; mode < num_modes; ++mode) {
    ModeResult& result = out.modes[mode];
    result.same_answer =
        timed[mode].tokens == timed[0].tokens && result.finish == out.modes[0].finish;
    RK_RETURN_IF_ERROR(follow(spans, mode, timed[0], timed[mode], result));
  }
  return out;
}

Result<std::vector<Skipped>> compare_all(const std::vector<SampleSource>& sources,
                                         const Subject& subject, const CompareOptions& options,
                                         ResultsFile& file, const OnSample& on_sample) {
  Comparer comparer(subject, options);
  std::vector<Skipped> skipped;
  for (size_t i = 0; i < sources.size(); ++i) {
    const SampleSource& source = sources[i];
    if (file.has(source.id)) continue;
    on_sample(i, sources.size(), source.id);
    RK_TRY(const Sample sample, source.make());
    auto result = comparer.compare(sample, source.turn);
    if (result.status().code() == Code::kExhausted) {
      skipped.push_back({source.id, result.status().message()});
      continue;
    }
    if (!result.ok()) {
      return Status(result.code(), cat("sample ", source.id, ": ", result.status().message()));
    }
    RK_RETURN_IF_ERROR(file.append(*result));
  }
  on_sample(sources.size(), sources.size(), "");
  if (skipped.size() == sources.size()) {
    const std::string why = skipped.empty() ? "there is none" : skipped.front().why;
    return invalid_argument("no sample could be run: ", why);
  }
  return skipped;
}

}  // namespace rk::rag
