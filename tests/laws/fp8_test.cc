// Checkpoints in fp8 as Hugging Face folders have them: a folder written here, beside the same
// values in bf16. On the CPU they are expanded, so the logits are the same bits.
#include "tensor/fp8.h"

#include <gmock/gmock.h>

#include <cstring>

#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;
using testing::HasSubstr;

constexpr int64_t kWide = 256, kKv = 128, kInner = 384;  // whole blocks and half ones

enum class Scales { kBlocks, kBlocksBf16, kTensor, kRows, kNone };

struct Tensor {
  std::string name, dtype, bytes;
  std::vector<int64_t> shape;
};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
std::string bf16_bytes(const std::vector<float>& values) {
  std::vector<uint16_t> out;
  for (const float v : values) out.push_back(f32_to_bf16(v));
  return bytes_of(out);
}

// One matrix as codes and scales, or as the bf16 values that those stand for.
void add_matrix(std::vector<Tensor>& out, const std::string& name, int64_t n, int64_t k,
                Scales scales, bool expanded) {
  std::mt19937 random(static_cast<uint32_t>(std::hash<std::string>{}(name)));
  std::normal_distribution<float> normal(0, 60);
  std::vector<uint8_t> codes(static_cast<size_t>(n * k));
  for (uint8_t& c : codes) c = f32_to_e4m3(normal(random));
  const bool blocks = scales == Scales::kBlocks || scales == Scales::kBlocksBf16;
  const int64_t rows = blocks ? (n + 127) / 128 : scales == Scales::kRows ? n : 1;
  const int64_t columns = blocks ? (k + 127) / 128 : 1;
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (float& v : values) {  // bf16 holds them
    v = static_cast<float>(1 + random() % 4) / (64 * std::sqrt(static_cast<float>(kWide)) * 4);
  }
  const std::vector<int64_t> shape =
      scales == Scales::kTensor ? std::vector<int64_t>{} : std::vector<int64_t>{rows, columns};
  const View scale_view(values.data(), DType::kF32, {rows, columns});
  const auto w =
      make_fp8_matrix(View(codes.data(), DType::kE4m3, {n, k}), scale_view, blocks, name);
  EXPECT_TRUE(w.ok()) << w.status().message();
  if (expanded) {
    std::vector<float> all(codes.size());
    dequantize_fp8(*w, 0, n, all.data());
    out.push_back({name, "BF16", bf16_bytes(all), {n, k}});
    return;
  }
  out.push_back({name, "F8_E4M3", bytes_of(codes), {n, k}});
  if (scales == Scales::kNone) return;
  const bool bf16 = scales == Scales::kBlocksBf16;
  out.push_back({name + (blocks ? "_scale_inv" : "_scale"), bf16 ? "BF16" : "F32",
                 bf16 ? bf16_bytes(values) : bytes_of(values), shape});
}

std::vector<Tensor> tensors_of(Scales scales, bool expanded) {
  std::vector<Tensor> out;
  std::mt19937 random(11);
  const auto plain = [&](const std::string& name, std::vector<int64_t> shape, float scale,
                         float mean) {
    std::normal_distribution<float> normal(mean, scale);
    std::vector<float> values(static_cast<size_t>(shape[0] * (shape.size() > 1 ? shape[1] : 1)));
    for (float& v : values) v = normal(random);
    out.push_back({name, "BF16", bf16_bytes(values), std::move(shape)});
  };
  plain("model.embed_tokens.weight", {kVocab, kWide}, 1, 0);
  plain("model.norm.weight", {kWide}, 0.1F, 1);
  plain("lm_head.weight", {kVocab, kWide}, 0.06F, 0);
  for (int l = 0; l < 2; ++l) {
    const std::string layer = cat("model.layers.", l, ".");
    plain(layer + "input_layernorm.weight", {kWide}, 0.1F, 1);
    plain(layer + "post_attention_layernorm.weight", {kWide}, 0.1F, 1);
    const auto matrix = [&](const char* name, int64_t n, int64_t k) {
      add_matrix(out, layer + name + ".weight", n, k, scales, expanded);
    };
    matrix("self_attn.q_proj", kWide, kWide);
    matrix("self_attn.k_proj", kKv, kWide);
    matrix("self_attn.v_proj", kKv, kWide);
    matrix("self_attn.o_proj", kWide, kWide);
    matrix("mlp.gate_proj", kInner, kWide);
    matrix("mlp.up_proj", kInner, kWide);
    matrix("mlp.down_proj", kWide, kInner);
  }
  return out;
}

