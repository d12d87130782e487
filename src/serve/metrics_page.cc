#include "serve/metrics_page.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace rk::serve {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

prometheus::Histogram::BucketBoundaries seconds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
}

}  // namespace

struct MetricsPage::Series {
  prometheus::Registry registry;
  Family<Counter>& requests = prometheus::BuildCounter()
                                  .Name("redknot_requests_total")
                                  .Help("Requests answered")
                                  .Register(registry);
  Family<Counter>& rejections = prometheus::BuildCounter()
                                    .Name("redknot_rejected_total")
                                    .Help("Requests refused before they ran")
                                    .Register(registry);
  Family<Counter>& prompt = prometheus::BuildCounter()
                                .Name("redknot_prompt_tokens_total")
                                .Help("Prompt tokens by where their rows came from")
                                .Register(registry);
  Counter& computed = prompt.Add({{"source", "computed"}});
  Counter& prefix = prompt.Add({{"source", "prefix"}});
  Counter& document = prompt.Add({{"source", "document"}});
  Counter& recomputed = prompt.Add({{"source", "recomputed"}});
  Counter& generation = counter("redknot_generation_tokens_total", "Tokens generated");
  Counter& relocations = counter("redknot_relocations_total", "Rows read at another offset");
  Gauge& running = gauge("redknot_requests_running", "Requests the engine works on");
  Gauge& waiting = gauge("redknot_requests_waiting", "Requests in the queue");
  Histogram& queue = histogram("redknot_queue_seconds", "Submitted to started");
  Histogram& ttft = histogram("redknot_ttft_seconds", "Submitted to first token");
  Histogram& itl = histogram("redknot_itl_seconds", "Between tokens of one answer");
  Histogram& e2e = histogram("redknot_e2e_seconds", "Submitted to last token");

  Family<Gauge>& shadow_answers =
      family("redknot_shadow_answers", "Approximate answers, sampled, checked and given up");
  Family<Gauge>& shadow_checks =
      family("redknot_shadow_checks", "Shadow checks; card 0: modes named by hand");
  Family<Gauge>& shadow_kl =
      family("redknot_shadow_kl", "KL(dense || mode): mean over checks and its 95 % bounds");
  Family<Gauge>& shadow_off =
      family("redknot_shadow_off", "1 where a card's claim of the mode is not believed any more");

  Family<Gauge>& family(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Counter& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
  Histogram& histogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, seconds());
  }
  Counter& request(const std::string& route, const std::string& code, const std::string& finish) {
    return requests.Add({{"route", route}, {"code", code}, {"finish_reason", finish}});
  }
};

MetricsPage::MetricsPage(const std::string& version, const std::string& model)
    : series_(std::make_unique<Series>()) {
  prometheus::BuildGauge()
      .Name("redknot_build_info")
      .Help("Always 1; the labels say what runs")
      .Register(series_->registry)
      .Add({{"version", version}, {"model", model}})
      .Set(1);
  for (const char* route : {"/v1/chat/completions", "/v1/completions"}) {
    for (const char* finish : {"stop", "length", "guardian"})
      series_->request(route, "200", finish);
  }
  for (const char* reason : {"queue_full", "draining", "unauthorized", "forbidden", "too_large",
                             "connections", "invalid"}) {
    series_->rejections.Add({{"reason", reason}});
  }
}

MetricsPage::~MetricsPage() = default;

void MetricsPage::answered(const std::string& route, int code, const std::string& finish_reason) {
  series_->request(route, std::to_string(code), finish_reason).Increment();
}

void MetricsPage::rejected(const std::string& reason) {
  series_->rejections.Add({{"reason", reason}}).Increment();
}

void MetricsPage::generated(const engine::RequestStats& stats) {
  Series& s = *series_;
  s.computed.Increment(static_cast<double>(stats.fresh));
  s.prefix.Increment(static_cast<double>(stats.prefix_cached));
  s.document.Increment(static_cast<double>(stats.document_cached));
  s.recomputed.Increment(static_cast<double>(stats.recomputed));
  s.relocations.Increment(static_cast<double>(stats.relocated));
  s.generation.Increment(static_cast<double>(stats.generated));
  s.queue.Observe(stats.queue_ms / 1000);
  if (stats.generated > 0) s.ttft.Observe(stats.ttft_ms / 1000);
  s.e2e.Observe(stats.total_ms / 1000);
}

void MetricsPage::gap(double itl_ms) { series_->itl.Observe(itl_ms / 1000); }

void MetricsPage::load(int running, int waiting) {
  series_->running.Set(running);
  series_->waiting.Set(waiting);
}

void MetricsPage::shadow(const engine::ShadowTracker::Stats& stats) {
  Series& s = *series_;
  const auto answers = [&](const char* what, int64_t num) {
    s.shadow_answers.Add({{"what", what}}).Set(static_cast<double>(num));
  };
  answers("approximate", stats.num_answers);
  answers("sampled", stats.num_sampled);
  answers("checked", stats.num_checked);
  answers("dropped", stats.num_dropped);
  for (const auto& row : stats.rows) {
    prometheus::Labels labels{{"mode", engine::setting_name(row.setting)},
                              {"tokens", std::to_string(row.min_tokens)},
                              {"card", row.claimed ? "1" : "0"}};
    s.shadow_checks.Add(labels).Set(static_cast<double>(row.num_checks));
    s.shadow_off.Add(labels).Set(row.claimed && row.off_from != engine::Level::kNone ? 1 : 0);
    const auto kl = [&](const char* what, double value) {
      labels["what"] = what;
      s.shadow_kl.Add(labels).Set(value);
    };
    kl("mean", row.mean_kl);
    kl("low", row.kl_low);
    kl("high", row.kl_high);
  }
}

std::string MetricsPage::text() const {
  return prometheus::TextSerializer().Serialize(series_->registry.Collect());
}

}  // namespace rk::serve
