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
        const std::string got =
            result.ok() ? "rendered: " + joined(*result) : result.status().message();
        EXPECT_THAT(got, HasSubstr(text_of(*error))) << source;
        continue;
      }
      const std::string got = result.ok() ? joined(*result) : result.status().message();
      EXPECT_EQ(got, text_of(item.at("expected"))) << source;
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

// Templates that want more than they should have: each an error, soon.
TEST(ChatTemplateBounds, HostileTemplates) {
  const std::string deep_list = std::string(100'000, '[') + std::string(100'000, ']');
  std::string filters = "{{ 'x'", nested_ifs, nested_fors, sum = "{{ 1", indices = "{{ a",
              nots = "{{ ";
  std::string elifs = "{% if false %}", dots = "{{ a";
  for (int i = 0; i < 100'000; ++i) {
    filters += "|upper";
    nested_ifs += "{% if true %}";
    nested_fors += "{% for a in [1] %}";
    sum += "+1";
    indices += "[0]";
    nots += "not ";
    dots += ".a";
  }
  const std::vector<std::string> sources = {
      "{{ " + deep_list + " }}",
      "{{ " + std::string(100'000, '(') + std::string(100'000, ')') + " }}",
      "{{ " + std::string(100'000, '{') + "}}",
      "{{ " + std::string(100'000, '-') + "1 }}",
      filters + " }}",
      sum + " }}",
      indices + " }}",
      dots + " }}",
      nots + "1 }}",
      nested_ifs,
      nested_fors,
      "{% for i in range(1000000000) %}{% endfor %}",
      "{% for i in range(-9223372036854775807, 9223372036854775807) %}{% endfor %}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{{ x(x) }}{% endmacro %}{{ m(m) }}",
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "{% macro m(n) %}{{ m(n + 1) ~ m(n + 1) }}{% endmacro %}{{ m(0) }}",
      "{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}",
      "{{ 'x' * 10000000000 }}",
      "{{ 'x' * 9223372036854775807 }}",
      "{{ 'xx' * 9223372036854775807 }}",
      "{{ [1] * 9223372036854775807 }}",
      "{{ 'x' * 60000000 * 2 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ 9223372036854775807 * 2 }}",
      "{{ 2 ** 10000000000 }}",
      "{{ 99999999999999999999 }}",
      "{{ 1e999 }}",
      "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s "
      "%}{% endfor %}",
      "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s.replace('x', "
      "'xxxx') %}{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}",
      "{% set ns = namespace(s=[]) %}{% for i in range(1000) %}{% set ns.s = [ns.s] %}{% endfor %}",
      "{% set ns = namespace(s=[]) %}{% for i in range(1000) %}{% set ns.s = {'a': ns.s} %}{% "
      "endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s, ns.s] %}{% "
      "endfor %}{{ ns.s }}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s, ns.s] %}{% "
      "endfor %}{{ ns.s|tojson }}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s, ns.s] %}{% "
      "endfor %}{{ ns.s == ns.s + [] }}",
      "{% set ns = namespace() %}{% set ns.x = ns %}",
      "{% set ns = namespace() %}{% set ns.x = [ns] %}",
      "{% set ns = namespace() %}{% macro m() %}{% endmacro %}{% set ns.x = m %}",
      "{% set ns = namespace() %}{% for i in [1] %}{% set ns.x = loop %}{% endfor %}{{ ns.x.index "
      "}}",
      "{{ ''.__class__.__mro__ }}",
      "{{ ''['__class__'] }}",
      "{{ messages.__init__.__globals__ }}",
      "{{ range.__self__ }}",
      "{{ [''.__class__] }}",
      "{{ namespace()['__dict__'] }}",
      "{{ ''|attr('__class__') }}",
      "{{ [['']]|map(attribute='__class__')|list }}",
      "{{ [1]|map('map', 'map')|list }}",
      "{% include '/etc/passwd' %}",
      "{% import 'os' as os %}",
      "{{ self }}{{ self.x }}",
      "{{ lipsum.__globals__ }}",
      "{{ cycler.__init__ }}",
      "{{ 'x'|indent(1000000000) }}",
      "{{ [1]|tojson(indent=1000000000) }}",
      "{{ strftime_now('%Y' * 100000) }}",
      "{{ 1.5|round(1000000) }}",
      "{{",
      "{%",
      "{#",
      "{{ '",
      "{% raw %}",
      "{{ 'a' \\",
      "{% set %}",
      "{% for %}",
      "{% macro %}",
      "{{ | }}",
      "{{ a| }}",
      "{{ . }}",
      "{{ a[ }}",
      "{{ a[:::] }}",
      "{{ {1} }}",
      "{{ [1 2] }}",
      "{{ '\\x' }}",
      "{{ '\\ud800' }}",
      "{{ '\\N{DASH}' }}",
  };
  for (const std::string& source : sources) {
    const auto start = std::chrono::steady_clock::now();
    const auto result = render(source, {{"user", "hi"}});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    EXPECT_FALSE(result.ok()) << source.substr(0, 200);
    EXPECT_LT(took.count(), 30.0) << source.substr(0, 200);  // generous for sanitizers
  }
}

TEST(ChatTemplateBounds, LongConversationsFit) {
  std::vector<ChatMessage> messages(100'000, {"user", "some words"});
  const auto many = render(kChatMl, messages);
  ASSERT_TRUE(many.ok()) << many.status().message();
  EXPECT_EQ(many->size(), 200'001U);
  const auto large = render(kChatMl, {{"user", std::string(50'000'000, 'x')}});
  ASSERT_TRUE(large.ok()) << large.status().message();
  EXPECT_EQ(large->at(1).text.size(), 50'000'000U);
}

TEST(ChatTemplateFind, FolderAndConfig) {
  const fs::path dir = fs::path(::testing::TempDir()) / "chat_template_find";
  fs::remove_all(dir);
  fs::create_directories(dir);
  const auto write = [&](const char* name, const char* text) { std::ofstream(dir / name) << text; };
  EXPECT_EQ(*find_chat_template(dir.string()), "");
  write("tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(*find_chat_template(dir.string()), "one");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"},
                                                       {"name": "default", "template": "two"}]})");
  EXPECT_EQ(*find_chat_template(dir.string()), "two");
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_EQ(find_chat_template(dir.string()).code(), Code::kInvalidArgument);
  write("tokenizer_config.json", "{");
  EXPECT_EQ(find_chat_template(dir.string()).code(), Code::kInvalidArgument);
  write("chat_template.jinja", "three");
  EXPECT_EQ(*find_chat_template(dir.string()), "three");
  EXPECT_EQ(find_chat_template((dir / "missing").string()).code(), Code::kNotFound);
  fs::remove_all(dir);
}

}  // namespace
}  // namespace rk::text