class Folder {
 public:
  Folder(const std::vector<Tensor>& tensors, const std::string& quantisation) {
    path_ = std::filesystem::temp_directory_path() / cat("rk_fp8_", getpid());
    std::filesystem::create_directories(path_);
    std::string header = "{", data;
    for (const Tensor& t : tensors) {
      std::string shape;
      for (const int64_t d : t.shape) shape += cat(shape.empty() ? "" : ",", d);
      data.resize((data.size() + 7) / 8 * 8);
      header += cat(header.size() > 1 ? "," : "", "\"", t.name, "\":{\"dtype\":\"", t.dtype,
                    "\",\"shape\":[", shape, "],\"data_offsets\":[", data.size(), ",",
                    data.size() + t.bytes.size(), "]}");
      data += t.bytes;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const uint64_t size = header.size();
    std::ofstream(path_ / "model.safetensors", std::ios::binary)
        << std::string(reinterpret_cast<const char*>(&size), sizeof(size)) << header << data;
    std::ofstream(path_ / "config.json")
        << R"({"model_type":"llama","num_hidden_layers":2,"hidden_size":256,"head_dim":64,)"
        << R"("num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":384,)"
        << R"("vocab_size":)" << kVocab << R"(,"max_position_embeddings":512)" << quantisation
        << "}";
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Result<std::unique_ptr<Engine>> load(int max_step_rows = 16) const {
    Engine::Options options;
    options.model = path_.string();
    options.threads = 1;
    options.max_step_rows = max_step_rows;
    options.kv_dtype = DType::kF32;
    options.device = test_device();
    return Engine::create(options);
  }

  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

constexpr char kBlockConfig[] =
    R"(,"quantization_config":{"quant_method":"fp8","fmt":"e4m3","activation_scheme":"dynamic",)"
    R"("weight_block_size":[128,128]})";
constexpr char kFp8Config[] = R"(,"quantization_config":{"quant_method":"fp8"})";

class Fp8Checkpoint : public testing::TestWithParam<Scales> {};

TEST_P(Fp8Checkpoint, GivesTheLogitsOfItsValues) {
  const bool blocks = GetParam() == Scales::kBlocks || GetParam() == Scales::kBlocksBf16;
  const Request r = request(Mode::kDense, {fresh(9, 1), fresh(60, 4)});
  for (const int step_rows : {3, 80}) {
    std::vector<float> want, got;
    for (const bool expanded : {true, false}) {
      const Folder folder(tensors_of(GetParam(), expanded), expanded ? ""
                                                            : blocks ? kBlockConfig
                                                                     : kFp8Config);
      auto engine = folder.load(step_rows);
      ASSERT_TRUE(engine.ok()) << engine.status().message();
      (expanded ? want : got) = logits(**engine, r, 40);
    }
    ASSERT_EQ(want.size(), size_t{40} * kVocab);
    if (!test_device().is_cuda()) {
      EXPECT_EQ(want, got);
    } else {  // few rows stay bf16 (GemmCuda::Options), many are rounded to e4m3
      EXPECT_LT(distance(want, got), step_rows == 3 ? same_within() : 0.2) << step_rows;
    }
    EXPECT_GT(distance(want, std::vector<float>(want.size(), 0.0F)), 0.5) << "tells nothing";
  }
}

std::string name_of(const testing::TestParamInfo<Scales>& info) {
  constexpr const char* kNames[] = {"blocks", "bf16_blocks", "tensor", "rows"};
  return kNames[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(All, Fp8Checkpoint,
                         testing::Values(Scales::kBlocks, Scales::kBlocksBf16, Scales::kTensor,
                                         Scales::kRows),
                         name_of);

void expect_refused(const std::vector<Tensor>& tensors, const std::string& config,
                    std::initializer_list<const char*> texts) {
  const Folder folder(tensors, config);
  const auto engine = folder.load();
  ASSERT_FALSE(engine.ok()) << "accepted; wanted: " << *texts.begin();
  for (const char* text : texts) EXPECT_THAT(engine.status().message(), HasSubstr(text));
}

// A card that has no products for codes keeps the matrices in bf16.
TEST(Fp8Files, TheMemoryPlanKnowsWhatTheCardMultiplies) {
  const Folder folder(tensors_of(Scales::kBlocks, false), kBlockConfig);
  const auto files = model::WeightFiles::open(folder.path());
  const auto config = model::read_config(folder.path());
  ASSERT_TRUE(files.ok() && config.ok());
  const model::CardMemory codes = model::card_memory(&*files, *config, {}, true),
                          expanded = model::card_memory(&*files, *config, {}, false);
  const int64_t elements = 2 * (kWide * kWide * 2 + kWide * kKv * 2 + kWide * kInner * 3);
  EXPECT_EQ(expanded.weight_bytes - codes.weight_bytes, elements);
}

TEST(Fp8Files, WhatDoesNotFitIsNamed) {
  const std::string k_proj = "model.layers.1.self_attn.k_proj.weight";
  const auto changed = [&](Scales scales, const std::string& name, const auto& change) {
    auto tensors = tensors_of(scales, false);
    for (Tensor& t : tensors) {
      if (t.name == name) change(t);
    }
    return tensors;
  };
  expect_refused(tensors_of(Scales::kNone, false), kFp8Config,
                 {"q_proj.weight is F8_E4M3 without its scales", "_scale_inv", "_scale is there"});
  expect_refused(changed(Scales::kBlocks, k_proj + "_scale_inv",
                         [](Tensor& t) {
                           t.shape = {2, 1};
                         }),
                 kBlockConfig, {"k_proj.weight_scale_inv", "f32 [2, 1]", "[128, 256]", "[1, 2]"});
  expect_refused(changed(Scales::kBlocks, k_proj + "_scale_inv",
                         [](Tensor& t) {
                           const float bad = NAN;
                           std::memcpy(t.bytes.data() + 4, &bad, 4);
                         }),
                 kBlockConfig, {"k_proj.weight_scale_inv", "scale 1 is nan"});
  expect_refused(changed(Scales::kTensor, k_proj + "_scale", [](Tensor& t) { t.dtype = "I32"; }),
                 kFp8Config, {"k_proj.weight_scale is stored as I32", "F32"});
  expect_refused(changed(Scales::kTensor, k_proj, [](Tensor& t) { t.dtype = "F8_E5M2"; }),
                 kFp8Config, {"k_proj.weight is stored as F8_E5M2", "F8_E4M3"});
  const auto good = tensors_of(Scales::kBlocks, false);
  expect_refused(good,
                 R"(,"quantization_config":{"quant_method":"fp8","weight_block_size":[64,64]})",
                 {"weight_block_size [64,64]", "[128,128]"});
  expect_refused(good, R"(,"quantization_config":{"quant_method":"fp8","fmt":"e5m2"})",
                 {"fmt 'e5m2'"});
  expect_refused(good, R"(,"quantization_config":{"quant_method":"gptq","bits":4})",
                 {"quant_method 'gptq'", "fp8"});
  expect_refused(good, R"(,"quantization_config":[])", {"quantization_config is not an object"});
}

}  // namespace
}  // namespace rk::engine
