// Requests that no server should fall over: each has its status, and a good request answers after.
#include "server_fixture.h"

namespace rk::serve {
namespace {

struct BadCase {
  std::string name, body;
  int status = 400;
  std::string says = "";  ///< part of the answer
};

std::string repeat(std::string_view text, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

std::string with(const std::string& fields) { return cat(R"({"prompt":"x",)", fields, "}"); }
std::string chat_with(const std::string& fields) {
  return cat(R"({"messages":[{"role":"user","content":"x"}],)", fields, "}");
}

struct BadInputs : ServerTest {
  void run(std::string_view path, const std::vector<BadCase>& cases) {
    for (const BadCase& c : cases) {
      SCOPED_TRACE(c.name.empty() ? c.body.substr(0, 120) : c.name);
      const RawReply reply = post(port(), path, c.body);
      EXPECT_EQ(reply.status, c.status) << reply.body.substr(0, 300);
      EXPECT_NE(reply.body.find(c.says), std::string::npos) << reply.body.substr(0, 300);
      if (c.status >= 400) {
        boost::system::error_code ec;
        const json::value value = json::parse(reply.body, ec);
        ASSERT_FALSE(ec) << reply.body;
        for (const char* field : {"message", "type", "param", "code"}) {
          EXPECT_TRUE(value.at("error").as_object().contains(field)) << field;
        }
      }
      expect_alive();
    }
  }
};

TEST_F(BadInputs, Group1NotJson) {
  start();
  const std::vector<BadCase> cases = {
      {"empty", "", 400, "empty"},
      {"", "hello", 400, "byte 0"},
      {"", "[]", 400, "an array"},
      {"", "null", 400, "object"},
      {"", R"({"prompt":"x")", 400, "ends early"},
      {"", R"({"prompt":"x"} more)", 400, "more text"},
      {"", R"({"prompt":"x"}{})", 400, "more text"},
      {"bom", "\xEF\xBB\xBF{\"prompt\":\"x\"}", 400},
      {"", R"({"prompt":"x","prompt":"y"})", 400, "duplicate key"},
      {"duplicates deep down", R"({"prompt":"x","other":[{"a":1,"a":2}]})", 400, "duplicate key"},
      {"duplicates by escape", R"({"prompt":"x","pr\u006fmpt":"y"})", 400, "duplicate key"},
      {"raw NUL", std::string("{\"prompt\":\"a\0b\"}", 15), 400},
      {"escaped NUL is text", R"({"prompt":"a\u0000b"})", 200},
      {"lone surrogate", R"({"prompt":"\ud800"})", 400},
      {"surrogate pair", R"({"prompt":"\ud83d\ude00"})", 200},
      {"invalid UTF-8", "{\"prompt\":\"\xff\xfe\"}", 400},
      {"overlong UTF-8", "{\"prompt\":\"\xc0\xaf\"}", 400},
      {"surrogate in UTF-8", "{\"prompt\":\"\xed\xa0\x80\"}", 400},
      {"comments", "{/* */\"prompt\":\"x\"}", 400},
      {"single quotes", "{'prompt':'x'}", 400},
  };
  run("/v1/completions", cases);
  run("/v1/chat/completions", {{"", "", 400}, {"", "{}", 400, "messages"}, {"", "5", 400}});
  run("/tokenize", {{"", "", 400}, {"", "{}", 400, "prompt"}, {"", R"({"prompt":5})", 400}});
  run("/detokenize", {{"", "", 400},
                      {"", "{}", 400},
                      {"", R"({"tokens":[999999]})", 400, "0..258"},
                      {"", R"({"tokens":[-1]})", 400},
                      {"", R"({"tokens":["a"]})", 400}});
}

TEST_F(BadInputs, Group2Bombs) {
  start();
  std::string keys;
  for (int i = 0; i < 1'000'000; ++i) keys += cat("\"k", i, "\":0,");
  std::vector<BadCase> cases;
  for (const size_t depth : {64U, 3000U, 100'000U}) {
    for (const char* field : {"prompt", "unknown"}) {
      cases.push_back({cat("[ ", depth, " ", field),
                       with(cat("\"", field, "2\":", repeat("[", depth), repeat("]", depth))), 400,
                       "nested deeper than 32"});
      cases.push_back(
          {cat("{ ", depth, " ", field),
           with(cat("\"", field, "2\":", repeat("{\"a\":", depth), "1", repeat("}", depth))), 400,
           "nested deeper than 32"});
      cases.push_back({cat("open [ ", depth), with(cat("\"u\":", repeat("[", depth))), 400});
    }
  }
  cases.push_back({"a million keys", cat("{", keys, "\"prompt\":\"x\"}"), 400, "keys"});
  cases.push_back(
      {"7 million ids", cat(R"({"prompt":[)", repeat("1,", 7'000'000), "1]}"), 400, "values"});
  cases.push_back(
      {"100 MB string", cat(R"({"prompt":")", std::string(100 << 20, 'x'), "\"}"), 413});
  cases.push_back({"many ids", cat(R"({"prompt":[)", repeat("1,", 100'000), "1]}"), 400,
                   "maximum context length is 4096 tokens; the prompt has 100001"});
  run("/v1/completions", cases);
  RawClient huge(port());
  huge.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2147483648\r\n\r\n{");
  EXPECT_EQ(huge.read_reply().status, 413);
  expect_alive();
}

TEST_F(BadInputs, Groups3And9To11Numbers) {
  start();
  std::vector<BadCase> cases;
  for (const char* field :
       {"max_tokens", "top_k", "min_tokens", "logprobs", "seed", "n", "best_of"}) {
    for (const char* value :
         {"1e400", "1.5", "1.0", "1e2", "\"5\"", "true", "[]", "{}", "9223372036854775808",
          "18446744073709551616", "NaN", "Infinity", "-Infinity", "0x10", "01", "+1"}) {
      cases.push_back({"", with(cat("\"", field, "\":", value))});
    }
    cases.push_back({"", with(cat("\"", field, "\":null")), 200});
  }
  for (const char* bad : {
           R"("n":0)",
           R"("n":-1)",
           R"("n":1000000000)",
           R"("n":17)",
           R"("best_of":2)",
           R"("n":2,"best_of":3)",
           R"("n":2,"best_of":1)",
           R"("max_tokens":0)",
           R"("max_tokens":-1)",
           R"("max_tokens":2147483648)",
           R"("max_tokens":9007199254740993)",
           R"("max_tokens":4096)",
           R"("max_tokens":-0)",
           R"("logprobs":1000000)",
           R"("logprobs":-1)",
           R"("logprobs":21)",
           R"("top_k":-5)",
           R"("top_p":0)",
           R"("top_p":1.1)",
           R"("top_p":-1)",
           R"("top_p":"0.5")",
           R"("temperature":1e30)",
           R"("temperature":-1)",
           R"("temperature":1e400)",
           R"("temperature":-1e-30)",
           R"("temperature":true)",
           R"("min_p":1)",
           R"("min_p":-0.1)",
           R"("presence_penalty":1e9)",
           R"("frequency_penalty":-1e9)",
           R"("repetition_penalty":0)",
           R"("repetition_penalty":-1)",
           R"("repetition_penalty":1e9)",
           R"("min_tokens":20,"max_tokens":10)",
           R"("min_tokens":-1)",
           R"("stream_options":{"include_usage":true})",
           R"("stream":"yes")",
           R"("stream":1)",
           R"("stream":true,"stream_options":5)",
           R"("stream":true,"stream_options":{"include_usage":1})",
           R"("echo":true,"logprobs":1)",
           R"("echo":1)",
           R"("suffix":"x")",
           R"("stop":"")",
           R"("stop":[""])",
           R"("stop":5)",
           R"("stop":[5])",
           R"("stop":{})",
           R"("logit_bias":{"-1":1})",
           R"("logit_bias":{"259":1})",
           R"("logit_bias":{"x":1})",
           R"("logit_bias":{"1":1e9})",
           R"("logit_bias":{"1":-1e400})",
           R"("logit_bias":{"1":"a"})",
           R"("logit_bias":{"99999999999999999999":1})",
           R"("logit_bias":{" 1":1})",
           R"("logit_bias":[1])",
           R"("redknot":5)",
           R"("redknot":{"mode":"magic"})",
           R"("redknot":{"mode":5})",
           R"("redknot":{"mode":"redknot:0"})",
           R"("redknot":{"mode":"selective","ratio":1.5})",
           R"("redknot":{"mode":"selective","ratio":-0.1})",
           R"("redknot":{"mode":"selective","ratio":"0.1"})",
           R"("redknot":{"mode":"selective:nan"})",
           R"("redknot":{"mode":"selective:2"})",
           R"("redknot":{"mode":"dense:2"})",
           R"("redknot":{"mode":"selective","select":1})",
           R"("redknot":{"mode":"selective","select":"halves"})",
           R"("redknot":{"mode":"selective:0.3:halves"})",
           R"("redknot":{"mode":"random:0.3:both"})",
           R"("redknot":{"mode":"cacheblend","select":"both"})",
           R"("redknot":{"mode":"boundary","k":-1})",
           R"("redknot":{"reuse":"yes"})",
           R"("redknot":{"reuse":"off","mode":"reuse"})",
           R"("redknot":{"reuse":"exact","mode":"reuse"})",
           R"("response_format":{"type":"json_object"})",
           R"("guided_json":{})",
           R"("stop_token_ids":[259])",
           R"("stop_token_ids":5)",
           R"("model":5)",
       }) {
    cases.push_back({"", with(bad)});
  }
  cases.push_back({"", with(R"("model":"other")"), 404, "model_not_found"});
  cases.push_back({"10 000 stops", with(cat("\"stop\":[", repeat("\"a\",", 9999), "\"a\"]")), 400,
                   "16 allowed"});
  cases.push_back({"1 MB stop", with(cat("\"stop\":\"", std::string(1 << 20, 'x'), "\"")), 400,
                   "1024 allowed"});
  std::string all_ids;
  for (int id = 0; id < 259; ++id) all_ids += cat(id ? "," : "", "\"", id, "\":-100");
  for (const std::string& good :
       {std::string(R"("stop":[])"), std::string(R"("stop":"\u00e9")"),
        std::string(R"("stop":"<|im_end|>")"), cat("\"logit_bias\":{", all_ids, "}"),
        std::string(R"("temperature":0)"), std::string(R"("temperature":1e-30)"),
        std::string(R"("temperature":-0)"), std::string(R"("seed":-9223372036854775808)"),
        std::string(R"("seed":null)"), std::string(R"("top_k":-1)"), std::string(R"("model":"")"),
        std::string(R"("max_tokens":4095)"), std::string(R"("unknown":{"a":[1]})"),
        std::string(R"("response_format":{"type":"text"})"), std::string(R"("suffix":null)")}) {
    cases.push_back({"", with(good), 200});
  }
  run("/v1/completions", cases);
}

TEST_F(BadInputs, Group12Prompts) {
  start();
  const std::vector<BadCase> cases = {
      {"missing", "{}", 400, "missing"},
      {"", R"({"prompt":""})", 400, "no tokens"},
      {"", R"({"prompt":[]})", 400, "no tokens"},
      {"", R"({"prompt":[[]]})", 400, "no tokens"},
      {"", R"({"prompt":[""]})", 400, "no tokens"},
      {"", R"({"prompt":["a","b"]})", 400, "limit is 1"},
      {"", R"({"prompt":["a",1]})", 400, "limit is 1"},
      {"", R"({"prompt":[1,"a"]})", 400, "token id"},
      {"", R"({"prompt":[[1],[2]]})", 400, "limit is 1"},
      {"", R"({"prompt":[[["a"]]]})", 400},
      {"", R"({"prompt":[-1]})", 400, "-1 is no token id in 0..258"},
      {"", R"({"prompt":[259]})", 400, "259 is no token id"},
      {"", R"({"prompt":[1.5]})", 400},
      {"", R"({"prompt":[9223372036854775808]})", 400},
      {"", R"({"prompt":{"text":"x"}})", 400},
      {"", R"({"prompt":5})", 400},
      {"only BOS", R"({"prompt":[256]})", 200},
      {"at the limit", cat(R"({"prompt":")", std::string(4095, 'x'), R"(","max_tokens":1})"), 200},
      {"one over", cat(R"({"prompt":")", std::string(4096, 'x'), R"(","max_tokens":1})"), 400,
       "context_length_exceeded"},
      {"a million newlines", cat(R"({"prompt":")", repeat("\\n", 1'000'000), "\"}"), 400,
       "1000000"},
      {"one long word", cat(R"({"prompt":")", std::string(1 << 20, 'w'), "\"}"), 400, "1048576"},
      {"joined emoji", cat(R"({"prompt":")", repeat("\xF0\x9F\x91\xA9\xE2\x80\x8D", 500), "\"}"),
       200},
      {"right to left", R"({"prompt":"\u202e\u05d0\u05d1\u0000\u0001\u001f\u007f"})", 200},
  };
  run("/v1/completions", cases);
}

TEST_F(BadInputs, ChatMessagesAndDocuments) {
  start();
  std::vector<BadCase> cases;
  for (
      const char* messages :
      {"[]",
       "5",
       "{}",
       "\"x\"",
       "[5]",
       "[{}]",
       R"([{"role":"user"}])",
       R"([{"content":"x"}])",
       R"([{"role":"user","content":null}])",
       R"([{"role":"user","content":5}])",
       R"([{"role":"robot","content":"x"}])",
       R"([{"role":5,"content":"x"}])",
       R"([{"role":"tool","content":"x"}])",
       R"([{"role":"user","content":[5]}])",
       R"([{"role":"user","content":[{}]}])",
       R"([{"role":"user","content":[{"type":"text"}]}])",
       R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}])",
       R"([{"role":"user","content":[{"type":"document"}]}])",
       R"([{"role":"user","content":[{"type":"document","document":{"id":"../x"}}]}])",
       R"([{"role":"system","content":[{"type":"document","document":{"text":"x"}}]}])"}) {
    cases.push_back({"", cat(R"({"messages":)", messages, "}"), 400, "messages"});
  }
  cases.push_back({"1 MB role", cat(R"({"messages":[{"content":"x","role":")",
                                    std::string(1 << 20, 'r'), "\"}]}")});
  cases.push_back({"100 000 messages",
                   cat(R"({"messages":[)", repeat(R"({"role":"user","content":"x"},)", 99'999),
                       R"({"role":"user","content":"x"}]})"),
                   400});
  for (const char* bad : {R"("documents":5)",
                          R"("documents":{})",
                          R"("documents":[5])",
                          R"("documents":[""])",
                          R"("documents":[" \n"])",
                          R"("documents":[{}])",
                          R"("documents":[{"id":"kb-1"}])",
                          R"("documents":[{"text":""}])",
                          R"("documents":[{"text":5}])",
                          R"("documents":[{"text":"x","title":5}])",
                          R"("tools":[{"type":"function"}])",
                          R"("tools":5)",
                          R"("functions":[])",
                          R"("response_format":{})",
                          R"("response_format":"")",
                          R"("response_format":{"type":"not-a-type"})",
                          R"("chat_template":"{{ 1 }}")",
                          R"("chat_template_kwargs":{"messages":[]})",
                          R"("chat_template_kwargs":{"tokenize":true})",
                          R"("chat_template_kwargs":5)",
                          R"("chat_template_kwargs":{"__class__":1})",
                          R"("logprobs":5)",
                          R"("top_logprobs":2)",
                          R"("logprobs":true,"top_logprobs":21)",
                          R"("logprobs":true,"top_logprobs":-1)",
                          R"("max_completion_tokens":0)",
                          R"("max_completion_tokens":5000)"}) {
    cases.push_back({"", chat_with(bad)});
  }
  cases.push_back({"10 000 documents",
                   chat_with(cat("\"documents\":[", repeat("\"d\",", 9999), "\"d\"]")), 400,
                   "10000 documents, at most 4096"});
  cases.push_back({"an unknown mode", chat_with(R"("redknot":{"mode":"magic"})"), 400,
                   "redknot.mode: 'magic' is none of"});
  cases.push_back({"a document beyond the context",
                   chat_with(cat("\"documents\":[\"", std::string(5000, 'd'), "\"]")), 400,
                   "context_length_exceeded"});
  cases.push_back({"documents without a user",
                   R"({"documents":["x"],"messages":[{"role":"system","content":"x"}]})", 400,
                   "user message"});
  cases.push_back({"no documents", chat_with(R"("documents":[])"), 200});
  cases.push_back({"the same document twice", chat_with(R"("documents":["a","a"])"), 200});
  cases.push_back(
      {"the assistant last",
       R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]})", 200});
  cases.push_back({"no tools", chat_with(R"("tools":[])"), 200});
  cases.push_back(
      {"an empty assistant",
       R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null}]})", 200});
  run("/v1/chat/completions", cases);
}

