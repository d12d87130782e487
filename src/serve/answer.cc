#include "serve/answer.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <mutex>
#include <optional>
#include <utility>

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

json::object redknot_json(const engine::RequestStats& stats) {
  json::array documents;
  for (const engine::DocumentUse& use : stats.documents) {
    documents.push_back({{"state", use.state == engine::DocumentState::kHit ? "hit" : "miss"},
                         {"exact", use.exact},
                         {"fit", use.fit_name()},
                         {"tokens", use.num_tokens}});
  }
  json::object out{{"mode", engine::mode_name(stats.mode)},
                   {"gate", stats.gate},
                   {"gate_reason", stats.gate_reason},
                   {"quality_used", engine::level_name(stats.quality_used)},
                   {"documents", std::move(documents)},
                   {"relocated_tokens", stats.relocated},
                   {"kv_bytes", stats.kv_bytes},
                   {"store_bytes", stats.store_bytes},
                   {"timings",
                    {{"queue_ms", stats.queue_ms},
                     {"ingest_ms", stats.ingest_ms},
                     {"probe_ms", stats.probe_ms},
                     {"expand_ms", stats.expand_ms},
                     {"ttft_ms", stats.ttft_ms},
                     {"total_ms", stats.total_ms}}}};
  const auto& order = stats.document_order;
  if (!order.empty()) out["order"] = json::array(order.begin(), order.end());
  return out;
}

class WholeAnswer : public Answer, public std::enable_shared_from_this<WholeAnswer> {
 public:
  WholeAnswer(AnswerInfo info, std::shared_ptr<Responder> responder,
              std::shared_ptr<MetricsPage> metrics)
      : info_(std::move(info)),
        responder_(std::move(responder)),
        metrics_(std::move(metrics)),
        choices_(static_cast<size_t>(info_.num_choices)) {
    echo_chars_ =
        static_cast<size_t>(std::count_if(info_.echo.begin(), info_.echo.end(), [](char c) {
          return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
        }));
  }

  std::shared_ptr<CompletionSink> sink(int index) override {
    return std::make_shared<ChoiceSink>(shared_from_this(), static_cast<size_t>(index));
  }
  void open() override {
    const std::lock_guard lock(mutex_);
    open_ = true;
    settle();
  }

 private:
  struct Choice {
    std::string text;
    std::vector<TokenDetail> details;
    CompletionEnd end;
    bool begun = false;
  };
  class ChoiceSink : public CompletionSink {
   public:
    ChoiceSink(std::shared_ptr<WholeAnswer> answer, size_t index)
        : answer_(std::move(answer)), index_(index) {}
    bool on_delta(const CompletionDelta& delta) override { return answer_->take(index_, delta); }
    void on_end(const CompletionEnd& end) override { answer_->finish(index_, end); }

   private:
    const std::shared_ptr<WholeAnswer> answer_;
    const size_t index_;
  };

  bool take(size_t index, const CompletionDelta& delta) {
    const std::lock_guard lock(mutex_);
    if (failed_ || closed_) return false;
    Choice& choice = choices_[index];
    if (!info_.stream) {
      choice.text += delta.text;
      choice.details.insert(choice.details.end(), delta.details.begin(), delta.details.end());
      return true;
    }
    begin(index);
    held_ += event(object_of(index, delta.text, delta.details, nullptr));
    return !open_ || flush();
  }

  void finish(size_t index, const CompletionEnd& end) {
    const std::lock_guard lock(mutex_);
    for (const double gap : end.gaps_ms) metrics_->gap(gap);
    if (end.reason != "error") metrics_->generated(end.stats);
    ++num_ended_;
    choices_[index].end = end;
    if (end.reason == "error" || end.reason == "cancelled") {
      if (!failed_) failed_ = index;
    } else if (info_.stream && !failed_) {
      begin(index);
      json::object last = object_of(index, "", {}, end.reason.c_str());
      last["redknot"] = redknot_json(end.stats);
      held_ += event(last);
    }
    settle();
  }

