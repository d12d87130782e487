// What the endpoints answer to good requests, to overload, and at the end.
#include "serve/openai.h"
#include "server_fixture.h"

namespace rk::serve {
namespace {

constexpr const char* kHi = R"("messages":[{"role":"user","content":"hi"}])";
constexpr const char* kWhole = "Hello from the fake engine.";

TEST_F(ServerTest, ChatAnswersInOpenAisShape) {
  start();
  const json::value answer = chat_ask(cat("{", kHi, R"(,"model":"fake/model"})"));
  EXPECT_EQ(answer.at("object").as_string(), "chat.completion");
  EXPECT_EQ(answer.at("model").as_string(), "fake/model");
  EXPECT_TRUE(answer.at("id").as_string().starts_with("chatcmpl-"));
  EXPECT_EQ(text_of(answer), kWhole);
  EXPECT_EQ(answer.at("choices").at(0).at("finish_reason").as_string(), "stop");
  EXPECT_EQ(answer.at("choices").at(0).at("message").at("role").as_string(), "assistant");
  const json::value& usage = answer.at("usage");
  EXPECT_EQ(usage.at("completion_tokens").as_int64(), 27);
  EXPECT_EQ(usage.at("total_tokens").as_int64(), usage.at("prompt_tokens").as_int64() + 27);
  for (const char* name :
       {"cached_tokens", "prefix_cached_tokens", "document_cached_tokens", "recomputed_tokens"}) {
    EXPECT_EQ(usage.at("prompt_tokens_details").at(name).as_int64(), 0) << name;
  }
  EXPECT_EQ(answer.at("redknot").at("mode").as_string(), "prefix");
  EXPECT_EQ(answer.at("redknot").at("gate").as_string(), "pass");
  EXPECT_EQ(engine.last_prompt, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(ServerTest, ChatStreamsWithUsage) {
  start();
  const RawReply reply =
      post(port(), "/v1/chat/completions",
           cat("{", kHi, R"(,"stream":true,"stream_options":{"include_usage":true}})"));
  EXPECT_EQ(reply.header("Content-Type"), "text/event-stream");
  const auto events = events_of(reply.body);
  ASSERT_EQ(events.size(), 1 + 27 + 1 + 1U);  // role, tokens, finish, usage
  EXPECT_EQ(events[0].at("choices").at(0).at("delta").at("role").as_string(), "assistant");
  std::string text;
  for (size_t i = 1; i < 28; ++i) {
    text += events[i].at("choices").at(0).at("delta").at("content").as_string().c_str();
    EXPECT_TRUE(events[i].at("usage").is_null());
    EXPECT_EQ(events[i].at("object").as_string(), "chat.completion.chunk");
  }
  EXPECT_EQ(text, kWhole);
  EXPECT_EQ(events[28].at("choices").at(0).at("finish_reason").as_string(), "stop");
  EXPECT_EQ(events[28].at("redknot").at("gate").as_string(), "pass");
  EXPECT_TRUE(events[29].at("choices").as_array().empty());
  EXPECT_EQ(events[29].at("usage").at("completion_tokens").as_int64(), 27);
}

TEST_F(ServerTest, CompletionsTakeTextIdsEchoAndLimits) {
  start();
  json::value answer = complete(R"({"prompt":"ab","max_tokens":5,"echo":true})");
  EXPECT_EQ(text_of(answer), "abHello");
  EXPECT_EQ(answer.at("object").as_string(), "text_completion");
  EXPECT_EQ(answer.at("choices").at(0).at("finish_reason").as_string(), "length");
  EXPECT_EQ(answer.at("usage").at("prompt_tokens").as_int64(), 2);
  EXPECT_EQ(text_of(complete(R"({"prompt":["ab"]})")), std::string(kWhole).substr(0, 16));
  for (const char* prompt : {"[97,98,258]", "[[97,98,258]]"}) {
    complete(cat(R"({"prompt":)", prompt, "}"));
    EXPECT_EQ(engine.last_prompt, "ab<|im_end|>");
  }
  complete(R"({"prompt":"a<|im_end|>b"})");
  EXPECT_EQ(engine.last.spans[0].tokens.size(), 12U);  // bytes, no special token
  const auto events = events_of(
      post(port(), "/v1/completions", R"({"prompt":"ab","stream":true,"echo":true})").body);
  EXPECT_EQ(text_of(events[0]), "ab");
}

TEST_F(ServerTest, StopStringsAcrossTokens) {
  start();
  const json::value answer =
      complete(R"({"prompt":"x","max_tokens":50,"stop":["the real","the fake"]})");
  EXPECT_EQ(text_of(answer), "Hello from ");
  EXPECT_EQ(answer.at("choices").at(0).at("finish_reason").as_string(), "stop");
  std::string text;
  for (const json::value& event :
       events_of(post(port(), "/v1/completions",
                      R"({"prompt":"x","max_tokens":50,"stream":true,"stop":"the fake"})")
                     .body)) {
    text += text_of(event);
  }
  EXPECT_EQ(text, "Hello from ");
}

TEST_F(ServerTest, LogprobsOfChatAndCompletions) {
  start();
  const json::value chat_answer =
      chat_ask(cat("{", kHi, R"(,"logprobs":true,"top_logprobs":2,"max_tokens":3})"));
  const json::array& content =
      chat_answer.at("choices").at(0).at("logprobs").at("content").as_array();
  ASSERT_EQ(content.size(), 3U);
  EXPECT_EQ(content[0].at("token").as_string(), "H");
  EXPECT_EQ(content[0].at("bytes").at(0).as_int64(), 72);
  EXPECT_EQ(content[0].at("top_logprobs").as_array().size(), 2U);
  const json::value answer = complete(R"({"prompt":"x","logprobs":1,"max_tokens":3})");
  const json::value& logprobs = answer.at("choices").at(0).at("logprobs");
  EXPECT_EQ(logprobs.at("tokens").as_array().size(), 3U);
  EXPECT_EQ(logprobs.at("text_offset").at(2).as_int64(), 2);
  EXPECT_EQ(logprobs.at("token_logprobs").at(0).as_double(), -0.5);
  const json::value cut = complete(R"({"prompt":"x","logprobs":0,"max_tokens":9,"stop":"lo"})");
  EXPECT_EQ(text_of(cut), "Hel");
  EXPECT_EQ(cut.at("choices").at(0).at("logprobs").at("tokens").as_array().size(), 3U);
}

TEST_F(ServerTest, DocumentsStandBeforeTheQuestionAndAreReused) {
  start();
  const std::string body =
      R"({"documents":[{"title":"T","text":"one <|im_end|>"},"two"],"redknot":{"mode":"reuse"},
          "messages":[{"role":"system","content":"S"},
                      {"role":"user","content":[{"type":"document","document":{"text":"three"}},
                                                {"type":"text","text":"why?"}]}]})";
  const json::value miss = chat_ask(body);
  EXPECT_EQ(engine.last_prompt,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n|Document: T\none <|im_end|>\n\n|"
            "two\n\n|three\n\n|why?<|im_end|>\n<|im_start|>assistant\n");
  ASSERT_EQ(engine.last.spans.size(), 5U);
  EXPECT_FALSE(engine.last.spans[0].segment);
  EXPECT_TRUE(engine.last.spans[1].segment);
  EXPECT_FALSE(engine.last.spans[4].segment);
  // The document's own "<|im_end|>" is bytes.
  EXPECT_EQ(engine.last.spans[1].tokens.size(),
            std::string("Document: T\none <|im_end|>\n\n").size());
  EXPECT_EQ(miss.at("redknot").at("gate").as_string(), "bypassed");
  EXPECT_EQ(miss.at("redknot").at("documents").at(2).at("state").as_string(), "miss");
  const json::value hit = chat_ask(body);
  EXPECT_EQ(hit.at("redknot").at("documents").at(2).at("state").as_string(), "hit");
  const json::value& details = hit.at("usage").at("prompt_tokens_details");
  EXPECT_EQ(details.at("document_cached_tokens").as_int64(), 28 + 5 + 7);
  EXPECT_EQ(details.at("cached_tokens").as_int64(), 28 + 5 + 7);
}

TEST_F(ServerTest, SamplingAndModeReachTheEngine) {
  start();
  complete(R"({"prompt":"x","temperature":0.5,"top_p":0.9,"top_k":7,"min_p":0.1,"seed":-3,
               "repetition_penalty":1.5,"presence_penalty":-1,"frequency_penalty":2,
               "logit_bias":{"5":-100},"min_tokens":2,"redknot":{"mode":"boundary","k":8}})");
  const engine::Request& r = engine.last;
  EXPECT_EQ(r.sampling.temperature, 0.5F);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.sampling.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(r.sampling.logit_bias.size(), 1U);
  EXPECT_EQ(r.min_tokens, 2);
  EXPECT_EQ(r.mode, engine::Mode::kBoundary);
  EXPECT_EQ(r.boundary_rows, 8);
  EXPECT_EQ(r.stop_tokens, std::vector<int32_t>{258});
  const json::value selective =
      complete(R"({"prompt":"x","redknot":{"mode":"selective","ratio":0.15,"select":"rows"}})");
  EXPECT_EQ(engine.last.mode, engine::Mode::kSelective);
  EXPECT_EQ(engine.last.selective_ratio, 0.15);
  EXPECT_EQ(engine.last.select, engine::SelectUnits::kRows);
  EXPECT_EQ(selective.at("redknot").at("gate").as_string(), "bypassed");
  complete(R"({"prompt":"x","redknot":{"mode":"selective:0.3"}})");
  EXPECT_EQ(engine.last.selective_ratio, 0.3);
  EXPECT_EQ(engine.last.select, engine::SelectUnits::kBlocks);
  complete(R"({"prompt":"x","redknot":{"mode":"selective:0.3:both"}})");
  EXPECT_EQ(engine.last.select, engine::SelectUnits::kBoth);
  complete(R"({"prompt":"x","redknot":{"reuse":"off"},"ignore_eos":true})");
  EXPECT_EQ(engine.last.mode, engine::Mode::kDense);
  EXPECT_FALSE(engine.last.cache_read || engine.last.cache_write);
  EXPECT_TRUE(engine.last.stop_tokens.empty());
  const json::value dense = complete(R"({"prompt":"x","redknot":{"mode":"dense"}})");
  EXPECT_EQ(dense.at("redknot").at("gate").as_string(), "pass");
}

TEST_F(ServerTest, SmallRoutes) {
  start();
  EXPECT_EQ(get(port(), "/health").status, 200);
  EXPECT_EQ(get(port(), "/ready").status, 200);
  EXPECT_EQ(json::parse(get(port(), "/v1/models").body).at("data").at(0).at("id").as_string(),
            "fake/model");
  EXPECT_EQ(get(port(), "/v1/models/fake%2Fmodel").status, 200);
  EXPECT_EQ(get(port(), "/v1/models/fake/model").status, 200);
  EXPECT_EQ(get(port(), "/v1/models/other").status, 404);
  EXPECT_EQ(json::parse(get(port(), "/version").body).at("version").as_string(), "dev");
  json::value tokens = ask("/tokenize", R"({"prompt":"ab"})");
  EXPECT_EQ(json::serialize(tokens.at("tokens")), "[97,98]");
  EXPECT_EQ(tokens.at("count").as_int64(), 2);
  tokens = ask("/tokenize", cat("{", kHi, "}"));
  EXPECT_EQ(ask("/detokenize", cat(R"({"tokens":)", json::serialize(tokens.at("tokens")), "}"))
                .at("prompt")
                .as_string(),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(ServerTest, MetricsExistAtZeroAndCount) {
  start();
  const std::string before = get(port(), "/metrics").body;
  for (const char* line :
       {"redknot_requests_total{code=\"200\",finish_reason=\"stop\",route=\"/v1/completions\"} 0",
        "redknot_requests_running 0", "redknot_requests_waiting 0", "redknot_ttft_seconds_count 0",
        "redknot_queue_seconds_count 0", "redknot_itl_seconds_count 0",
        "redknot_e2e_seconds_count 0", "redknot_prompt_tokens_total{source=\"document\"} 0",
        "redknot_generation_tokens_total 0", "redknot_rejected_total{reason=\"queue_full\"} 0",
        "redknot_build_info{"}) {
    EXPECT_NE(before.find(line), std::string::npos) << line << "\n" << before;
  }
  complete(R"({"prompt":"ab","max_tokens":50})");
  const std::string after = get(port(), "/metrics").body;
  for (const char* line :
       {"redknot_requests_total{code=\"200\",finish_reason=\"stop\",route=\"/v1/completions\"} 1",
        "redknot_ttft_seconds_count 1", "redknot_itl_seconds_count 26",
        "redknot_prompt_tokens_total{source=\"computed\"} 2",
        "redknot_generation_tokens_total 27"}) {
    EXPECT_NE(after.find(line), std::string::npos) << line << "\n" << after;
  }
}

TEST_F(ServerTest, SeveralChoicesWithSeedsOneApart) {
  start();
  const json::value answer = chat_ask(cat("{", kHi, R"(,"n":3,"seed":40,"max_tokens":5})"));
  ASSERT_EQ(answer.at("choices").as_array().size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    const json::value& choice = answer.at("choices").at(i);
    EXPECT_EQ(choice.at("index").as_int64(), static_cast<int64_t>(i));
    EXPECT_EQ(choice.at("message").at("content").as_string(), "Hello");
    EXPECT_EQ(choice.at("finish_reason").as_string(), "length");
  }
  EXPECT_EQ(engine.seeds, (std::vector<uint64_t>{40, 41, 42}));
  // The prompt is counted once, the answers are added up.
  const int64_t prompt = chat_ask(cat("{", kHi, "}")).at("usage").at("prompt_tokens").as_int64();
  EXPECT_EQ(answer.at("usage").at("prompt_tokens").as_int64(), prompt);
  EXPECT_EQ(answer.at("usage").at("completion_tokens").as_int64(), 15);
  EXPECT_EQ(answer.at("usage").at("total_tokens").as_int64(), prompt + 15);
  const json::value texts = complete(
      R"({"prompt":"ab","n":2,"best_of":2,"echo":true,"max_tokens":5,"logit_bias":{"1":1}})");
  EXPECT_EQ(texts.at("choices").at(1).at("text").as_string(), "abHello");
  EXPECT_NE(
      get(port(), "/metrics")
          .body.find("redknot_requests_total{code=\"200\",finish_reason=\"length\",route=\"/v1/"
                     "completions\"} 1"),
      std::string::npos);
}

TEST_F(ServerTest, SeveralChoicesStreamWithTheirIndex) {
  start();
  const auto events = events_of(
      post(port(), "/v1/chat/completions",
           cat("{", kHi,
               R"(,"n":2,"max_tokens":5,"stream":true,"stream_options":{"include_usage":true}})"))
          .body);
  ASSERT_EQ(events.size(), 2 * (1 + 5 + 1) + 1U);
  std::string texts[2], roles[2], ends[2];
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json::object& choice = events[i].at("choices").at(0).as_object();
    const auto index = static_cast<size_t>(choice.at("index").as_int64());
    ASSERT_LT(index, 2U);
    const json::object& delta = choice.at("delta").as_object();
    if (delta.contains("role")) roles[index] += delta.at("role").as_string().c_str();
    if (delta.contains("content")) texts[index] += delta.at("content").as_string().c_str();
    if (!choice.at("finish_reason").is_null()) {
      ends[index] += choice.at("finish_reason").as_string().c_str();
    }
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(texts[i], "Hello");
    EXPECT_EQ(roles[i], "assistant");
    EXPECT_EQ(ends[i], "length");
  }
  EXPECT_EQ(events.back().at("usage").at("completion_tokens").as_int64(), 10);
}

TEST_F(ServerTest, ChoicesAreQueuedAllOrNone) {
  queue.max_queued = 2;
  engine.token_ms = 1;
  start();
  for (const char* stream : {"false", "true"}) {
    const RawReply refused =
        post(port(), "/v1/completions", cat(R"({"prompt":"x","n":16,"stream":)", stream, "}"));
    EXPECT_EQ(refused.status, 429) << refused.body;
    EXPECT_NE(refused.header("Retry-After"), "");
    ASSERT_TRUE(eventually([&] { return service->load().queued + service->load().running == 0; }));
  }
  EXPECT_EQ(complete(R"({"prompt":"x","n":2,"max_tokens":5})").at("choices").as_array().size(), 2U);
}

TEST_F(ServerTest, AClientThatLeavesCancelsEveryChoice) {
  engine.token_ms = 2;
  engine.endless = true;
  start();
  const std::string body = R"({"prompt":"x","n":5,"max_tokens":4000,"stream":true})";
  {
    RawClient client(port());
    client.send(cat("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ",
                    body.size(), "\r\n\r\n", body));
    ASSERT_TRUE(client.fill());
  }
  ASSERT_TRUE(eventually([&] { return service->load().queued + service->load().running == 0; }));
  EXPECT_EQ(engine.runs, 1);
  engine.endless = false;
  expect_alive();
}

TEST_F(ServerTest, AFailedChoiceFailsTheAnswerOnce) {
  start();
  complete(R"({"prompt":"FAIL","n":3})", 500);
  EXPECT_EQ(post(port(), "/v1/completions", R"({"prompt":"FAIL","n":3,"stream":true})").status,
            500);
  expect_alive();
}

TEST_F(ServerTest, ForeignNamesAreRefusedOnLoopback) {
  start();
  const auto ask = [&](const std::string& head) {
    RawClient client(port());
    client.send(cat("GET /health HTTP/1.1\r\n", head, "\r\n"));
    return client.read_reply();
  };
  EXPECT_EQ(ask("Host: localhost:1\r\n").status, 200);
  EXPECT_EQ(ask("Host: [::1]\r\n").status, 200);
  const RawReply foreign = ask("Host: evil.example:8080\r\n");
  EXPECT_EQ(foreign.status, 403);
  EXPECT_NE(foreign.body.find("--allowed-host"), std::string::npos) << foreign.body;
  EXPECT_EQ(ask("").status, 400);  // HTTP/1.1 has one, always
  EXPECT_EQ(ask("Host: localhost\r\nHost: evil.example\r\n").status, 400);
  EXPECT_NE(get(port(), "/metrics").body.find("redknot_rejected_total{reason=\"forbidden\"} 1"),
            std::string::npos);
}

TEST_F(ServerTest, WebPagesNeedToBeAllowed) {
  options.origins.cors_origins = {"http://app.example"};
  start();
  constexpr const char* kBody = R"({"prompt":"x","max_tokens":5})";
  const RawReply good = post(port(), "/v1/completions", kBody, "Origin: http://app.example\r\n");
  EXPECT_EQ(good.status, 200);
  EXPECT_EQ(good.header("Access-Control-Allow-Origin"), "http://app.example");
  EXPECT_EQ(good.header("Vary"), "Origin");
  // Errors and streams are for the page's eyes as well.
  for (const char* body : {"{", R"({"prompt":"x","stream":true})"}) {
    const RawReply reply = post(port(), "/v1/completions", body, "Origin: http://app.example\r\n");
    EXPECT_EQ(reply.header("Access-Control-Allow-Origin"), "http://app.example");
  }
  const RawReply bad = post(port(), "/v1/completions", kBody, "Origin: http://evil.example\r\n");
  EXPECT_EQ(bad.status, 403);
  EXPECT_EQ(bad.header("Access-Control-Allow-Origin"), "");
  const auto preflight = [&](const std::string& origin) {
    return RawClient(port()).request(
        "OPTIONS", "/v1/completions", "",
        cat("Origin: ", origin, "\r\nAccess-Control-Request-Method: POST\r\n",
            "Access-Control-Request-Headers: authorization\r\n"));
  };
  const RawReply may = preflight("http://app.example");
  EXPECT_EQ(may.status, 204);
  EXPECT_EQ(may.header("Access-Control-Allow-Headers"), "authorization");
  EXPECT_NE(may.header("Access-Control-Allow-Methods").find("POST"), std::string::npos);
  EXPECT_EQ(may.header("Content-Length"), "");
  EXPECT_EQ(preflight("http://evil.example").status, 403);
}

TEST_F(ServerTest, NoPageMayAskByDefaultAndAKeyIsNotNeededToAskWhether) {
  options.api_keys = {"secret"};
  options.origins.cors_origins = {"*"};
  start();
  const RawReply may = RawClient(port()).request(
      "OPTIONS", "/v1/models", "", "Origin: null\r\nAccess-Control-Request-Method: GET\r\n");
  EXPECT_EQ(may.status, 204);
  EXPECT_EQ(may.header("Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(get(port(), "/v1/models", "Origin: null\r\n").status, 401);
  server.reset();
  options.origins = {};
  start();
  const RawReply no = RawClient(port()).request(
      "OPTIONS", "/v1/models", "", "Origin: null\r\nAccess-Control-Request-Method: GET\r\n");
  EXPECT_EQ(no.status, 401);
  EXPECT_EQ(no.header("Access-Control-Allow-Origin"), "");
}

TEST_F(ServerTest, RequestIdsAreEchoedWhenSane) {
  start();
  EXPECT_EQ(get(port(), "/health", "X-Request-Id: abc-1\r\n").header("X-Request-Id"), "abc-1");
  for (const std::string& bad : {std::string("a b"), std::string("x\ty"), std::string(129, 'x')}) {
    const std::string id =
        get(port(), "/health", cat("X-Request-Id: ", bad, "\r\n")).header("X-Request-Id");
    EXPECT_TRUE(id.starts_with("req-")) << id;
  }
}

TEST_F(ServerTest, EveryRouteButHealthAndReadyNeedsAKey) {
  options.api_keys = {"secret-one", "secret-two"};
  start();
  for (const OpenAi::Route& route : OpenAi::routes()) {
    SCOPED_TRACE(route.path);
    for (const char* header :
         {"", "Authorization: Bearer wrong\r\n", "Authorization: Bearer secret\r\n",
          "Authorization: secret-one\r\n", "Authorization: Bearer \r\n"}) {
      const RawReply reply = RawClient(port()).request(route.method, route.path, "{}", header);
      if (!route.needs_key) {
        EXPECT_EQ(reply.status, 200);
      } else {
        EXPECT_EQ(reply.status, 401);
        EXPECT_NE(reply.body.find("invalid_api_key"), std::string::npos);
      }
    }
  }
  EXPECT_EQ(get(port(), "/v1/models?api_key=secret-one").status, 401);
  EXPECT_EQ(get(port(), "/v1/models", "Authorization: Bearer secret-two\r\n").status, 200);
  post(port(), "/v1/completions", R"({"prompt":"x"})", "Authorization: Bearer secret-one\r\n");
  const std::string one = engine.last.cache_namespace;
  post(port(), "/v1/completions", R"({"prompt":"x"})", "Authorization: bearer secret-two\r\n");
  EXPECT_NE(one, "");
  EXPECT_NE(one, engine.last.cache_namespace);
}

TEST_F(ServerTest, APublicAddressNeedsAKey) {
  options.http.host = "0.0.0.0";
  auto parsed = text::ChatTemplate::parse(kFakeChatTemplate);
  service = std::make_unique<engine::Service>(std::make_unique<FakeRunner>(engine), queue);
  options.http.port = 0;
  const ModelInfo info{"m", 10, 0};
  EXPECT_EQ(Server::start(options, *service, tokenizer, nullptr, info).code(),
            Code::kInvalidArgument);
  options.insecure = true;
  EXPECT_TRUE(Server::start(options, *service, tokenizer, nullptr, info).ok());
}

TEST_F(ServerTest, AFullQueueAnswers429AndTheEnginesFailure500) {
  queue.max_queued = 0;
  engine.token_ms = 5;
  engine.endless = true;
  start();
  RawClient busy(port());
  busy.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 31\r\n\r\n"
      R"({"prompt":"x","max_tokens":500})");
  ASSERT_TRUE(eventually([&] { return engine.runs == 1; }));
  const RawReply refused = post(port(), "/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_NE(refused.header("Retry-After"), "");
  EXPECT_NE(refused.body.find("rate_limit_error"), std::string::npos);
  busy.close();
  ASSERT_TRUE(eventually([&] { return engine.cancelled == 1; }));
  engine.endless = false;
  engine.token_ms = 0;
  // A place is free a moment after its answer has gone out, and nobody may wait for it here.
  const auto becomes = [&](int status, const char* body) {
    return eventually([&] { return post(port(), "/v1/completions", body).status == status; });
  };
  EXPECT_TRUE(becomes(500, R"({"prompt":"FAIL"})"));
  EXPECT_TRUE(becomes(500, R"({"prompt":"FAIL","stream":true})"));
  EXPECT_TRUE(becomes(200, R"({"prompt":"hi"})"));
}

TEST_F(ServerTest, ABrokenDeviceIsNeitherHealthyNorReady) {
  start();
  EXPECT_EQ(get(port(), "/health").status, 200);
  engine.broken = true;
  for (const char* path : {"/health", "/ready"}) {
    const RawReply reply = get(port(), path);
    EXPECT_EQ(reply.status, 503) << path;
    EXPECT_NE(reply.body.find("fell off the bus"), std::string::npos) << reply.body;
  }
}

TEST_F(ServerTest, StopFinishesWhatWasAccepted) {
  engine.token_ms = 5;
  start();
  RawClient busy(port());
  busy.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n"
      R"({"prompt":"x","max_tokens":20})");
  ASSERT_TRUE(eventually([&] { return engine.runs == 1; }));
  std::thread stopper([&] { EXPECT_TRUE(server->stop(5000).ok()); });
  ASSERT_TRUE(eventually([&] { return get(port(), "/ready").status == 503; }));
  const RawReply late = post(port(), "/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(late.status, 503);
  EXPECT_NE(late.header("Retry-After"), "");
  EXPECT_EQ(busy.read_reply().status, 200);
  busy.close();
  stopper.join();
}

TEST_F(ServerTest, StopCancelsWhatTakesTooLong) {
  engine.token_ms = 5;
  engine.endless = true;
  start();
  RawClient busy(port());
  busy.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32\r\n\r\n"
      R"({"prompt":"x","max_tokens":4000})");
  ASSERT_TRUE(eventually([&] { return engine.runs == 1; }));
  EXPECT_EQ(server->stop(50).code(), Code::kDeadline);
  EXPECT_EQ(busy.read_reply().status, 503);
}

}  // namespace
}  // namespace rk::serve
