// The server: HTTP in front of an engine service. Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/service.h"
#include "serve/generate_request.h"
#include "serve/http.h"
#include "serve/origin.h"

namespace rk::serve {

class Server {
 public:
  struct Options {
    HttpServer::Options http;           ///< address, port, threads, limits, timeouts
    std::vector<std::string> api_keys;  ///< none: everybody who reaches the port may ask
    bool insecure = false;              ///< allow other than loopback addresses without a key
    OriginPolicy::Options origins;      ///< Host and Origin headers that are let in
    std::string version = "dev";
  };

  /// Answers requests until stop(). `chat` may be null: chat requests are then refused. Everything
  /// passed by reference outlives the server and every request given to `service`.
  /// Errors: kInvalidArgument for an address beyond loopback without a key, an empty or unprintable
  /// key, a bad address, host or origin; kUnavailable when the port cannot be had.
  static Result<std::unique_ptr<Server>> start(const Options& options, engine::Service& service,
                                               const text::Tokenizer& tokenizer,
                                               const text::ChatTemplate* chat,
                                               const ModelInfo& info);
  ~Server();  ///< stop(0)

  int port() const;
  /// Drains: /ready answers 503, new requests are refused, those accepted are finished; after
  /// `timeout_ms` the rest is cancelled. The service stays drained.
  /// Errors: kDeadline naming how many were cancelled.
  Status stop(int timeout_ms);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace rk::serve
