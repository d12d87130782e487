#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <thread>

#include "base/log.h"
#include "main/cli.h"
#include "main/session.h"
#include "main/version.h"
#include "serve/server.h"

namespace rk::cli {
namespace {

struct ServeFlags {
  std::string host = "127.0.0.1", api_key, api_key_file, model_id;
  int port = 8080, max_queued = 64, drain_seconds = 30;
  int64_t context = 0;
  bool insecure = false;
  double shadow_share = 0;
  std::vector<std::string> allowed_hosts, cors_origins;
};

Result<std::vector<std::string>> api_keys(const ServeFlags& f) {
  std::vector<std::string> keys;
  if (!f.api_key.empty()) keys.push_back(f.api_key);
  if (f.api_key_file.empty()) return keys;
  std::ifstream in(f.api_key_file);
  if (!in) return not_found(f.api_key_file, ": no such file");
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) keys.push_back(line);
  }
  if (keys.empty()) return invalid_argument(f.api_key_file, ": holds no key");
  return keys;
}

// Blocks the signals that end the server in every thread made from here on; sigwait takes them.
sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

Status serve(const ServeFlags& f, const CommonFlags& common) {
  serve::Server::Options options;
  RK_TRY(options.api_keys, api_keys(f));
  std::signal(SIGPIPE, SIG_IGN);
  const sigset_t signals = stop_signals();
  RK_TRY(Session session, Session::open(common, f.context, {f.shadow_share, common.seed}));
  const engine::Engine& engine = *session.engine;
  serve::ModelInfo info;
  const bool named = common.model.find('/') == std::string::npos;  // "smollm2" rather than a path
  info.id = named ? common.model : session.path.substr(session.path.find_last_of('/') + 1);
  if (!f.model_id.empty()) info.id = f.model_id;
  info.context_tokens = engine.context_tokens();
  info.created = std::time(nullptr);
  info.company = session.company;
  RK_TRY(info.neutral, serve::read_company(*session.tokenizer, "neutral"));
  engine::Service::Options queue;
  queue.max_queued = f.max_queued;
  engine::Service service(std::move(session.engine), queue);
  options.http.host = f.host;
  options.http.port = f.port;
  options.insecure = f.insecure;
  options.origins = {f.allowed_hosts, f.cors_origins};
  options.version = version();
  RK_TRY(const auto server, serve::Server::start(options, service, *session.tokenizer,
                                                 session.chat ? &*session.chat : nullptr, info));
  std::cerr << "redknot " << version() << ": " << info.id << ", " << info.context_tokens
            << " tokens of context, listening on http://" << f.host << ":" << server->port()
            << " (loaded in " << static_cast<int64_t>(session.load_ms) << " ms)\n";
  int signal = 0;
  sigwait(&signals, &signal);
  std::cerr << "redknot: " << (signal == SIGTERM ? "SIGTERM" : "SIGINT") << ": draining for up to "
            << f.drain_seconds << " s; a second signal ends at once\n";
  std::thread([signals] {  // the second signal does not wait
    int again = 0;
    sigwait(&signals, &again);
    std::_Exit(1);
  })
      .detach();
  return server->stop(f.drain_seconds * 1000);
}

}  // namespace

/// redknot serve: the HTTP server.
Command cmd_serve() {
  return {
      .name = "serve",
      .summary = "the HTTP server, OpenAI-compatible",
      .examples =
          "  redknot serve -m smollm2 --port 8080\n"
          "  redknot serve --host 0.0.0.0 --api-key-file keys.txt\n"
          "  curl -s http://127.0.0.1:8080/v1/chat/completions -d "
          "'{\"messages\":[{\"role\":\"user\","
          "\"content\":\"Who "
          "signed?\"}],\"documents\":[{\"title\":\"Report\",\"text\":\"...\"}]}'\n",
      .uses = kUsesModel | kUsesPlan | kUsesEngine | kUsesSeed | kUsesCompany,
      .declare = [](Flags& flags, const CommonFlags& common) -> Action {
        auto f = std::make_shared<ServeFlags>();
        flags.add("--host", f->host, "address; other than loopback needs a key or --insecure");
        flags.add("--port", f->port, "0: any free one");
        flags.add("--api-key", f->api_key, "key that every request must carry");
        flags.add("--api-key-file", f->api_key_file, "keys, one a line");
        flags.add("--model-id", f->model_id, "name in /v1/models; default --model");
        flags.add("--context", f->context, "context in tokens; 0: the model's");
        flags.add("--max-queued", f->max_queued, "requests waiting before 429");
        flags.add("--shadow-share", f->shadow_share,
                  "share of approximate answers, 0 to 1, that are computed again densely while no "
                  "request waits; a mode that leaves what its card says is chosen no more");
        flags.add("--drain-seconds", f->drain_seconds, "time for running requests after SIGTERM");
        flags.add("--insecure", f->insecure, "allow a public address without a key");
        flags.add(
            "--allowed-host", f->allowed_hosts,
            "name in Host headers besides loopback's, or '*'; a loopback server refuses others");
        flags.add("--cors-origin", f->cors_origins,
                  "web page that may use the server, scheme://host[:port], or '*'; default none");
        return {[f, &common] { return serve(*f, common); },
                [f]() -> Status {
                  if (f->port < 0 || f->port > 65535) {
                    return invalid_argument("--port: ", f->port, ", 0 to 65535 possible");
                  }
                  if (f->max_queued < 1) {
                    return invalid_argument("--max-queued: ", f->max_queued, ", at least 1 wanted");
                  }
                  if (!engine::check_shadow_share(f->shadow_share).ok()) {
                    return invalid_argument("--shadow-share: ", f->shadow_share,
                                            ", 0 to 1 possible");
                  }
                  const serve::OriginPolicy::Options names{f->allowed_hosts, f->cors_origins};
                  return serve::OriginPolicy::create(names, f->host, false).status();
                }};
      },
  };
}

}  // namespace rk::cli
