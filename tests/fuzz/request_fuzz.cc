// A request body from outside, without a socket: an error that names something, or a request that
// fits the model. The first byte says which reader; the rest is the body.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "serve/auth.h"
#include "serve/fake_engine.h"
#include "serve/generate_request.h"

namespace rk::serve {
namespace {

constexpr int64_t kContext = 4096;

void check_error(const ApiError& error) {
  RK_CHECK(error.status == 400 || error.status == 404);
  RK_CHECK(!error.message.empty());
  RK_CHECK(JsonBody::parse(error_json(error)).ok());
}

void check_request(const GenerateRequest& request, bool may_hold_ids) {
  int64_t prompt = 0;
  for (const engine::PromptSpan& span : request.engine.spans) {
    prompt += static_cast<int64_t>(span.tokens.size());
    for (const int32_t id : span.tokens) {
      RK_CHECK(id >= 0 && id < 259);
      // A document is text of others; so is a prompt that is no list of ids.
      if (span.segment || !may_hold_ids) RK_CHECK(id < 256);
    }
  }
  const engine::Request& engine = request.engine;
  RK_CHECK(prompt > 0 && engine.max_tokens > 0 && prompt + engine.max_tokens <= kContext);
  RK_CHECK(engine.min_tokens >= 0 && engine.min_tokens <= engine.max_tokens);
  RK_CHECK(engine.num_logprobs >= -1 && engine.num_logprobs <= 20);
  RK_CHECK(engine.boundary_rows >= 0);
  RK_CHECK(engine.selective_ratio >= 0 && engine.selective_ratio <= 1);
  RK_CHECK_OK(engine::check_select(engine.mode, engine.select));
  RK_CHECK_OK(engine::check_ffn_threshold(engine.ffn_threshold));
  RK_CHECK(engine.quality != engine::Level::kNone && !engine.stored_only);
  const kernels::SampleOptions& s = engine.sampling;
  for (const float value : {s.temperature, s.top_p, s.min_p, s.repetition_penalty,
                            s.presence_penalty, s.frequency_penalty}) {
    RK_CHECK(std::isfinite(value));
  }
  RK_CHECK(s.top_p > 0 && s.top_k >= 0 && s.repetition_penalty > 0);
  for (const auto& [id, bias] : s.logit_bias) RK_CHECK(id >= 0 && id < 259 && std::isfinite(bias));
  for (const std::string& stop : request.completion.stop) RK_CHECK(!stop.empty());
}

void read(uint8_t which, std::string_view body) {
  static const FakeTokenizer tokenizer;
  static const auto chat = text::ChatTemplate::parse(kFakeChatTemplate);
  static const ModelInfo info{"fake/model", kContext, 1700000000};
  const ModelView model{info, tokenizer, &*chat};
  GenerateRequest request;
  ApiError error;
  switch (which % 4) {
    case 0:
      return parse_chat(body, model, request, error) ? check_request(request, true)
                                                     : check_error(error);
    case 1: {
      const bool ids = body.find('[') != std::string_view::npos;
      return parse_completion(body, model, request, error) ? check_request(request, ids)
                                                           : check_error(error);
    }
    case 2: {  // small texts of a request's head
      HttpRequest head;
      head.headers = {{"x-request-id", std::string(body)}, {"authorization", std::string(body)}};
      const KeyRing keys({"key"});
      const auto found = keys.find(head.header("authorization"));
      RK_CHECK(!found || (body.size() >= 10 && body.ends_with("key")));
      const auto decoded = percent_decode(body);
      RK_CHECK(!decoded || decoded->size() <= body.size());
      return;
    }
    default: {
      const std::string quoted = json_quote(body.substr(0, 4096));
      RK_CHECK(quoted.size() >= 2 && quoted.front() == '"' && quoted.back() == '"');
    }
  }
}

}  // namespace
}  // namespace rk::serve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  rk::serve::read(data[0], {reinterpret_cast<const char*>(data + 1), size - 1});
  return 0;
}
