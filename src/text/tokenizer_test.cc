#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/gguf.h"
#include "text/bpe_tokenizer.h"
#include "text/stream_decoder.h"
#include "text/unicode.h"

namespace rk::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A byte-level tokenizer.json over a to d with "ab" and "bc", and two special tokens.
std::string small_json(std::string_view vocab_extra = "", std::string_view merges_extra = "",
                       std::string_view extra = "") {
  return cat(
      R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"d":3,"ab":4,"bc":5,"<":6,"|":7,)",
      R"(">":8,"x":9,"Ġ":10)", vocab_extra, R"(},"merges":["a b","b c")", merges_extra,
      R"(]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)",
      R"("decoder":{"type":"ByteLevel"},"added_tokens":[)",
      R"({"id":20,"content":"<|x|>","special":true,"normalized":false},)",
      R"({"id":21,"content":"<x>","special":false,"normalized":false}])", extra, "}");
}

std::unique_ptr<Tokenizer> make(const std::string& text) {
  auto result = Tokenizer::from_json(text, R"({"eos_token":{"content":"<|x|>"}})", "");
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? std::move(result).value() : nullptr;
}

Status status_of(const std::string& text) { return Tokenizer::from_json(text, "", "").status(); }

TEST(Tokenizer, SpecialTokensNeedTrustInEveryByte) {
  const auto t = make(small_json());
  EXPECT_THAT(t->encode("a<|x|>b", true, false), ElementsAre(0, 20, 1));
  EXPECT_THAT(t->encode("a<|x|>b", false, false), ElementsAre(0, 6, 7, 9, 7, 8, 1));
  const std::vector<TextPiece> joined = {{"a<|", true}, {"x|>b", true}};
  EXPECT_THAT(t->encode(joined, false), ElementsAre(0, 20, 1));
  for (const int untrusted : {0, 1, 2}) {
    std::vector<TextPiece> pieces = {{"<|", true}, {"x", true}, {"|>", true}};
    pieces[static_cast<size_t>(untrusted)].trusted = false;
    EXPECT_THAT(t->encode(pieces, false), ElementsAre(6, 7, 9, 7, 8)) << untrusted;
  }
  EXPECT_THAT(t->encode("<x>", false, false), ElementsAre(21)) << "not a special one";
}

TEST(Tokenizer, MergesCrossPieces) {
  const auto t = make(small_json());
  const std::vector<TextPiece> pieces = {{"a", true}, {"b", false}};
  EXPECT_THAT(t->encode(pieces, false), ElementsAre(4));
}

TEST(Tokenizer, RepairsInvalidUtf8AsPythonDoes) {
  std::string out;
  std::string text = "a\xFFz\xE4\xBDq\xF0\x9F";
  const auto t = make(small_json());
  EXPECT_THAT(t->encode("a\xFF"
                        "b",
                        false, false),
              ElementsAre(0, 1))
      << "no token for U+FFFD";
  append_repaired(out, text);
  EXPECT_EQ(out, "a\uFFFDz\uFFFDq\uFFFD");
}

TEST(Tokenizer, KnowsItsTokens) {
  const auto t = make(small_json());
  EXPECT_EQ(t->vocab_size(), 22);
  EXPECT_EQ(t->find_token("<|x|>"), 20);
  EXPECT_EQ(t->find_token("ab"), 4);
  EXPECT_EQ(t->find_token(" "), 10);
  EXPECT_EQ(t->find_token("nothing"), -1);
  EXPECT_EQ(t->token_bytes(10), " ");
  EXPECT_EQ(t->token_bytes(15), "") << "a gap in the ids";
  EXPECT_EQ(t->token_bytes(-1), "");
  EXPECT_EQ(t->token_bytes(1 << 30), "");
  EXPECT_THAT(t->eos(), ElementsAre(20));
  EXPECT_NE(t->fingerprint(), make(small_json(R"(,"cd":11)", R"(,"c d")"))->fingerprint());
  EXPECT_EQ(t->fingerprint(), make(small_json())->fingerprint());
}

TEST(Tokenizer, VeryLongWordsTakeLogarithmicTime) {
  const auto t = make(small_json());
  const std::vector<int32_t> ids = t->encode(std::string(1 << 20, 'a') + "b", false, false);
  EXPECT_EQ(ids.size(), size_t{1} << 20);
  EXPECT_EQ(ids.back(), 4);
}