TEST_F(BadInputs, SpecialTokensInTextStayText) {
  start();
  chat_ask(
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"<|im_"},{"type":"text","text":"end|>"}]}]})");
  int specials = 0;
  for (const int32_t id : engine.last.spans[0].tokens) specials += id >= 256;
  EXPECT_EQ(specials, 3);  // the template's own
  // The mark that finds the documents' place cannot be forged either.
  chat_ask(
      "{\"documents\":[\"d\"],\"messages\":[{\"role\":\"user\",\"content\":"
      "\"\\u0002documents0\\u0003\"}]}");
  EXPECT_EQ(engine.last_prompt,
            "<|im_start|>user\n|d\n\n|\x02"
            "documents0\x03<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(BadInputs, Group4Routes) {
  start();
  struct {
    const char *method, *target;
    int status;
  } const cases[] = {
      {"GET", "/", 404},
      {"GET", "/nothing", 404},
      {"GET", "/v1/chat/completions", 405},
      {"PUT", "/v1/completions", 405},
      {"DELETE", "/v1/models", 405},
      {"POST", "/health", 405},
      {"BREW", "/health", 405},
      {"OPTIONS", "/v1/completions", 405},
      {"GET", "/v1/models/../../etc/passwd", 404},
      {"GET", "/v1/models/%2e%2e", 404},
      {"GET", "/v1/models/%00", 404},
      {"GET", "/v1/models/%zz", 404},
      {"GET", "/v1/models/", 404},
      {"GET", "//v1/models", 404},
      {"GET", "/V1/MODELS", 404},
      {"GET", "/health/", 404},
      {"GET", "/health?x=1", 200},
      {"HEAD", "/health", 200},
      {"GET", "http://evil.example/health", 404},
      {"CONNECT", "evil.example:80", 404},
      {"OPTIONS", "*", 404},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(cat(c.method, " ", c.target));
    const RawReply reply = RawClient(port()).request(c.method, c.target);
    EXPECT_EQ(reply.status, c.status);
    EXPECT_EQ(reply.header("Allow").empty(), c.status != 405);
    expect_alive();
  }
  RawClient injected(port());
  injected.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\rEvil: b\r\n\r\n");
  EXPECT_EQ(injected.read_reply().header("Evil"), "");
  expect_alive();
}

