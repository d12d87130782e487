// One answer on its way out: deltas of a completion become one JSON object or server-sent events.
// Called on the engine thread; hands everything to the network without waiting.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "serve/completion.h"
#include "serve/http.h"
#include "serve/metrics_page.h"

namespace rk::serve {

struct AnswerInfo {
  std::string id;          ///< "chatcmpl-..." or "cmpl-..."
  std::string request_id;  ///< X-Request-Id
  std::string model, route;
  int64_t created = 0;
  bool chat = false, stream = false, include_usage = false, gate_bypassed = false;
  bool logprobs = false;
  std::string echo;
};

/// The sink of one answer. `metrics` is told when it ends.
std::shared_ptr<CompletionSink> make_answer(AnswerInfo info, std::shared_ptr<Responder> responder,
                                            std::shared_ptr<MetricsPage> metrics);

/// Headers of every answer.
Headers common_headers(const std::string& content_type, const std::string& request_id);

}  // namespace rk::serve
