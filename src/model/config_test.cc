#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tensor/gguf_writer.h"

namespace rk::model {
namespace {

using testing::HasSubstr;

// spec part C, 11.2
TEST(Rope, Llama3MatchesTheWorkedExample) {
  RopeConfig rope;
  rope.base = 5e5;
  rope.rotary_dim = 16;
  const double unscaled[] = {1,         .193923,    .037606,   .00729266,
                             .00141421, 2.74248e-4, 5.3183e-5, 1.03134e-5};
  const auto plain = rope_inv_freq(rope);
  ASSERT_EQ(plain.size(), 8U);
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(plain[i] / unscaled[i], 1, 3e-6);
  rope.kind = RopeConfig::Kind::kLlama3;
  rope.factor = 8;
  rope.original_context = 8192;
  const double ratio[] = {1, 1, 1, 1, 0.371122, .125, .125, .125};
  const auto scaled = rope_inv_freq(rope);
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(scaled[i] / plain[i], ratio[i], 1e-6) << i;
  EXPECT_EQ(rope_magnitude(rope), 1);
}

TEST(Rope, YarnMatchesTheWorkedExample) {
  RopeConfig rope;
  rope.base = 1e6;
  rope.rotary_dim = 16;
  const auto plain = rope_inv_freq(rope);
  rope.kind = RopeConfig::Kind::kYarn;
  rope.factor = 4;
  rope.original_context = 32768;
  const double ratio[] = {1, 1, 1, .75, .5, .25, .25, .25};
  const auto scaled = rope_inv_freq(rope);
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(scaled[i] / plain[i], ratio[i], 1e-9) << i;
  EXPECT_NEAR(rope_magnitude(rope), 1.138629, 1e-6);
  rope.attention_factor = 1.5;
  EXPECT_EQ(rope_magnitude(rope), 1.5);
}

TEST(Rope, LinearPartialAndDivisors) {
  RopeConfig rope;
  rope.rotary_dim = 4;
  rope.kind = RopeConfig::Kind::kLinear;
  rope.factor = 2;
  EXPECT_NEAR(rope_inv_freq(rope)[1], 0.01 / 2, 1e-15);
  rope.kind = RopeConfig::Kind::kDefault;
  rope.divisors = {1, 8};
  EXPECT_NEAR(rope_inv_freq(rope)[1], 0.01 / 8, 1e-15);
}

/// A good llama config with `change` in front ("" for none); the first of two equal keys is void,
/// so the base leaves out what `without` names.
std::string config(const std::string& change = "", const std::string& without = "",
                   const std::string& family = "llama") {
  const std::pair<const char*, const char*> fields[] = {
      {"hidden_size", "64"},        {"intermediate_size", "128"},       {"num_hidden_layers", "2"},
      {"num_attention_heads", "8"}, {"num_key_value_heads", "2"},       {"vocab_size", "100"},
      {"rms_norm_eps", "1e-5"},     {"max_position_embeddings", "2048"}};
  std::string out = "{\"model_type\":\"" + family + "\"";
  for (const auto& [name, value] : fields) {
    if (without != name) out += cat(",\"", name, "\":", value);
  }
  return out + (change.empty() ? "" : "," + change) + "}";
}
Result<ModelConfig> parse(const std::string& text) { return config_from_json(text, "config.json"); }

TEST(ConfigJson, ReadsALlama) {
  const auto c = parse(config());
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_EQ(c->head_dim, 8);
  EXPECT_EQ(c->rope.rotary_dim, 8);
  EXPECT_EQ(c->rope.base, 10000);
  EXPECT_EQ(c->rope.pairs, kernels::RopePairs::kHalfSplit);
  EXPECT_EQ(c->sliding_window, 0);
  EXPECT_FALSE(c->qkv_bias || c->o_bias || c->tied_embeddings);
}

TEST(ConfigJson, BothSpellingsOfRope) {
  const auto old =
      parse(config(R"("rope_theta":5e5,"rope_scaling":{"rope_type":"llama3","factor":8,)"
                   R"("low_freq_factor":1,"high_freq_factor":4,)"
                   R"("original_max_position_embeddings":1024})"));
  const auto now = parse(config(R"("rope_parameters":{"rope_theta":5e5,"rope_type":"llama3",)"
                                R"("factor":8,"low_freq_factor":1,"high_freq_factor":4,)"
                                R"("original_max_position_embeddings":1024})"));
  ASSERT_TRUE(old.ok()) << old.status().message();
  ASSERT_TRUE(now.ok()) << now.status().message();
  EXPECT_EQ(old->rope.kind, RopeConfig::Kind::kLlama3);
  EXPECT_EQ(old->rope.original_context, 1024);
  EXPECT_EQ(rope_inv_freq(old->rope), rope_inv_freq(now->rope));
  const auto partial = parse(config(R"("partial_rotary_factor":0.5)"));
  EXPECT_EQ(partial->rope.rotary_dim, 4);
  const auto nested = parse(config(R"("rope_parameters":{"partial_rotary_factor":0.5})"));
  ASSERT_TRUE(nested.ok()) << nested.status().message();
  EXPECT_EQ(nested->rope.rotary_dim, 4);
}

TEST(ConfigJson, FamiliesDiffer) {
  EXPECT_EQ(parse(config(R"("sliding_window":512)", "", "mistral"))->sliding_window, 512);
  EXPECT_EQ(parse(config(R"("sliding_window":null)", "", "mistral"))->sliding_window, 0);
  const auto qwen =
      parse(config(R"("sliding_window":512,"use_sliding_window":false)", "", "qwen2"));
  ASSERT_TRUE(qwen.ok()) << qwen.status().message();
  EXPECT_EQ(qwen->sliding_window, 0);
  EXPECT_TRUE(qwen->qkv_bias);
  EXPECT_EQ(parse(config(R"("head_dim":32)", "", "qwen3"))->head_dim, 32);
  EXPECT_TRUE(parse(config(R"("attention_bias":true)"))->o_bias);
}

TEST(ConfigJson, RefusesNonsenseByName) {
  const struct {
    const char* field;
    const char* value;
    const char* text;
  } cases[] = {{"hidden_size", "0", "hidden size is 0"},
               {"hidden_size", "-64", "hidden size is -64"},
               {"hidden_size", "\"64\"", "hidden_size is not a number"},
               {"hidden_size", "1e300", "hidden_size"},
               {"num_hidden_layers", "1000000000", "layers is 1000000000"},
               {"num_hidden_layers", "1.5", "num_hidden_layers is not an integer"},
               {"num_key_value_heads", "3", "8 attention heads are not a multiple of 3"},
               {"num_key_value_heads", "0", "KV heads is 0"},
               {"num_attention_heads", "-8", "heads"},
               {"num_attention_heads", "7", "7"},
               {"vocab_size", "-1", "vocabulary size is -1"},
               {"rms_norm_eps", "-1", "RMSNorm epsilon is -1"},
               {"max_position_embeddings", "0", "context length is 0"},
               {"rope_theta", "-1", "RoPE base is -1"},
               {"rope_theta", "0", "RoPE base is 0"},
               {"head_dim", "7", "rotary dimension 7"},
               {"partial_rotary_factor", "-1", "partial_rotary_factor is -1"},
               {"mlp_bias", "true", "mlp_bias"},
               {"hidden_act", "\"gelu\"", "gelu"},
               {"rope_scaling", R"({"type":"dynamic","factor":2})", "dynamic"},
               {"rope_scaling", R"({"rope_type":"longrope"})", "longrope"},
               {"rope_scaling", R"({"rope_type":"linear","factor":0})", "RoPE factor is 0"},
               {"rope_scaling", R"({"rope_type":"linear","factor":-2})", "RoPE factor is -2"},
               {"rope_scaling", R"({"rope_type":"yarn","factor":4,"beta_fast":-1})", "beta_fast"},
               {"rope_scaling", R"({"rope_type":"yarn","factor":4,"beta_slow":0})", "beta_slow"},
               {"rope_scaling", R"({"rope_type":"llama3","low_freq_factor":0})", "low_freq_factor"},
               {"rope_scaling", "7", "rope_scaling is not an object"}};
  for (const auto& c : cases) {
    const auto got = parse(config(cat("\"", c.field, "\":", c.value), c.field));
    ASSERT_FALSE(got.ok()) << c.field << " = " << c.value << " was accepted";
    EXPECT_THAT(got.status().message(), HasSubstr(c.text)) << c.field;
  }
  EXPECT_EQ(parse("").code(), Code::kInvalidArgument);
  EXPECT_EQ(parse("[]").code(), Code::kInvalidArgument);
  EXPECT_FALSE(parse(std::string(100000, '[')).ok());
  EXPECT_EQ(parse(config("", "", "gemma")).code(), Code::kUnimplemented);
  EXPECT_EQ(parse(config(R"("rope_scaling":{"type":"dynamic","factor":2})")).code(),
            Code::kUnimplemented);
}

GgufWriter gguf(const std::string& arch) {
  GgufWriter w;
  w.add("general.architecture", arch).add(arch + ".block_count", 2U);
  w.add(arch + ".embedding_length", 16U).add(arch + ".feed_forward_length", 32U);
  w.add(arch + ".attention.head_count_kv", 2U).add(arch + ".context_length", 64U);
  w.add(arch + ".attention.layer_norm_rms_epsilon", 1e-5F);
  return w;
}
Result<ModelConfig> read(GgufWriter& w) {
  w.tensor("token_embd.weight", {3, 16}, std::vector<float>(48));
  const std::string bytes = w.finish();
  const auto file = GgufFile::parse(reinterpret_cast<const std::byte*>(bytes.data()),
                                    static_cast<int64_t>(bytes.size()), "x.gguf");
  if (!file.ok()) return file.status();
  return config_from_gguf(*file);
}

TEST(ConfigGguf, ReadsWhatTheFileSays) {
  GgufWriter w = gguf("llama");
  w.add("llama.attention.head_count", 4U).add("llama.rope.freq_base", 5e5F);
  w.tensor("rope_freqs.weight", {2}, {1, 8});
  const auto c = read(w);
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_EQ(c->rope.pairs, kernels::RopePairs::kInterleaved);
  EXPECT_EQ(c->head_dim, 4);
  EXPECT_EQ(c->vocab_size, 3);
  EXPECT_TRUE(c->tied_embeddings);
  EXPECT_NEAR(rope_inv_freq(c->rope)[1], std::pow(5e5, -0.5) / 8, 1e-12);
  GgufWriter q = gguf("qwen3");
  q.add("qwen3.attention.head_count", 4U).add("qwen3.attention.key_length", 8U);
  const auto d = read(q);
  ASSERT_TRUE(d.ok()) << d.status().message();
  EXPECT_EQ(d->rope.pairs, kernels::RopePairs::kHalfSplit);
  EXPECT_EQ(d->head_dim, 8);
}

TEST(ConfigGguf, RefusesNonsense) {
  GgufWriter zero = gguf("llama");
  zero.add("llama.attention.head_count", 0U);
  EXPECT_EQ(read(zero).code(), Code::kInvalidArgument);
  GgufWriter odd = gguf("llama");
  odd.add("llama.attention.head_count", 3U);
  EXPECT_EQ(read(odd).code(), Code::kInvalidArgument);
  GgufWriter nan = gguf("llama");
  nan.add("llama.attention.head_count", 4U).add("llama.rope.freq_base", std::nanf(""));
  EXPECT_THAT(read(nan).status().message(), HasSubstr("RoPE base"));
  GgufWriter shape = gguf("llama");
  shape.add("llama.attention.head_count", 4U).tensor("rope_freqs.weight", {3}, {1, 1, 1});
  EXPECT_THAT(read(shape).status().message(), HasSubstr("rope_freqs.weight"));
  GgufWriter other = gguf("falcon");
  EXPECT_EQ(read(other).code(), Code::kUnimplemented);
  GgufWriter missing = gguf("llama");
  EXPECT_EQ(read(missing).code(), Code::kNotFound);
}

}  // namespace
}  // namespace rk::model
