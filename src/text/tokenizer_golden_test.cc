// Our ids against those of Hugging Face `tokenizers`: tools/make_tokenizer_golden.py wrote both
// files.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "text/stream_decoder.h"
#include "text/tokenizer.h"

namespace rk::text {
namespace {

namespace json = boost::json;

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

constexpr const char* kFolder = RK_SOURCE_DIR "/tests/golden/tokenizer/";

struct Golden {
  std::string text, decoded;
  std::vector<int32_t> ids;
};

std::vector<Golden> read_goldens(const std::string& path) {
  std::vector<Golden> goldens;
  std::istringstream lines(read(path));
  for (std::string line; std::getline(lines, line);) {
    const json::object row = json::parse(line).as_object();
    Golden golden;
    golden.text = std::string(row.at("t").as_string());
    for (const json::value& id : row.at("i").as_array()) {
      golden.ids.push_back(static_cast<int32_t>(id.as_int64()));
    }
    golden.decoded = row.contains("d") ? std::string(row.at("d").as_string()) : golden.text;
    goldens.push_back(std::move(golden));
  }
  return goldens;
}

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string base = std::string(kFolder) + GetParam();
    auto loaded = Tokenizer::from_json(read(base + ".json"), "", "");
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    tokenizer_ = std::move(loaded).value();
    goldens_ = read_goldens(base + ".golden.jsonl");
    ASSERT_GE(goldens_.size(), 400u);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<Golden> goldens_;
};

TEST_P(TokenizerGolden, EncodesAsTokenizersDoes) {
  for (const Golden& golden : goldens_) {
    EXPECT_EQ(tokenizer_->encode(golden.text, true, true), golden.ids) << golden.text;
  }
}

TEST_P(TokenizerGolden, DecodesAsTokenizersDoes) {
  for (const Golden& golden : goldens_) {
    EXPECT_EQ(tokenizer_->decode(golden.ids, true), golden.decoded) << golden.text;
  }
}

TEST_P(TokenizerGolden, PiecesOfATrustedTextAreTheText) {
  for (const Golden& golden : goldens_) {
    std::vector<TextPiece> pieces;
    for (size_t pos = 0; pos < golden.text.size();) {
      size_t end = std::min(pos + 5, golden.text.size());
      while (end < golden.text.size() && (golden.text[end] & 0xC0) == 0x80) ++end;
      pieces.push_back({golden.text.substr(pos, end - pos), true});
      pos = end;
    }
    EXPECT_EQ(tokenizer_->encode(pieces, true), golden.ids) << golden.text;
  }
}

TEST_P(TokenizerGolden, UntrustedTextHoldsNoSpecialToken) {
  for (const Golden& golden : goldens_) {
    const auto ids = tokenizer_->encode(golden.text, false, false);
    for (const int32_t id : ids) {
      // The unknown token is a special one of SentencePiece's that no byte-level vocabulary has.
      EXPECT_TRUE(!tokenizer_->is_special(id) || tokenizer_->token_bytes(id) == "<unk>")
          << golden.text;
    }
  }
}

TEST_P(TokenizerGolden, StreamsTheTextWithoutHalfCharacters) {
  for (const Golden& golden : goldens_) {
    StreamDecoder decoder(*tokenizer_, true);
    std::string text;
    for (const int32_t id : golden.ids) {
      const std::string part = decoder.push(id);
      // What is out is valid: no part begins inside a character.
      EXPECT_TRUE(part.empty() || (part[0] & 0xC0) != 0x80);
      text += part;
    }
    text += decoder.finish();
    EXPECT_EQ(text, golden.decoded);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGolden,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2", "regex", "llama2",
                                         "mistral"),
                         [](const auto& info) { return std::string(info.param); });

// For real vocabularies, which are not committed: put NAME.gguf, and the generator's output for it
// as NAME.json and NAME.golden.jsonl, into tests/golden/tokenizer/local.
TEST(TokenizerLocalGolden, ModelFilesEncodeAndDecodeAsTokenizersDoes) {
  const std::filesystem::path folder = std::string(kFolder) + "local";
  std::error_code ec;
  int num_models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ec)) {
    if (entry.path().extension() != ".gguf") continue;
    ++num_models;
    const std::string base = (folder / entry.path().stem()).string();
    const auto from_file = Tokenizer::load(entry.path().string());
    const auto from_json = Tokenizer::from_json(read(base + ".json"), "", "");
    ASSERT_TRUE(from_file.ok()) << from_file.status().message();
    ASSERT_TRUE(from_json.ok()) << from_json.status().message();
    for (const Golden& golden : read_goldens(base + ".golden.jsonl")) {
      ASSERT_EQ((*from_file)->encode(golden.text, true, true), golden.ids) << golden.text;
      ASSERT_EQ((*from_json)->encode(golden.text, true, true), golden.ids) << golden.text;
      ASSERT_EQ((*from_file)->decode(golden.ids, true), golden.decoded) << golden.text;
    }
  }
  if (num_models == 0) GTEST_SKIP() << "no model files in " << folder;
}

}  // namespace
}  // namespace rk::text
