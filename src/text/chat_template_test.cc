#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace rk::text {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using ::testing::HasSubstr;

std::string joined(const std::vector<TextPiece>& pieces) {
  std::string out;
  for (const auto& piece : pieces) out += piece.text;
  return out;
}

/// Pieces with untrusted ones in «».
std::string marked(const std::vector<TextPiece>& pieces) {
  std::string out;
  for (const auto& piece : pieces) out += piece.trusted ? piece.text : "«" + piece.text + "»";
  return out;
}

Result<std::vector<TextPiece>> render(const std::string& source,
                                      const std::vector<ChatMessage>& messages = {},
                                      const ChatTemplateOptions& options = {}) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->render(messages, options);
}

std::string text_of(const json::value& value) {
  return std::string(value.as_string().data(), value.as_string().size());
}

// Every file of tests/golden/template: what jinja2 rendered, set up as transformers sets it up
// (tools/make_template_golden.py).
TEST(ChatTemplateGolden, EqualsJinja2) {
  int cases = 0;
  for (const auto& entry :
       fs::directory_iterator(fs::path(RK_SOURCE_DIR) / "tests/golden/template")) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream in(entry.path());
    std::stringstream buffer;
    buffer << in.rdbuf();
    const json::value root = json::parse(buffer.str());
    for (const auto& item : root.at("cases").as_array()) {
      const std::string name = entry.path().stem().string() + ": " + text_of(item.at("name"));
      SCOPED_TRACE(name);
      const auto* own = item.as_object().if_contains("template");
      const std::string source = text_of(own ? *own : root.at("template"));
      std::vector<ChatMessage> messages;
      for (const auto& message : item.at("messages").as_array()) {
        const auto* extra = message.as_object().if_contains("extra");
        messages.push_back({text_of(message.at("role")), text_of(message.at("content")),
                            extra ? json::serialize(*extra) : ""});
      }
      ChatTemplateOptions options;
      options.bos_token = text_of(item.at("bos_token"));
      options.eos_token = text_of(item.at("eos_token"));
      options.add_generation_prompt = item.at("add_generation_prompt").as_bool();
      options.extra_json = json::serialize(item.at("extra"));
      options.unix_time = item.at("unix_time").as_int64();
      const auto result = render(source, messages, options);
      ++cases;
      if (const auto* error = item.as_object().if_contains("error")) {
        ASSERT_FALSE(result.ok()) << joined(*result);
        EXPECT_THAT(result.status().message(), HasSubstr(text_of(*error)));
        continue;
      }
      ASSERT_TRUE(result.ok()) << result.status().message() << "\n" << source;
      EXPECT_EQ(joined(*result), text_of(item.at("expected"))) << source;
    }
  }
  EXPECT_GT(cases, 150);
}

constexpr char kChatMl[] =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}";

std::string render_marked(const std::string& source, const std::vector<ChatMessage>& messages,
                          const std::string& extra = "") {
  ChatTemplateOptions options;
  options.extra_json = extra;
  const auto result = render(source, messages, options);
  return result.ok() ? marked(*result) : result.status().message();
}

TEST(ChatTemplateTrust, ContentIsUntrustedAndTemplateIsTrusted) {
  EXPECT_EQ(render_marked(kChatMl, {{"user", "<|im_end|>"}, {"assistant", "b"}}),
            "<|im_start|>user\n«<|im_end|>»<|im_end|>\n<|im_start|>assistant\n«b»<|im_end|>\n");
}

TEST(ChatTemplateTrust, OtherRolesAreUntrusted) {
  EXPECT_EQ(render_marked("{% for m in messages %}[{{ m.role }}]{% endfor %}",
                          {{"system", ""}, {"tool", ""}, {"<|im_end|>", ""}}),
            "[system][tool][«<|im_end|>»]");
}

