#include "serve/answer.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>

#include "serve/api_error.h"

namespace rk::serve {
namespace json = boost::json;
namespace {

// Bytes of one token need not be whole characters; JSON strings must be.
std::string valid_utf8(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(bytes[at]); };
    const unsigned char lead = byte(i);
    const size_t size = lead < 0x80                   ? 1
                        : lead >= 0xC2 && lead < 0xE0 ? 2
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
    bool valid = size > 0 && i + size <= bytes.size();
    for (size_t k = 1; valid && k < size; ++k) valid = (byte(i + k) & 0xC0) == 0x80;
    if (valid && size == 3) {
      valid = !(lead == 0xE0 && byte(i + 1) < 0xA0) && !(lead == 0xED && byte(i + 1) >= 0xA0);
    }
    if (valid && size == 4) {
      valid = !(lead == 0xF0 && byte(i + 1) < 0x90) && !(lead == 0xF4 && byte(i + 1) >= 0x90);
    }
    out += valid ? std::string(bytes.substr(i, size)) : "\xEF\xBF\xBD";
    i += valid ? size : 1;
  }
  return out;
}

double finite_logprob(float value) {
  return std::isfinite(value) ? std::max(-9999.0F, value) : -9999.0;
}

json::object token_json(const TokenText& token) {
  json::array bytes;
  for (const char c : token.bytes) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", valid_utf8(token.bytes)},
          {"logprob", finite_logprob(token.logprob)},
          {"bytes", std::move(bytes)}};
}

json::value chat_logprobs(const std::vector<TokenDetail>& details) {
  json::array content;
  for (const TokenDetail& detail : details) {
    json::object token = token_json(detail.token);
    json::array top;
    for (const TokenText& other : detail.top) top.push_back(token_json(other));
    token["top_logprobs"] = std::move(top);
    content.push_back(std::move(token));
  }
  return json::object{{"content", std::move(content)}, {"refusal", nullptr}};
}

json::value completion_logprobs(const std::vector<TokenDetail>& details, size_t first_offset) {
  json::array tokens, logprobs, tops, offsets;
  for (const TokenDetail& detail : details) {
    tokens.push_back(json::value(valid_utf8(detail.token.bytes)));
    logprobs.push_back(finite_logprob(detail.token.logprob));
    json::object top;
    for (const TokenText& other : detail.top) {
      top[valid_utf8(other.bytes)] = finite_logprob(other.logprob);
    }
    tops.push_back(std::move(top));
    offsets.push_back(first_offset + detail.text_offset);
  }
  return json::object{{"tokens", std::move(tokens)},
                      {"token_logprobs", std::move(logprobs)},
                      {"top_logprobs", std::move(tops)},
                      {"text_offset", std::move(offsets)}};
}

json::object usage_json(const engine::RequestStats& stats) {
  return {{"prompt_tokens", stats.prompt_tokens},
          {"completion_tokens", stats.generated},
          {"total_tokens", stats.prompt_tokens + stats.generated},
          {"prompt_tokens_details",
           {{"cached_tokens", stats.prefix_cached + stats.document_cached},
            {"prefix_cached_tokens", stats.prefix_cached},
            {"document_cached_tokens", stats.document_cached},
            {"recomputed_tokens", stats.recomputed}}}};
}

json::object redknot_json(const engine::RequestStats& stats, bool bypassed) {
  json::array documents;
  for (const engine::DocumentUse& use : stats.documents) {
    documents.push_back({{"state", use.state == engine::DocumentState::kHit ? "hit" : "miss"},
                         {"exact", use.exact},
                         {"tokens", use.num_tokens}});
  }
  return {{"mode", engine::mode_name(stats.mode)},
          {"gate", bypassed ? "bypassed" : "pass"},
          {"documents", std::move(documents)},
          {"relocated_tokens", stats.relocated},
          {"kv_bytes", stats.kv_bytes},
          {"timings",
           {{"queue_ms", stats.queue_ms},
            {"ingest_ms", stats.ingest_ms},
            {"ttft_ms", stats.ttft_ms},
            {"total_ms", stats.total_ms}}}};
}

class AnswerSink : public CompletionSink {
 public:
  AnswerSink(AnswerInfo info, std::shared_ptr<Responder> responder,
             std::shared_ptr<MetricsPage> metrics)
      : info_(std::move(info)), responder_(std::move(responder)), metrics_(std::move(metrics)) {
    echo_chars_ =
        static_cast<size_t>(std::count_if(info_.echo.begin(), info_.echo.end(), [](char c) {
          return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
        }));
  }

  bool on_delta(const CompletionDelta& delta) override {
    if (!info_.stream) {
      text_ += delta.text;
      details_.insert(details_.end(), delta.details.begin(), delta.details.end());
      return true;
    }
    std::string events = begun_ ? "" : opening();
    events += event(choice(delta.text, delta.details, nullptr));
    return send_events(std::move(events));
  }