  // Sends what may go out by now.
  void settle() {
    if (!open_ || closed_) return;
    if (failed_) {
      const CompletionEnd& end = choices_[*failed_].end;
      return close(api_error(why(end)), end.reason);
    }
    if (num_ended_ < choices_.size()) {
      if (!held_.empty()) flush();
      return;
    }
    close({}, choices_[0].end.reason);
  }
  // Counts the answer before the client can know: whoever has read it finds it counted.
  void close(const ApiError& error, const std::string& reason) {
    closed_ = true;
    const int code = !failed_ || begun_ ? 200 : responder_->disconnected() ? 499 : error.status;
    metrics_->answered(info_.route, code, reason);
    if (failed_) return refuse(error);
    if (info_.stream) return finish_stream();
    json::array choices;
    for (size_t i = 0; i < choices_.size(); ++i) {
      const Choice& choice = choices_[i];
      choices.push_back(
          choice_of(i, info_.echo + choice.text, choice.details, choice.end.reason.c_str()));
    }
    json::object body = object_with(std::move(choices));
    body["usage"] = usage_json(stats());
    body["redknot"] = redknot_json(stats());
    responder_->send(
        {200, common_headers("application/json", info_.request_id), json::serialize(body)});
  }

  // The prompt is counted once, as the first choice met it; what was generated is counted in all.
  engine::RequestStats stats() const {
    engine::RequestStats out = choices_[0].end.stats;
    for (size_t i = 1; i < choices_.size(); ++i) {
      out.generated += choices_[i].end.stats.generated;
      out.total_ms = std::max(out.total_ms, choices_[i].end.stats.total_ms);
    }
    return out;
  }

  json::object choice_of(size_t index, const std::string& text,
                         const std::vector<TokenDetail>& details, const char* finish) const {
    json::object one{{"index", index}};
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
    return one;
  }
  // What every object of this answer begins with, and one choice.
  json::object object_of(size_t index, const std::string& text,
                         const std::vector<TokenDetail>& details, const char* finish) const {
    return object_with({choice_of(index, text, details, finish)});
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
  // The role (chat) or the echoed prompt, before any text of a choice.
  void begin(size_t index) {
    if (std::exchange(choices_[index].begun, true)) return;
    if (info_.chat) {
      json::object first = object_of(index, "", {}, nullptr);
      json::object& one = first["choices"].get_array()[0].get_object();
      one["delta"] = {{"role", "assistant"}, {"content", ""}};
      one["logprobs"] = nullptr;
      held_ += event(first);
    } else if (!info_.echo.empty()) {
      held_ += event(object_of(index, info_.echo, {}, nullptr));
    }
  }
  // False when nobody reads it any more.
  bool flush() {
    std::string events = std::exchange(held_, {});
    if (begun_) return responder_->write(std::move(events));
    begun_ = true;
    Headers headers = common_headers("text/event-stream", info_.request_id);
    headers.emplace_back("Cache-Control", "no-cache");
    headers.emplace_back("X-Accel-Buffering", "no");
    responder_->begin_stream({200, std::move(headers), std::move(events)});
    return !responder_->disconnected();
  }
  void finish_stream() {
    if (info_.include_usage) {
      json::object usage = object_with({});
      usage["usage"] = usage_json(stats());
      usage["redknot"] = redknot_json(stats());
      held_ += event(usage);
    }
    held_ += "data: [DONE]\n\n";
    flush();
    responder_->end();
  }
  // Failed, or cancelled by a shutdown or a client that is gone (who will not read this).
  static Status why(const CompletionEnd& end) {
    return end.reason == "error" ? end.status : cancelled("the server is shutting down");
  }
  void refuse(const ApiError& error) {
    if (begun_) {
      held_ += cat("data: ", error_json(error), "\n\n");
      flush();
      return responder_->end();
    }
    HttpReply reply = error_reply(error);
    reply.headers.emplace_back("X-Request-Id", info_.request_id);
    responder_->send(std::move(reply));
  }

  const AnswerInfo info_;
  const std::shared_ptr<Responder> responder_;
  const std::shared_ptr<MetricsPage> metrics_;
  size_t echo_chars_ = 0;

  std::mutex mutex_;  // of everything below: a cancelled choice may end on another thread
  std::vector<Choice> choices_;
  std::string held_;              // events not sent yet
  std::optional<size_t> failed_;  // the first choice that did
  size_t num_ended_ = 0;
  bool open_ = false, begun_ = false, closed_ = false;
};

}  // namespace

std::shared_ptr<Answer> make_answer(AnswerInfo info, std::shared_ptr<Responder> responder,
                                    std::shared_ptr<MetricsPage> metrics) {
  return std::make_shared<WholeAnswer>(std::move(info), std::move(responder), std::move(metrics));
}

Headers common_headers(const std::string& content_type, const std::string& request_id) {
  return {{"Content-Type", content_type}, {"X-Request-Id", request_id}};
}

}  // namespace rk::serve