TEST(Tokenizer, LongAndShortWordsMergeAlike) {
  const auto t = make(small_json());
  for (size_t n = 1; n < 60; ++n) {
    std::string text;
    std::vector<int32_t> ids;
    for (size_t i = 0; i < n; ++i) text += "abc", ids.insert(ids.end(), {4, 2});
    EXPECT_EQ(t->encode(text, false, false), ids) << n;
  }
}

TEST(Tokenizer, BadFilesAreNamed) {
  const auto expect = [](const std::string& json, const char* part) {
    const Status status = status_of(json);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << part;
    EXPECT_THAT(status.message(), HasSubstr(part));
  };
  expect("", "not JSON");
  expect("[1]", "tokenizer.json: not an object");
  expect("{}", "model: not an object");
  expect(std::string(3000, '['), "not JSON");
  expect(small_json(R"(,"e":5)"), R"(id 5 of "e" belongs to "bc")");
  expect(small_json(R"(,"e":-1)"), "id -1, limit 0..");
  expect(small_json(R"(,"e":4000000)"), "id 4000000, limit 0..");
  expect(small_json(R"(,"e":"7")"), "not an integer");
  expect(small_json(R"(,"<0x-1>":20)"), R"(belongs to "<0x-1>")");
  expect(small_json("", R"(,"b q")"), R"(model.merges[2]: "q" is not in model.vocab)");
  expect(small_json("", R"(,"bc a")"), R"("bca" is not in model.vocab)");
  expect(small_json("", R"(,"ab")"), "is not two tokens");
  expect(small_json("", R"(,["a"])"), "1 tokens, not 2");
  expect(small_json("", R"(,5)"), "not a string");
  expect(small_json("", "",
                    R"(,"normalizer":{"type":"Replace","pattern":{"Regex":"("},"content":""})"),
         "regex: offset");
  expect(small_json("", "", R"(,"normalizer":5)"), "normalizer: not an object");
  expect(
      small_json("", "",
                 R"(,"post_processor":{"type":"RobertaProcessing","cls":["c",99],"sep":["s",1]})"),
      "id 99 is no token");
}

TEST(Tokenizer, SequencesThatBlowTextUpAreBounded) {
  std::string many, doubling;
  for (int i = 0; i < 65; ++i) many += cat(i ? "," : "", R"({"type":"Digits"})");
  for (int i = 0; i < 60; ++i) {
    doubling += cat(i ? "," : "", R"({"type":"Replace","pattern":{"String":"a"},"content":"aa"})");
  }
  const std::string json = small_json(
      "", "", cat(R"(,"normalizer":{"type":"Sequence","normalizers":[)", doubling, "]}"));
  EXPECT_LT(make(json)->encode("a", false, false).size(), 200000u);
  const Status status =
      status_of(cat(R"({"model":{},"decoder":{"type":"Fuse"},"pre_tokenizer":{"type":"Sequence",)",
                    R"("pretokenizers":[)", many, "]}}"));
  EXPECT_THAT(status.message(), HasSubstr("pretokenizers[64]: more than 64 steps"));
}

TEST(PreTokenizer, ScannersCutWhereTheirPatternsMatch) {
  const uint8_t* classes = char_classes();
  EXPECT_EQ(scan_cl100k("'\u017Fy", 0, 3, classes), 3u) << "the long s is an s without case";
  EXPECT_EQ(scan_cl100k("'SX", 0, 3, classes), 2u);
  EXPECT_EQ(scan_gpt2("'SX", 0, classes), 1u);
  EXPECT_EQ(scan_cl100k("12345", 0, 3, classes), 3u);
  EXPECT_EQ(scan_cl100k("12345", 0, 1, classes), 1u);
  EXPECT_EQ(scan_cl100k("  \n x", 0, 3, classes), 3u);
  EXPECT_EQ(scan_gpt2("  \n x", 0, classes), 3u);
  EXPECT_EQ(scan_gpt2("   x", 0, classes), 2u);
}

TEST(Tokenizer, RegexBombsEnd) {
  const auto t = make(cat(
      R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"Split",)",
      R"("pattern":{"Regex":"(a+)+$|(a|aa)+b"},"behavior":"Isolated"},"decoder":{"type":"Fuse"}})"));
  EXPECT_EQ(t->encode(std::string(4000, 'a') + "!", false, false).size(), 4000u);
}

