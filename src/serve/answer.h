// One answer on its way out: the deltas of its choices become one JSON object or server-sent
// events. Thread-safe; hands everything to the network without waiting.
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
  bool chat = false, stream = false, include_usage = false;
  bool logprobs = false;
  int num_choices = 1;
  std::string echo;
};

class Answer {
 public:
  virtual ~Answer() = default;
  /// Where choice `index` goes. Each is one run of the engine; the answer is complete when all have
  /// ended, and refused when one fails.
  virtual std::shared_ptr<CompletionSink> sink(int index) = 0;
  /// Nothing is sent before: an answer whose choices could not all be queued is refused as a whole.
  virtual void open() = 0;
};

/// `metrics` is told when a choice and when the answer ends.
std::shared_ptr<Answer> make_answer(AnswerInfo info, std::shared_ptr<Responder> responder,
                                    std::shared_ptr<MetricsPage> metrics);

/// Headers of every answer.
Headers common_headers(const std::string& content_type, const std::string& request_id);

}  // namespace rk::serve
