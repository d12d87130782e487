// The routes: OpenAI's endpoints, tokens, health and metrics, over an engine service. One table
// holds every route and says which need no key. Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "engine/service.h"
#include "serve/auth.h"
#include "serve/generate_request.h"
#include "serve/http.h"
#include "serve/metrics_page.h"
#include "serve/origin.h"

namespace rk::serve {

class OpenAi {
 public:
  /// All references outlive this and every request submitted to `service`.
  OpenAi(engine::Service& service, ModelView model, KeyRing keys, OriginPolicy origins,
         std::string version);

  /// HttpServer::Early: routes, keys, and everything that needs no body.
  std::optional<HttpReply> early(const HttpRequest& request);
  /// HttpServer::Handler: everything with a body.
  void handle(HttpRequest request, std::shared_ptr<Responder> responder);
  /// HttpServer::ErrorReply.
  HttpReply error(int status, const std::string& message);
  /// HttpServer::Options::extra_headers.
  Headers extra_headers(const HttpRequest& request) const { return origins_.headers(request); }

  /// /ready answers 503 from now on.
  void begin_drain() { draining_ = true; }

  struct Route {
    const char* method;
    const char* path;  ///< a trailing "/*" takes the rest
    bool needs_key;
    HttpReply (OpenAi::*page)(const HttpRequest&);  ///< without a body; null for the others
    void (OpenAi::*action)(HttpRequest&, std::shared_ptr<Responder>);
  };
  static const std::vector<Route>& routes();

 private:
  HttpReply health(const HttpRequest& request);
  HttpReply ready(const HttpRequest& request);
  HttpReply version(const HttpRequest& request);
  HttpReply metrics(const HttpRequest& request);
  HttpReply models(const HttpRequest& request);
  HttpReply model(const HttpRequest& request);
  void chat_completions(HttpRequest& request, std::shared_ptr<Responder> responder);
  void completions(HttpRequest& request, std::shared_ptr<Responder> responder);
  void tokenize(HttpRequest& request, std::shared_ptr<Responder> responder);
  void detokenize(HttpRequest& request, std::shared_ptr<Responder> responder);

  void generate(const HttpRequest& request, GenerateRequest call, const std::string& route,
                std::shared_ptr<Responder> responder);
  HttpReply refuse(const ApiError& error, const std::string& route, const HttpRequest& request);
  std::string model_json() const;

  engine::Service& service_;
  const ModelView model_;
  const KeyRing keys_;
  const OriginPolicy origins_;
  const std::string version_;
  const std::shared_ptr<MetricsPage> metrics_;
  std::atomic<bool> draining_{false};
};

/// The client's X-Request-Id where it is 1..128 of [A-Za-z0-9._-], else a new one.
std::string request_id(const HttpRequest& request);
/// `prefix` and 24 random characters.
std::string random_id(const char* prefix);

}  // namespace rk::serve
