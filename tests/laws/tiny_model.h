// A random three-layer model as a GGUF file, and a listener that remembers, for tests only: small
// enough that a whole engine loads in milliseconds, with every shape apart from every other.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tensor/gguf_writer.h"
#include "tests_device.h"

namespace rk::engine::tiny {

constexpr int kLayers = 3, kHidden = 64, kHeads = 4, kKvHeads = 2, kHeadDim = 64, kFfn = 96;
constexpr int kVocab = 300, kContext = 512;

/// The file's bytes. `arch`: llama, or qwen2 (biases, half-split RoPE pairs, tied head). `change`
/// may write other values into a tensor.
using ChangeTensor = std::function<void(const std::string& name, std::vector<float>& values)>;
inline std::string gguf(const std::string& arch, const ChangeTensor& change = {}) {
  std::mt19937 random(20240607);
  const auto values = [&](uint64_t n, float scale, float mean) {
    std::normal_distribution<float> normal(mean, scale);
    std::vector<float> out(n);
    for (float& v : out) v = normal(random);
    return out;
  };
  GgufWriter file;
  const auto key = [&](const char* name) { return arch + "." + name; };
  file.add("general.architecture", arch);
  file.add(key("block_count"), uint32_t{kLayers}).add(key("embedding_length"), uint32_t{kHidden});
  file.add(key("feed_forward_length"), uint32_t{kFfn});
  file.add(key("attention.head_count"), uint32_t{kHeads});
  file.add(key("attention.head_count_kv"), uint32_t{kKvHeads});
  file.add(key("attention.key_length"), uint32_t{kHeadDim});
  file.add(key("attention.value_length"), uint32_t{kHeadDim});
  file.add(key("context_length"), uint32_t{kContext});
  file.add(key("attention.layer_norm_rms_epsilon"), 1e-5F);
  file.add(key("rope.freq_base"), 10000.0F);
  const auto matrix = [&](const std::string& name, uint64_t rows, uint64_t columns, float gain) {
    auto weights = values(rows * columns, gain / std::sqrt(static_cast<float>(columns)), 0);
    if (change) change(name, weights);
    file.tensor(name, {rows, columns}, weights);
  };
  const auto vector = [&](const std::string& name, uint64_t size, float scale, float mean) {
    auto weights = values(size, scale, mean);
    if (change) change(name, weights);
    file.tensor(name, {size}, weights);
  };
  matrix("token_embd.weight", kVocab, kHidden, 8);
  vector("output_norm.weight", kHidden, 0.1F, 1);
  if (arch == "llama") matrix("output.weight", kVocab, kHidden, 1);
  for (int l = 0; l < kLayers; ++l) {
    const std::string blk = "blk." + std::to_string(l) + ".";
    vector(blk + "attn_norm.weight", kHidden, 0.1F, 1);
    vector(blk + "ffn_norm.weight", kHidden, 0.1F, 1);
    matrix(blk + "attn_q.weight", kHeads * kHeadDim, kHidden, 1.5F);
    matrix(blk + "attn_k.weight", kKvHeads * kHeadDim, kHidden, 1.5F);
    matrix(blk + "attn_v.weight", kKvHeads * kHeadDim, kHidden, 1);
    if (arch == "qwen2") {
      vector(blk + "attn_q.bias", kHeads * kHeadDim, 0.5F, 0);
      vector(blk + "attn_k.bias", kKvHeads * kHeadDim, 0.5F, 0);
      vector(blk + "attn_v.bias", kKvHeads * kHeadDim, 0.5F, 0);
    }
    matrix(blk + "attn_output.weight", kHidden, kHeads * kHeadDim, 1);
    matrix(blk + "ffn_gate.weight", kFfn, kHidden, 1);
    matrix(blk + "ffn_up.weight", kFfn, kHidden, 1);
    matrix(blk + "ffn_down.weight", kHidden, kFfn, 1);
  }
  return file.finish();
}

/// Writes the model once per process and answers its path.
inline std::string path(const std::string& arch, const ChangeTensor& change = {}) {
  const auto file = std::filesystem::temp_directory_path() /
                    ("rk_tiny_" + arch + "_" + std::to_string(getpid()) + ".gguf");
  std::ofstream(file, std::ios::binary) << gguf(arch, change);
  return file.string();
}

/// Loads it; the file is gone again afterwards.
inline std::unique_ptr<Engine> load_on(const Device& device, const std::string& arch,
                                       Engine::Options options = {},
                                       const ChangeTensor& change = {}) {
  options.model = path(arch, change);
  options.threads = 1;
  if (options.max_step_rows == 0) options.max_step_rows = 16;
  options.kv_dtype = DType::kF32;
  options.device = device;
  auto engine = Engine::create(options);
  std::filesystem::remove(options.model);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(engine).value() : nullptr;
}

/// On the device under test.
inline std::unique_ptr<Engine> load(const std::string& arch, const Engine::Options& options = {}) {
  return load_on(test_device(), arch, options);
}

/// `n` ids, the same for the same seed.
inline std::vector<int32_t> ids(int n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int32_t& id : out) id = static_cast<int32_t>(random() % kVocab);
  return out;
}

