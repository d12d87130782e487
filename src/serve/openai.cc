#include "serve/openai.h"

#include <chrono>

#include "base/log.h"
#include "serve/answer.h"
#include "serve/api_error.h"

namespace rk::serve {
namespace {

int64_t unix_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

HttpReply json_page(const HttpRequest& request, int status, std::string body) {
  return {status, common_headers("application/json", request_id(request)), std::move(body)};
}

bool matches(std::string_view pattern, std::string_view path) {
  if (!pattern.ends_with("/*")) return pattern == path;
  pattern.remove_suffix(1);
  return path.size() > pattern.size() && path.starts_with(pattern);
}

bool same_method(std::string_view route, std::string_view method) {
  return route == method || (route == "GET" && method == "HEAD");
}

}  // namespace

const std::vector<OpenAi::Route>& OpenAi::routes() {
  static const std::vector<Route> kRoutes = {
      {"GET", "/health", false, &OpenAi::health, nullptr},
      {"GET", "/ready", false, &OpenAi::ready, nullptr},
      {"GET", "/version", true, &OpenAi::version, nullptr},
      {"GET", "/metrics", true, &OpenAi::metrics, nullptr},
      {"GET", "/v1/models", true, &OpenAi::models, nullptr},
      {"GET", "/v1/models/*", true, &OpenAi::model, nullptr},
      {"POST", "/v1/chat/completions", true, nullptr, &OpenAi::chat_completions},
      {"POST", "/v1/completions", true, nullptr, &OpenAi::completions},
      {"POST", "/tokenize", true, nullptr, &OpenAi::tokenize},
      {"POST", "/detokenize", true, nullptr, &OpenAi::detokenize},
  };
  return kRoutes;
}

OpenAi::OpenAi(engine::Service& service, ModelView model, KeyRing keys, OriginPolicy origins,
               std::string version)
    : service_(service),
      model_(model),
      keys_(std::move(keys)),
      origins_(std::move(origins)),
      version_(std::move(version)),
      metrics_(std::make_shared<MetricsPage>(version_, model_.info.id)) {}

HttpReply OpenAi::refuse(const ApiError& error, const std::string& route,
                         const HttpRequest& request) {
  metrics_->answered(route, error.status, "");
  const char* reason = error.status == 401   ? "unauthorized"
                       : error.status == 403 ? "forbidden"
                       : error.status == 429 ? "queue_full"
                       : error.status == 503 ? "draining"
                                             : "invalid";
  metrics_->rejected(reason);
  HttpReply reply = error_reply(error);
  reply.headers.emplace_back("X-Request-Id", request_id(request));
  return reply;
}

HttpReply OpenAi::error(int status, const std::string& message) {
  metrics_->answered("other", status, "");
  metrics_->rejected(status == 413 ? "too_large" : status == 503 ? "connections" : "invalid");
  HttpReply reply = error_reply({status, message, "", ""});
  reply.headers.emplace_back("X-Request-Id", random_id("req-"));
  return reply;
}

std::optional<HttpReply> OpenAi::early(const HttpRequest& request) {
  if (const Status known = origins_.check(request); !known.ok()) {
    return refuse({403, known.message(), "", "forbidden"}, "other", request);
  }
  if (origins_.is_preflight(request)) {  // browsers send no key with it
    return HttpReply{204, {{"X-Request-Id", request_id(request)}}, ""};
  }
  const Route* found = nullptr;
  std::string allowed;
  for (const Route& route : routes()) {
    if (!matches(route.path, request.path)) continue;
    if (same_method(route.method, request.method)) found = &route;
    allowed += cat(allowed.empty() ? "" : ", ", route.method);
  }
  // Without a key nobody learns which routes there are.
  const bool open = found != nullptr && !found->needs_key;
  if (!open && !keys_.empty() && !keys_.find(request.header("authorization"))) {
    return refuse({401, "an API key is needed: Authorization: Bearer <key>", "", "invalid_api_key"},
                  "other", request);
  }
  if (allowed.empty()) {
    return refuse({404, "there is no such route", "", "unknown_route"}, "other", request);
  }
  if (found == nullptr) {
    HttpReply reply = refuse({405, cat("this route takes ", allowed), "", "method_not_allowed"},
                             "other", request);
    reply.headers.emplace_back("Allow", allowed);
    return reply;
  }
  if (found->page == nullptr) return std::nullopt;
  HttpReply reply = (this->*found->page)(request);
  metrics_->answered(found->path, reply.status, "");
  return reply;
}

void OpenAi::handle(HttpRequest request, std::shared_ptr<Responder> responder) {
  for (const Route& route : routes()) {
    if (route.action != nullptr && matches(route.path, request.path)) {
      return (this->*route.action)(request, std::move(responder));
    }
  }
  responder->send(refuse({404, "there is no such route", "", "unknown_route"}, "other", request));
}

namespace {

// With shadow checks: how many there were, and which modes they switched off.
std::string health_json(const engine::ShadowTracker::Stats& shadow) {
  if (shadow.share == 0) return "{\"status\":\"ok\"}";
  std::string off;
  for (const auto& row : shadow.rows) {
    if (!row.claimed || row.off_from == engine::Level::kNone) continue;
    off += cat(off.empty() ? "" : ",", "{\"mode\":", json_quote(engine::setting_name(row.setting)),
               ",\"min_tokens\":", row.min_tokens,
               ",\"quality\":", json_quote(engine::level_name(row.off_from)), "}");
  }
  return cat("{\"status\":\"ok\",\"shadow\":{\"share\":", shadow.share,
             ",\"sampled\":", shadow.num_sampled, ",\"checked\":", shadow.num_checked,
             ",\"dropped\":", shadow.num_dropped, ",\"off\":[", off, "]}}");
}

}  // namespace

HttpReply OpenAi::health(const HttpRequest& request) {
  const Status status = service_.runner().health();
  if (status.ok()) return json_page(request, 200, health_json(service_.runner().shadow_stats()));
  HttpReply reply = error_reply({503, status.message(), "", "unhealthy"});
  reply.headers.emplace_back("X-Request-Id", request_id(request));
  return reply;
}

HttpReply OpenAi::ready(const HttpRequest& request) {
  if (!service_.runner().health().ok()) return health(request);
  if (!draining_) return json_page(request, 200, "{\"status\":\"ready\"}");
  HttpReply reply = error_reply({503, "the server is shutting down", "", "unavailable"});
  reply.headers.emplace_back("X-Request-Id", request_id(request));
  return reply;
}

HttpReply OpenAi::version(const HttpRequest& request) {
  return json_page(request, 200, cat("{\"version\":", json_quote(version_), "}"));
}

HttpReply OpenAi::metrics(const HttpRequest& request) {
  const engine::Service::Load load = service_.load();
  metrics_->load(load.running, load.queued);
  const auto shadow = service_.runner().shadow_stats();
  if (shadow.share > 0) metrics_->shadow(shadow);
  return {200, common_headers("text/plain; version=0.0.4", request_id(request)), metrics_->text()};
}

std::string OpenAi::model_json() const {
  return cat("{\"id\":", json_quote(model_.info.id),
             ",\"object\":\"model\",\"created\":", model_.info.created,
             ",\"owned_by\":\"redknot\",\"max_model_len\":", model_.info.context_tokens, "}");
}

HttpReply OpenAi::models(const HttpRequest& request) {
  return json_page(request, 200, cat("{\"object\":\"list\",\"data\":[", model_json(), "]}"));
}

HttpReply OpenAi::model(const HttpRequest& request) {
  const auto id = percent_decode(request.path.substr(std::string_view("/v1/models/").size()));
  if (id && *id == model_.info.id) return json_page(request, 200, model_json());
  HttpReply reply =
      error_reply({404, cat("the model is not served here; ", json_quote(model_.info.id), " is"),
                   "model", "model_not_found"});
  reply.headers.emplace_back("X-Request-Id", request_id(request));
  return reply;
}

void OpenAi::chat_completions(HttpRequest& request, std::shared_ptr<Responder> responder) {
  GenerateRequest call;
  ApiError error;
  const char* route = "/v1/chat/completions";
  if (!parse_chat(request.body, model_, call, error)) {
    return responder->send(refuse(error, route, request));
  }
  generate(request, std::move(call), route, std::move(responder));
}

void OpenAi::completions(HttpRequest& request, std::shared_ptr<Responder> responder) {
  GenerateRequest call;
  ApiError error;
  const char* route = "/v1/completions";
  if (!parse_completion(request.body, model_, call, error)) {
    return responder->send(refuse(error, route, request));
  }
  generate(request, std::move(call), route, std::move(responder));
}

void OpenAi::generate(const HttpRequest& request, GenerateRequest call, const std::string& route,
                      std::shared_ptr<Responder> responder) {
  call.engine.cache_namespace =
      keys_.cache_namespace(keys_.find(request.header("authorization")), call.cache_salt);
  AnswerInfo info;
  info.id = random_id(call.chat ? "chatcmpl-" : "cmpl-");
  info.request_id = request_id(request);
  info.model = model_.info.id;
  info.route = route;
  info.created = unix_now();
  info.chat = call.chat;
  info.stream = call.stream;
  info.include_usage = call.include_usage;
  info.logprobs = call.engine.num_logprobs >= 0;
  info.echo = std::move(call.echo);
  info.num_choices = call.num_choices;
  log::debug("serve: ", info.request_id, " ", route, " from ", request.remote);
  const auto answer = make_answer(std::move(info), responder, metrics_);
  std::vector<std::shared_ptr<Completion>> choices;
  std::vector<std::weak_ptr<Completion>>
      weak;  // each holds the responder, which holds the callback
  for (int i = 0; i < call.num_choices; ++i) {
    choices.push_back(
        std::make_shared<Completion>(model_.tokenizer, call.completion, answer->sink(i)));
    weak.push_back(choices.back());
  }
  responder->on_disconnect([weak = std::move(weak)] {
    for (const auto& choice : weak) {
      if (const auto alive = choice.lock()) alive->cancel();
    }
  });
  for (const auto& choice : choices) {
    const Status status = service_.submit(call.engine, choice);
    if (!status.ok()) {  // all or none
      for (const auto& queued : choices) queued->cancel();
      return responder->send(refuse(api_error(status), route, request));
    }
    ++call.engine.sampling.seed;
  }
  answer->open();
}

std::string request_id(const HttpRequest& request) {
  const std::string_view given = request.header("x-request-id");
  const bool usable = !given.empty() && given.size() <= 128 &&
                      given.find_first_not_of(
                          "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
                          std::string_view::npos;
  return usable ? std::string(given) : random_id("req-");
}

}  // namespace rk::serve
