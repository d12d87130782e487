#include "serve/server.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "serve/openai.h"

namespace rk::serve {
namespace {

Status check_options(const Server::Options& options) {
  for (size_t i = 0; i < options.api_keys.size(); ++i) {
    const std::string& key = options.api_keys[i];
    const bool printable =
        std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 127; });
    if (key.empty() || !printable) {
      return invalid_argument("API key ", i, ": empty, or not printable ASCII without spaces");
    }
  }
  if (is_loopback(options.http.host) || !options.api_keys.empty()) return {};
  if (!options.insecure) {
    return invalid_argument("host ", options.http.host,
                            " is reachable from other machines: set an API key, or allow it with "
                            "--insecure");
  }
  log::warn("serve: ", options.http.host, " is reachable from other machines and needs no key");
  return {};
}

}  // namespace

struct Server::Impl {
  Impl(engine::Service& s, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat,
       const ModelInfo& model, OriginPolicy origins, const Options& options)
      : service(s),
        info(model),
        openai(s, {info, tokenizer, chat}, KeyRing(options.api_keys), std::move(origins),
               options.version) {}
  engine::Service& service;
  const ModelInfo info;
  OpenAi openai;
  std::unique_ptr<HttpServer> http;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { (void)stop(0); }
int Server::port() const { return impl_->http->port(); }

Result<std::unique_ptr<Server>> Server::start(const Options& options, engine::Service& service,
                                              const text::Tokenizer& tokenizer,
                                              const text::ChatTemplate* chat,
                                              const ModelInfo& info) {
  RK_RETURN_IF_ERROR(check_options(options));
  RK_TRY(OriginPolicy origins,
         OriginPolicy::create(options.origins, options.http.host, options.api_keys.empty()));
  auto impl = std::make_unique<Impl>(service, tokenizer, chat, info, std::move(origins), options);
  OpenAi& openai = impl->openai;
  HttpServer::Options http = options.http;
  http.extra_headers = [&openai](const HttpRequest& request) {
    return openai.extra_headers(request);
  };
  RK_TRY(impl->http, HttpServer::start(
                         http,
                         [&openai](HttpRequest request, std::shared_ptr<Responder> responder) {
                           openai.handle(std::move(request), std::move(responder));
                         },
                         [&openai](const HttpRequest& request) { return openai.early(request); },
                         [&openai](int status, const std::string& text) {
                           return openai.error(status, text);
                         }));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Status Server::stop(int timeout_ms) {
  const auto start = std::chrono::steady_clock::now();
  impl_->openai.begin_drain();
  const Status drained = impl_->service.drain(timeout_ms);
  const auto spent = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - start);
  // What the engine finished still has to reach its readers.
  const Status closed =
      impl_->http->stop(std::max(500, timeout_ms - static_cast<int>(spent.count())));
  return drained.ok() ? closed : drained;
}

}  // namespace rk::serve
