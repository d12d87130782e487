#include "serve/prompt.h"

#include <gtest/gtest.h>

#include "serve/fake_engine.h"

namespace rk::serve {
namespace {

const std::vector<text::ChatMessage> kQuestion = {{"user", "why?"}};

std::vector<engine::PromptSpan> spans(const text::Tokenizer& tokenizer, const std::string& source,
                                      const std::vector<Document>& documents) {
  const auto chat = text::ChatTemplate::parse(source);
  EXPECT_TRUE(chat.ok()) << chat.status().message();
  auto out = chat_prompt(tokenizer, *chat, kQuestion, documents, chat_options(tokenizer, 0));
  EXPECT_TRUE(out.ok()) << out.status().message();
  return std::move(out).value();
}

int64_t count_bos(const std::vector<engine::PromptSpan>& all) {
  int64_t n = 0;
  for (const auto& span : all) n += std::count(span.tokens.begin(), span.tokens.end(), 256);
  return n;
}

TEST(Prompt, BosStandsOnceWhoeverWritesIt) {
  const FakeTokenizer adds(true), plain(false);
  const std::string with_bos = std::string("{{ bos_token }}") + kFakeChatTemplate;
  for (const auto& documents : {std::vector<Document>{}, std::vector<Document>{{"", "d"}}}) {
    EXPECT_EQ(count_bos(spans(adds, with_bos, documents)), 1);
    EXPECT_EQ(count_bos(spans(adds, kFakeChatTemplate, documents)), 1);
    EXPECT_EQ(count_bos(spans(plain, with_bos, documents)), 1);
    EXPECT_EQ(count_bos(spans(plain, kFakeChatTemplate, documents)), 0);
    EXPECT_EQ(count_bos(plain_prompt(adds, "<s>why", documents).value()), 1);  // text is no BOS
  }
}

TEST(Prompt, DocumentsAreSegmentsWithTheSameIdsEverywhere) {
  const FakeTokenizer tokenizer;
  const Document a{"A", "alpha"}, b{"", "beta"};
  const auto one = spans(tokenizer, kFakeChatTemplate, {a, b});
  const auto two = spans(tokenizer, kFakeChatTemplate, {b, a});
  ASSERT_EQ(one.size(), 4U);
  EXPECT_EQ(one[1].tokens, two[2].tokens);
  EXPECT_EQ(one[2].tokens, two[1].tokens);
  EXPECT_EQ(one[0].tokens, two[0].tokens);
  EXPECT_EQ(one[3].tokens, two[3].tokens);
  EXPECT_TRUE(one[1].segment && one[2].segment);
  EXPECT_EQ(tokenizer.decode(one[1].tokens, false), "Document: A\nalpha\n\n");
  EXPECT_EQ(tokenizer.decode(one[2].tokens, false), "beta\n\n");
}

TEST(Prompt, ATemplateThatTrimsStillShowsThePlace) {
  const FakeTokenizer tokenizer;
  const auto all =
      spans(tokenizer, "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", {{"", "d"}});
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(tokenizer.decode(all[0].tokens, false), "[");
  EXPECT_EQ(tokenizer.decode(all[2].tokens, false), "why?]");
}

TEST(Prompt, WhatCannotBePlacedIsRefused) {
  const FakeTokenizer tokenizer;
  const auto ask = [&](const char* source, const std::vector<text::ChatMessage>& messages,
                       const Document& document) {
    const auto chat = text::ChatTemplate::parse(source);
    return chat_prompt(tokenizer, *chat, messages, {document}, chat_options(tokenizer, 0)).code();
  };
  const Document good{"", "d"};
  EXPECT_EQ(ask("nothing", kQuestion, good), Code::kInvalidArgument);
  EXPECT_EQ(ask("{{ messages[0].content }}{{ messages[0].content }}", kQuestion, good),
            Code::kInvalidArgument);
  EXPECT_EQ(ask(kFakeChatTemplate, {{"system", "s"}}, good), Code::kInvalidArgument);
  EXPECT_EQ(ask(kFakeChatTemplate, kQuestion, {"title", " \n"}), Code::kInvalidArgument);
  EXPECT_EQ(plain_prompt(tokenizer, "q", {{"", ""}}).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::serve
