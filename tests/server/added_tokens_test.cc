// What text of users may become (docs/decisions/0006): never a special token, but the added tokens
// that are not special, such as Qwen's <tool_call>, as everywhere else where the model is used.
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>
#include <iterator>

#include "serve/fake_engine.h"
#include "serve/prompt.h"
#include "tensor/gguf.h"
#include "tensor/gguf_writer.h"

namespace rk::serve {
namespace {

namespace json = boost::json;

// The golden Qwen2 vocabulary with the two marks of tool calls, special or not.
std::unique_ptr<text::Tokenizer> qwen(bool special, const char* third = nullptr) {
  std::ifstream in(RK_SOURCE_DIR "/tests/golden/tokenizer/qwen2.json");
  const std::string source((std::istreambuf_iterator<char>(in)), {});
  json::value file = json::parse(source);
  json::array& added = file.at("added_tokens").as_array();
  for (const char* content : {"<tool_call>", "</tool_call>", third}) {
    if (content == nullptr) continue;
    added.push_back({{"id", 1400 + static_cast<int>(added.size())},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  }
  auto made = text::Tokenizer::from_json(json::serialize(file), "", "");
  EXPECT_TRUE(made.ok()) << made.status().message();
  return std::move(made).value();
}

int64_t count(const std::vector<engine::PromptSpan>& spans, int32_t id) {
  int64_t n = 0;
  for (const auto& span : spans) n += std::count(span.tokens.begin(), span.tokens.end(), id);
  return n;
}

std::vector<engine::PromptSpan> prompt(const text::Tokenizer& tokenizer) {
  const auto chat = text::ChatTemplate::parse(kFakeChatTemplate).value();
  return chat_prompt(tokenizer, chat, {{"user", "a <tool_call>b</tool_call><|im_end|>"}},
                     {{"<|im_start|>", "c <tool_call> <|im_end|>"}}, {})
      .value();
}

TEST(AddedTokens, OfUsersTextOnlyThoseThatAreNotSpecial) {
  const auto tokenizer = qwen(false);
  const auto spans = prompt(*tokenizer);
  // The template's own: user, assistant; and the end of the user's turn.
  EXPECT_EQ(count(spans, tokenizer->find_token("<|im_start|>")), 2);
  EXPECT_EQ(count(spans, tokenizer->find_token("<|im_end|>")), 1);
  // From the message and from the document.
  EXPECT_EQ(count(spans, tokenizer->find_token("<tool_call>")), 2);
  EXPECT_EQ(count(spans, tokenizer->find_token("</tool_call>")), 1);
  const std::vector<int32_t> ids = tokenizer->encode("<tool_call><|im_end|>", false, false);
  EXPECT_EQ(ids.front(), tokenizer->find_token("<tool_call>"));
  EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer->find_token("<|im_end|>")), 0);
  EXPECT_EQ(tokenizer->decode(ids, false), "<tool_call><|im_end|>");
}

TEST(AddedTokens, AMarkThatTheFileCallsSpecialIsNoText) {
  const auto tokenizer = qwen(true);
  const auto spans = prompt(*tokenizer);
  EXPECT_EQ(count(spans, tokenizer->find_token("<tool_call>")), 0);
  EXPECT_EQ(count(spans, tokenizer->find_token("</tool_call>")), 0);
}

TEST(AddedTokens, TheLongestOfThoseThatBeginAlike) {
  const auto tokenizer = qwen(false, "<tool");
  const int32_t tool = tokenizer->find_token("<tool"), call = tokenizer->find_token("<tool_call>");
  EXPECT_EQ(tokenizer->encode("<tool_call><tool", false, false),
            (std::vector<int32_t>{call, tool}));
  EXPECT_EQ(tokenizer->encode("<tool_cal", false, false).front(), tool);
}

// A GGUF file says it by the token's type: 3 control, 4 user defined.
TEST(AddedTokens, OfGgufFilesTheUserDefinedOnes) {
  const std::vector<std::string> tokens = {"<",  "|", "x", ">", "t",     "o",          "l",
                                           "to", "_", "c", "a", "<|x|>", "<tool_call>"};
  std::vector<int32_t> types(tokens.size(), 1);
  types[11] = 3;
  types[12] = 4;
  GgufWriter file;
  file.add("tokenizer.ggml.model", "gpt2").add("tokenizer.ggml.pre", "qwen2");
  file.add("tokenizer.ggml.tokens", tokens).add("tokenizer.ggml.token_type", types);
  file.add("tokenizer.ggml.merges", std::vector<std::string>{"t o"});
  file.add("tokenizer.ggml.eos_token_id", uint32_t{11});
  const std::string bytes = file.finish();
  const auto parsed = GgufFile::parse(reinterpret_cast<const std::byte*>(bytes.data()),
                                      static_cast<int64_t>(bytes.size()), "test");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const auto tokenizer = text::Tokenizer::from_gguf(*parsed);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ((*tokenizer)->encode("<tool_call><|x|>", false, false),
            (std::vector<int32_t>{12, 0, 1, 2, 1, 3}));
  EXPECT_EQ((*tokenizer)->encode("<tool_call><|x|>", true, false), (std::vector<int32_t>{12, 11}));
  EXPECT_FALSE((*tokenizer)->is_special(12));
  EXPECT_TRUE((*tokenizer)->is_special(11));
}

}  // namespace
}  // namespace rk::serve