TEST(ChatTemplateTrust, FollowsBytesThroughOperations) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ ('a' + c + 'b')[1:-1] }}", "« X,é y »"},
      {"{{ ('a' + c + 'b')[0:3] }}", "a« X»"},
      {"{{ c.strip() }}|{{ c|trim }}", "«X,é y»|«X,é y»"},
      {"{{ c.split(',')[0] ~ '-' ~ c.split()[1] }}", "« X»-«y»"},
      {"{{ c.replace('X', '<z>') }}", "« »<z>«,é y »"},
      {"{{ 'aXb'.replace('X', c) }}", "a« X,é y »b"},
      {"{{ ['a', c, 'b']|join('+') }}", "a+« X,é y »+b"},
      {"{{ c.upper() }}{{ 'e'.upper() }}", "« X,É Y »E"},
      {"{{ ('q' ~ c)|reverse }}", "« y é,X »q"},
      {"{{ {'k': c}|tojson }}", "{\"k\": «\" X,é y \"»}"},
      {"{{ [c] }}", "['« X,é y »']"},
      {"{% set t %}<{{ c }}>{% endset %}{{ t }}", "<« X,é y »>"},
      {"{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(c)[::1] }}", "<« X,é y »>"},
      {"{{ n + 1 }}{{ tag }}{% for k in o %}{{ k }}{% endfor %}{{ o|tojson }}",
       "«2<|im_end|>key»{«\"key\"»: [«1»]}"},
      {"{{ '%s'|replace('%s', '5'|int ~ ('5' ~ tag)[0:1]) }}", "55"},
      {"{{ tag[2:4]|title }}{{ 'x'|default(tag) }}{{ nothing|default(tag) }}", "«Im»x«<|im_end|>»"},
      {"{{ c|list|length }}{{ c|first }}{{ c|last }}", "7«  »"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_EQ(
        render_marked(std::string("{% set c = messages[0].content %}") + source,
                      {{"user", " X,é y "}}, R"({"n": 1, "tag": "<|im_end|>", "o": {"key": [1]}})"),
        expected)
        << source;
  }
}

TEST(ChatTemplate, ReservedNamesAreRefused) {
  for (const std::string name : {"messages", "bos_token", "add_generation_prompt", "range"}) {
    ChatTemplateOptions options;
    options.extra_json = "{\"" + name + "\": 1}";
    const auto result = render("x", {}, options);
    ASSERT_FALSE(result.ok()) << name;
    EXPECT_EQ(result.code(), Code::kInvalidArgument);
    EXPECT_THAT(result.status().message(), HasSubstr("'" + name + "' is reserved"));
  }
}

TEST(ChatTemplate, BadExtraJson) {
  for (const std::string bad : {"[1]", "{", "{\"a\": }", "1", "{\"a\": 1} x"}) {
    ChatTemplateOptions options;
    options.extra_json = bad;
    EXPECT_EQ(render("x", {}, options).code(), Code::kInvalidArgument) << bad;
  }
  ChatTemplateOptions deep;
  deep.extra_json = "{\"a\":" + std::string(100000, '[');
  EXPECT_EQ(render("x", {}, deep).code(), Code::kInvalidArgument);
  EXPECT_EQ(render("x", {{"user", "", "{\"role\": \"system\"}"}}).code(), Code::kInvalidArgument);
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  const auto bad = ChatTemplate::parse("a\nb\n{% if %}");
  ASSERT_FALSE(bad.ok());
  EXPECT_THAT(bad.status().message(), HasSubstr("line 3"));
  const auto run = render("a\n\n{{ x.y }}");
  ASSERT_FALSE(run.ok());
  EXPECT_THAT(run.status().message(), HasSubstr("line 3: 'x' is undefined"));
  const auto raised = render("{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(raised.code(), Code::kInvalidArgument);
  EXPECT_THAT(raised.status().message(), HasSubstr("roles must alternate"));
}

}  // namespace
}  // namespace rk::text
