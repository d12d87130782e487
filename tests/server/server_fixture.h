// A server on loopback over the fake engine.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "serve/fake_engine.h"
#include "serve/raw_client.h"
#include "serve/server.h"

namespace rk::serve {

namespace json = boost::json;

inline bool eventually(const std::function<bool()>& f) {
  for (int i = 0; i < 1000; ++i) {
    if (f()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

struct ServerTest : ::testing::Test {
  FakeEngineState engine;
  FakeTokenizer tokenizer;
  engine::Service::Options queue;
  Server::Options options;
  std::optional<text::ChatTemplate> chat;
  std::unique_ptr<engine::Service> service;
  std::unique_ptr<Server> server;

  void start() {
    auto parsed = text::ChatTemplate::parse(kFakeChatTemplate);
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    chat = std::move(parsed).value();
    service = std::make_unique<engine::Service>(std::make_unique<FakeRunner>(engine), queue);
    options.http.port = 0;
    auto started =
        Server::start(options, *service, tokenizer, &*chat, {"fake/model", 4096, 1700000000});
    ASSERT_TRUE(started.ok()) << started.status().message();
    server = std::move(started).value();
  }
  void TearDown() override {
    server.reset();
    service.reset();
  }

  int port() const { return server->port(); }
  json::value ask(std::string_view path, std::string_view body, int status = 200) {
    const RawReply reply = post(port(), path, body);
    EXPECT_EQ(reply.status, status) << body.substr(0, 200) << "\n" << reply.body;
    boost::system::error_code ec;
    json::value value = json::parse(reply.body, ec);
    EXPECT_FALSE(ec) << reply.body;
    return value;
  }
  json::value chat_ask(std::string_view body, int status = 200) {
    return ask("/v1/chat/completions", body, status);
  }
  json::value complete(std::string_view body, int status = 200) {
    return ask("/v1/completions", body, status);
  }
  /// A good request answers: called after every bad one.
  void expect_alive() {
    const RawReply reply = post(port(), "/v1/completions", R"({"prompt":"hi","max_tokens":5})");
    EXPECT_EQ(reply.status, 200);
    EXPECT_NE(reply.body.find("\"Hello\""), std::string::npos) << reply.body;
  }
};

/// The JSON of every event of a stream but "[DONE]", which must be last unless `done` is false.
inline std::vector<json::value> events_of(const std::string& body, bool done = true) {
  std::vector<json::value> out;
  bool ended = false;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    if (end == std::string::npos) break;
    const std::string line = body.substr(at, end - at);
    at = end + 2;
    EXPECT_TRUE(line.starts_with("data: ")) << line;
    EXPECT_FALSE(ended);
    if (line == "data: [DONE]") {
      ended = true;
    } else {
      out.push_back(json::parse(line.substr(6)));
    }
  }
  EXPECT_EQ(ended, done);
  return out;
}

inline std::string text_of(const json::value& answer) {
  const json::object& choice = answer.at("choices").at(0).as_object();
  if (choice.contains("text")) return std::string(choice.at("text").as_string());
  return std::string(choice.at("message").at("content").as_string());
}

}  // namespace rk::serve
