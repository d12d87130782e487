// What a decoder's step leaves in its score sink.
#include <numeric>

#include "model/decoder.h"
#include "tiny_model.h"

namespace rk::engine {
namespace {

using namespace tiny;

class Scores : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { load(test_device()); }
  void load(const Device& device) {
    const std::string file = path(GetParam());
    auto config = model::read_config(file);
    auto files = model::WeightFiles::open(file);
    ASSERT_TRUE(config.ok() && files.ok());
    model::Decoder::Options options{.max_step_rows = 64};
    options.device = device;
    auto decoder = model::Decoder::load(*files, *config, options, ctx_);
    ASSERT_TRUE(decoder.ok()) << decoder.status().message();
    decoder_ = std::move(decoder).value();
    std::filesystem::remove(file);
    kv::PagePool::Options rows{.capacity_bytes = 1 << 20, .head_dim = kHeadDim};
    rows.memory = decoder_->kv_memory();
    rows.dtype = device.is_cuda() ? DType::kBf16 : DType::kF32;
    auto pool = kv::PagePool::create(rows);
    ASSERT_TRUE(pool.ok());
    pool_ = std::move(pool).value();
  }
  // The mass that a prompt of 50 rows leaves, run in steps of `step` rows; logits of the last row
  // go to `logits` where it is not null.
  std::vector<double> mass(int step, int first_query, std::vector<float>* logits = nullptr) {
    kv::SequenceKv kv(*pool_, kLayers, kKvHeads, std::vector<kv::Visible>(kLayers * kKvHeads));
    kv.add_fresh(0, 50);
    const auto tokens = ids(50, 7);
    std::vector<int32_t> positions(50);
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<double> out(50);
    const model::ScoreSink sink{first_query, out};
    for (int at = 0; at < 50; at += step) {
      const auto n = static_cast<size_t>(std::min(step, 50 - at));
      const auto rows = std::span<const int32_t>(positions).subspan(static_cast<size_t>(at), n);
      EXPECT_TRUE(kv.prepare(rows).ok());
      const model::StepSequence sequence{
          &kv, std::span<const int32_t>(tokens).subspan(static_cast<size_t>(at), n), rows};
      model::StepInput input{{&sequence, 1}, {}, View()};
      input.scores = &sink;
      const auto last = static_cast<int32_t>(n) - 1;
      if (logits != nullptr && at + step >= 50) {
        logits->resize(kVocab);
        input.logits_rows = {&last, 1};
        input.logits = View(logits->data(), DType::kF32, {1, kVocab});
      }
      const Status status = decoder_->forward(input, ctx_);
      EXPECT_TRUE(status.ok()) << status.message();
    }
    return out;
  }
  // bf16 activations move every weight a little.
  static void expect_same(const std::vector<double>& got, const std::vector<double>& want) {
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(got[i], want[i], test_device().is_cuda() ? 0.03 * want[i] + 0.05 : 1e-3) << i;
    }
  }
  kernels::Context ctx_;
  std::unique_ptr<model::Decoder> decoder_;
  std::unique_ptr<kv::PagePool> pool_;
};
INSTANTIATE_TEST_SUITE_P(Families, Scores, testing::Values("llama", "qwen2"),
                         [](const auto& info) { return std::string(info.param); });

// Every query's weights add up to 1 in every head of every layer, the last one too.
TEST_P(Scores, AddUpToQueriesTimesHeadsTimesLayers) {
  for (const int first : {0, 13, 30, 49, 50}) {
    for (const int step : {50, 16, 1}) {
      const auto got = mass(step, first);
      const double want = (50 - first) * kHeads * kLayers;
      EXPECT_NEAR(std::accumulate(got.begin(), got.end(), 0.0), want,
                  test_device().is_cuda() ? 2e-3 * want : 1e-2)
          << first << " in steps of " << step;
      expect_same(got, mass(50, first));
    }
  }
}

// ... whatever computed them.
TEST_P(Scores, AreThoseOfTheCpu) {
  if (!test_device().is_cuda()) GTEST_SKIP() << "needs --device cuda";
  const auto got = mass(16, 13);
  load({});
  expect_same(got, mass(16, 13));
}

// The first row sees itself alone, so all of its weight lies there.
TEST_P(Scores, AreByPosition) {
  const auto all = mass(50, 0), later = mass(50, 1);
  const double within = test_device().is_cuda() ? 5e-3 * all[0] : 1e-3;
  EXPECT_NEAR(all[0] - later[0], kHeads * kLayers, within);
  for (size_t i = 1; i < 50; ++i) EXPECT_NEAR(all[i], later[i], 1e-3);
}

TEST_P(Scores, ChangeNoLogit) {
  std::vector<float> with, without;
  mass(16, 20, &with);
  mass(16, 50, &without);
  EXPECT_EQ(with, without);
}

TEST_P(Scores, AreOfOneSequence) {
  kv::SequenceKv kv(*pool_, kLayers, kKvHeads, std::vector<kv::Visible>(kLayers * kKvHeads));
  const model::StepSequence two[] = {{&kv, {}, {}}, {&kv, {}, {}}};
  std::vector<double> out(1);
  const model::ScoreSink sink{0, out};
  model::StepInput input{two, {}, View()};
  input.scores = &sink;
  EXPECT_EQ(decoder_->forward(input, ctx_).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::engine