TEST(StreamDecoder, HoldsUnfinishedCharacters) {
  // In GPT-2's disguise E2 82 AC, the euro sign, is three characters.
  const auto t = make(small_json(R"(,"â":11,"Ĥ":12,"¬":13)"));
  StreamDecoder d(*t, true);
  EXPECT_EQ(d.push(0), "a");
  EXPECT_EQ(d.push(11), "");
  EXPECT_EQ(d.push(12), "");
  EXPECT_EQ(d.push(20), "") << "special";
  EXPECT_EQ(d.push(13), "\u20AC");
  EXPECT_EQ(d.push(11), "");
  EXPECT_EQ(d.push(1),
            "\uFFFD"
            "b");
  EXPECT_EQ(d.push(11), "");
  EXPECT_EQ(d.finish(), "\uFFFD");
}

/// Writes the little of GGUF that a vocabulary needs.
class GgufWriter {
 public:
  template <class T>
  void raw(T value) {
    const char* p = reinterpret_cast<const char*>(&value);
    body_.append(p, sizeof value);
  }
  void text(std::string_view s) { raw<uint64_t>(s.size()), body_.append(s); }
  void key(std::string_view name, uint32_t kind) { ++count_, text(name), raw<uint32_t>(kind); }
  void string(std::string_view name, std::string_view s) { key(name, 8), text(s); }
  void strings(std::string_view name, const std::vector<std::string>& list) {
    key(name, 9), raw<uint32_t>(8), raw<uint64_t>(list.size());
    for (const auto& s : list) text(s);
  }
  template <class T>
  void numbers(std::string_view name, uint32_t kind, const std::vector<T>& list) {
    key(name, 9), raw<uint32_t>(kind), raw<uint64_t>(list.size());
    for (const T v : list) raw(v);
  }
  Result<std::unique_ptr<Tokenizer>> load() {
    std::string head = "GGUF";
    std::swap(head, body_);
    raw<uint32_t>(3), raw<uint64_t>(0), raw<uint64_t>(count_);
    body_ += head;
    body_.resize((body_.size() + 31) / 32 * 32);
    RK_TRY(const GgufFile file, GgufFile::parse(reinterpret_cast<const std::byte*>(body_.data()),
                                                static_cast<int64_t>(body_.size()), "test"));
    return Tokenizer::from_gguf(file);
  }

 private:
  std::string body_;
  uint64_t count_ = 0;
};

Result<std::unique_ptr<Tokenizer>> sentencepiece(const std::string& byte_token, size_t num_scores) {
  GgufWriter w;
  w.string("tokenizer.ggml.model", "llama");
  w.strings("tokenizer.ggml.tokens",
            {"<unk>", "<s>", "</s>", byte_token, "\u2581", "a", "b", "c", "ab", "bc", "\u2581a"});
  std::vector<float> scores = {0, 0, 0, 0, -9, -9, -9, -9, -2, -1, -3};
  scores.resize(num_scores);
  w.numbers<float>("tokenizer.ggml.scores", 6, scores);
  w.numbers<int32_t>("tokenizer.ggml.token_type", 5, {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1});
  return w.load();
}

TEST(TokenizerGguf, SentencePieceMergesByScore) {
  const auto loaded = sentencepiece("<0x0A>", 11);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const Tokenizer& t = **loaded;
  EXPECT_THAT(t.encode("abc", false, true), ElementsAre(1, 10, 9));
  EXPECT_THAT(t.encode("ab ab", false, false), ElementsAre(4, 8, 4, 8));
  EXPECT_THAT(t.encode("a\nqq", false, false), ElementsAre(10, 3, 0)) << "unknown ones fuse";
  EXPECT_THAT(t.encode("<s>a", true, false), ElementsAre(1, 10));
  EXPECT_EQ(t.decode(std::vector<int32_t>{1, 10, 9, 4, 8}, true), "abc ab");
  EXPECT_TRUE(t.strips_leading_space());
  EXPECT_THAT(t.eos(), ElementsAre(2));
}

TEST(TokenizerGguf, BadVocabulariesAreNamed) {
  EXPECT_THAT(sentencepiece("<0x-1>", 11).status().message(), HasSubstr("tokens[3] is marked"));
  EXPECT_THAT(sentencepiece("<0x0A>", 9).status().message(), HasSubstr("9 entries"));
  GgufWriter w;
  w.string("tokenizer.ggml.model", "gpt2");
  w.string("tokenizer.ggml.pre", "smollm");
  w.strings("tokenizer.ggml.tokens", {"a", "b"});
  w.strings("tokenizer.ggml.merges", {"a b"});
  EXPECT_THAT(w.load().status().message(), HasSubstr("merges[0] names tokens outside"));
}

}  // namespace
}  // namespace rk::text