inline PromptSpan fresh(int n, uint32_t seed) { return {ids(n, seed), false}; }
inline PromptSpan document(int n, uint32_t seed) { return {ids(n, seed), true}; }

/// Greedy.
inline Request request(Mode mode, std::vector<PromptSpan> spans, int max_tokens = 8) {
  Request r;
  r.mode = mode;
  r.spans = std::move(spans);
  r.max_tokens = max_tokens;
  r.sampling.temperature = 0;
  return r;
}

/// What a request answered. `stop_after`: cancels at that many tokens; `stop_prefill`: at the
/// given question of the engine whether to go on.
struct Answer : Listener {
  std::vector<int32_t> tokens;
  Outcome outcome;
  int num_done = 0;
  size_t stop_after = SIZE_MAX;
  int stop_prefill = -1;
  mutable int asked = 0;
  bool on_token(const TokenEvent& event) override {
    tokens.push_back(event.token);
    return tokens.size() < stop_after;
  }
  void on_done(const Outcome& o) override {
    outcome = o;
    ++num_done;
  }
  bool cancelled() const override { return asked++ == stop_prefill; }
};

inline void expect_counts(const RequestStats& s) {
  EXPECT_EQ(s.prefix_cached + s.document_cached + s.recomputed + s.fresh, s.prompt_tokens);
  for (const int64_t n : {s.prefix_cached, s.document_cached, s.recomputed, s.fresh, s.relocated}) {
    EXPECT_GE(n, 0);
  }
  EXPECT_LE(s.relocated, s.document_cached);
}

inline Answer run(Engine& engine, const Request& request) {
  Answer answer;
  engine.run(request, 0, answer);
  EXPECT_EQ(answer.num_done, 1);
  EXPECT_TRUE(answer.outcome.status.ok()) << answer.outcome.status.message();
  expect_counts(answer.outcome.stats);
  return answer;
}

inline std::vector<float> logits(Engine& engine, const Request& request, int64_t rows = 1,
                                 RequestStats* stats = nullptr) {
  std::vector<float> out;
  RequestStats own;
  const Status status = engine.evaluate(request, rows, out, &own);
  EXPECT_TRUE(status.ok()) << status.message();
  expect_counts(own);
  if (stats) *stats = own;
  return out;
}

/// Largest difference over the largest value; infinite where sizes differ or nothing was given.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return INFINITY;
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return INFINITY;
    difference = std::max(difference, std::abs(double{a[i]} - double{b[i]}));
    largest = std::max(largest, std::abs(double{a[i]}));
  }
  return difference / largest;
}

/// A plan in which every head but the first of each layer is local.
inline std::string local_plan(int window, int sink) {
  std::vector<kv::HeadPolicy> heads;
  for (int i = 0; i < kLayers * kKvHeads; ++i) {
    if (i % kKvHeads == 0) {
      heads.push_back({});
    } else {
      heads.push_back({kv::HeadClass::kLocal, window, sink});
    }
  }
  return kv::HeadPlan::from_policies(kLayers, kKvHeads, heads).value().to_json();
}

/// Lead, three documents with fresh text among them, a question; nothing aligned to pages or steps.
inline std::vector<PromptSpan> three_documents() {
  return {fresh(21, 1),    document(37, 2), fresh(5, 3),
          document(50, 4), document(33, 5), fresh(11, 6)};
}
/// Lead, three documents, a question.
inline std::vector<PromptSpan> three(uint32_t question) {
  return {fresh(21, 1), document(37, 2), document(50, 4), document(33, 5), fresh(11, question)};
}

inline std::vector<std::string> fits(const RequestStats& stats) {
  std::vector<std::string> out;
  for (const DocumentUse& use : stats.documents) out.emplace_back(use.fit_name());
  return out;
}

/// Steps of idle work until nothing is left, fewer than `most`.
inline int finish_idle_work(Engine& engine, int most = 1000) {
  int steps = 0;
  while (engine.idle_work()) {
    if (++steps < most) continue;
    ADD_FAILURE() << "idle work does not end in " << most << " steps";
    break;
  }
  return steps;
}

/// Figures that allow everything, for prompts of up to 400 tokens and three documents.
inline CardEntry measured_entry(Mode mode) {
  CardEntry e;
  e.mode = mode;
  e.max_tokens = 400;
  e.max_documents = 3;
  e.n = 300;
  e.dense_score = e.mode_score = 0.5;
  e.retained_low = e.retained_high = 1;
  e.needle_n = 300;
  e.needle_loss_high = 0.01;
  e.ttft_ratio = 0.2;
  return e;
}
inline Card card_for(const CardIdentity& identity, const CardEntry& entry) {
  Card card;
  card.weights = identity.weights;
  card.plan = identity.plan;
  card.kv_dtype = identity.kv_dtype;
  card.entries = {entry};
  return card;
}

}  // namespace rk::engine::tiny