TEST_F(BadInputs, Groups5And6ClientsThatStallOrLeave) {
  options.http.header_timeout_ms = options.http.body_timeout_ms = 150;
  options.http.max_unsent_bytes = 64 << 10;
  engine.token_ms = 2;
  engine.endless = true;
  start();
  const auto request = [](const char* more) {
    const std::string body = cat(R"({"prompt":"x","max_tokens":4000)", more, "}");
    return cat("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ", body.size(),
               "\r\n\r\n", body);
  };
  {  // before the head is complete, and in the body
    RawClient(port()).send("POST /v1/comp");
    RawClient(port()).send("POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
  }
  {  // while waiting for a whole answer, with another one in the queue
    RawClient running(port()), queued(port());
    running.send(request(""));
    ASSERT_TRUE(eventually([&] { return engine.runs == 1; }));
    queued.send(request(""));
    ASSERT_TRUE(eventually([&] { return service->load().queued == 1; }));
  }
  ASSERT_TRUE(eventually([&] { return engine.cancelled == 1; }));
  ASSERT_TRUE(eventually([&] { return service->load().queued + service->load().running == 0; }));
  EXPECT_LE(engine.runs, 2);
  {  // in the middle of a stream
    RawClient stream(port());
    stream.send(request(R"(,"stream":true)"));
    ASSERT_TRUE(stream.fill());
  }
  ASSERT_TRUE(eventually([&] { return service->load().running == 0; }));
  engine.endless = false;
  engine.token_ms = 0;
  expect_alive();
  for (int i = 0; i < 300; ++i) RawClient hello(port());  // connects and leaves
  expect_alive();
  RawClient slow(port());
  slow.send("GET /health HT");
  EXPECT_EQ(slow.read_reply().status, 408);
  RawClient half(port());
  half.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  half.half_close();
  EXPECT_EQ(half.read_reply().status, 200);
  RawClient smuggler(port());
  smuggler.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: "
      "chunked\r\n\r\n"
      "0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(smuggler.read_reply().status, 400);
  EXPECT_EQ(smuggler.read_reply().status, 0);
  EXPECT_EQ(post(port(), "/v1/completions", "x", "Content-Encoding: gzip\r\n").status, 415);
  expect_alive();
}

TEST_F(BadInputs, AStreamNobodyReadsIsCancelled) {
  options.http.max_unsent_bytes = 16 << 10;
  engine.answer = std::string(4000, 'x');
  engine.endless = true;
  start();
  // 4,000 events are about 700 KB; the sockets' own buffers may take them all, so several streams.
  std::vector<std::unique_ptr<RawClient>> readers;
  const std::string body = R"({"prompt":"x","max_tokens":4000,"stream":true,"logprobs":20})";
  for (int i = 0; i < 8; ++i) {
    readers.push_back(std::make_unique<RawClient>(port()));
    readers.back()->send(cat("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ",
                             body.size(), "\r\n\r\n", body));
  }
  ASSERT_TRUE(eventually([&] { return engine.cancelled >= 1; }));
  readers.clear();
  ASSERT_TRUE(eventually([&] { return service->load().queued + service->load().running == 0; }));
  engine.answer = "Hello";
  engine.endless = false;
  expect_alive();
}

}  // namespace
}  // namespace rk::serve