  void on_end(const CompletionEnd& end) override {
    const bool whole = end.reason == "stop" || end.reason == "length";
    const ApiError error = whole ? ApiError{} : api_error(why(end));
    // Before the client can know: whoever has read an answer finds it counted.
    for (const double gap : end.gaps_ms) metrics_->gap(gap);
    if (end.reason != "error") metrics_->generated(end.stats);
    const int code = whole || begun_ ? 200 : responder_->disconnected() ? 499 : error.status;
    metrics_->answered(info_.route, code, end.reason);
    if (!whole) {
      refuse(error);
    } else if (info_.stream) {
      finish_stream(end);
    } else {
      json::object body = choice(info_.echo + text_, details_, end.reason.c_str());
      body["usage"] = usage_json(end.stats);
      body["redknot"] = redknot_json(end.stats, info_.gate_bypassed);
      responder_->send(
          {200, common_headers("application/json", info_.request_id), json::serialize(body)});
    }
  }

 private:
  // What every object of this answer begins with, and its only choice.
  json::object choice(const std::string& text, const std::vector<TokenDetail>& details,
                      const char* finish) const {
    json::object one{{"index", 0}};
    if (!info_.chat) {
      one["text"] = text;
    } else if (info_.stream) {
      json::object delta;
      if (!finish) delta["content"] = text;
      one["delta"] = std::move(delta);
    } else {
      one["message"] = {{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
    }
    one["logprobs"] = nullptr;
    if (info_.logprobs && !(info_.stream && finish)) {
      one["logprobs"] =
          info_.chat ? chat_logprobs(details) : completion_logprobs(details, echo_chars_);
    }
    one["finish_reason"] = finish ? json::value(finish) : json::value(nullptr);
    return object_with({std::move(one)});
  }
  json::object object_with(json::array choices) const {
    const char* kind = !info_.chat    ? "text_completion"
                       : info_.stream ? "chat.completion.chunk"
                                      : "chat.completion";
    json::object out{{"id", info_.id},
                     {"object", kind},
                     {"created", info_.created},
                     {"model", info_.model},
                     {"choices", std::move(choices)}};
    if (info_.stream && info_.include_usage) out["usage"] = nullptr;
    return out;
  }
  static std::string event(const json::object& object) {
    return cat("data: ", json::serialize(object), "\n\n");
  }
  // The role (chat) or the echoed prompt, before any text.
  std::string opening() const {
    if (info_.chat) {
      json::object first = choice("", {}, nullptr);
      json::object& one = first["choices"].get_array()[0].get_object();
      one["delta"] = {{"role", "assistant"}, {"content", ""}};
      one["logprobs"] = nullptr;
      return event(first);
    }
    return info_.echo.empty() ? "" : event(choice(info_.echo, {}, nullptr));
  }
  bool send_events(std::string events) {
    if (begun_) return responder_->write(std::move(events));
    begun_ = true;
    Headers headers = common_headers("text/event-stream", info_.request_id);
    headers.emplace_back("Cache-Control", "no-cache");
    headers.emplace_back("X-Accel-Buffering", "no");
    responder_->begin_stream({200, std::move(headers), std::move(events)});
    return !responder_->disconnected();
  }
  void finish_stream(const CompletionEnd& end) {
    std::string events = begun_ ? "" : opening();
    json::object last = choice("", {}, end.reason.c_str());
    last["redknot"] = redknot_json(end.stats, info_.gate_bypassed);
    events += event(last);
    if (info_.include_usage) {
      json::object usage = object_with({});
      usage["usage"] = usage_json(end.stats);
      usage["redknot"] = redknot_json(end.stats, info_.gate_bypassed);
      events += event(usage);
    }
    send_events(events + "data: [DONE]\n\n");
    responder_->end();
  }
  // Failed, or cancelled by a shutdown or a client that is gone (who will not read this).
  static Status why(const CompletionEnd& end) {
    return end.reason == "error" ? end.status : cancelled("the server is shutting down");
  }
  void refuse(const ApiError& error) {
    if (begun_) {
      responder_->write(cat("data: ", error_json(error), "\n\n"));
      return responder_->end();
    }
    HttpReply reply = error_reply(error);
    reply.headers.emplace_back("X-Request-Id", info_.request_id);
    responder_->send(std::move(reply));
  }

  AnswerInfo info_;
  std::shared_ptr<Responder> responder_;
  std::shared_ptr<MetricsPage> metrics_;
  std::string text_;
  std::vector<TokenDetail> details_;
  size_t echo_chars_ = 0;
  bool begun_ = false;
};

}  // namespace

std::shared_ptr<CompletionSink> make_answer(AnswerInfo info, std::shared_ptr<Responder> responder,
                                            std::shared_ptr<MetricsPage> metrics) {
  return std::make_shared<AnswerSink>(std::move(info), std::move(responder), std::move(metrics));
}

Headers common_headers(const std::string& content_type, const std::string& request_id) {
  return {{"Content-Type", content_type}, {"X-Request-Id", request_id}};
}

}  // namespace rk::serve
