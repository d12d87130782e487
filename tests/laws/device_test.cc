// A card against the CPU's reference kernels: the same model, the same ids, every row.
#include "tiny_model.h"

namespace rk::engine::tiny {
namespace {

double mean_kl(const std::vector<float>& p, const std::vector<float>& q, int64_t* num_other) {
  double sum = 0;
  *num_other = 0;
  const size_t rows = p.size() / kVocab;
  for (size_t r = 0; r < rows; ++r) {
    const float *a = &p[r * kVocab], *b = &q[r * kVocab];
    double za = 0, zb = 0, kl = 0;
    for (int i = 0; i < kVocab; ++i) {
      za += std::exp(double{a[i]});
      zb += std::exp(double{b[i]});
    }
    for (int i = 0; i < kVocab; ++i) {
      const double la = a[i] - std::log(za), lb = b[i] - std::log(zb);
      kl += std::exp(la) * (la - lb);
    }
    sum += kl;
    *num_other += std::max_element(a, a + kVocab) - a != std::max_element(b, b + kVocab) - b;
  }
  return sum / static_cast<double>(rows);
}

class DeviceTest : public testing::TestWithParam<const char*> {};

TEST_P(DeviceTest, ModesGiveTheLogitsOfTheReferenceKernels) {
  if (!test_device().is_cuda()) GTEST_SKIP() << "needs --device cuda";
  Engine::Options reference;
  reference.forced = {{"gemm", "ref"}, {"seg_attn", "ref"}};
  const auto cpu = load_on({}, GetParam(), reference), card = load(GetParam());
  for (const Mode mode : {Mode::kDense, Mode::kPrefix, Mode::kBoundary, Mode::kReuse}) {
    cpu->clear_cache();
    card->clear_cache();
    Request r = request(mode, {fresh(9, 1), document(70, 2), document(45, 3), fresh(60, 4)});
    r.cache_write = false;
    r.boundary_rows = 16;
    int64_t num_other = 0;
    const auto want = logits(*cpu, r, 60), got = logits(*card, r, 60);
    EXPECT_LT(mean_kl(want, got, &num_other), 1e-3) << mode_name(mode);
    EXPECT_LE(num_other, 3) << mode_name(mode);  // of 60: random logits lie close together
  }
}

// Heads that keep stored rows; with a threshold, a row on the edge may be chosen on one side only.
TEST_P(DeviceTest, RedknotGivesTheLogitsOfTheReferenceKernels) {
  Engine::Options options;
  options.plan_json = local_plan(20, 3);
  const auto card = load(GetParam(), options);
  options.forced = {{"gemm", "ref"}, {"seg_attn", "ref"}};
  const auto cpu = load_on({}, GetParam(), options);
  Request r = request(Mode::kRedknot, {fresh(9, 1), document(70, 2), document(45, 3),
                                       document(50, 5), fresh(60, 4)});
  r.ffn_dense_layers = 0;
  r.ffn_recent_rows = 4;
  std::vector<float> full;
  for (const double threshold : {1.0, 0.2}) {
    r.ffn_threshold = threshold;
    int64_t num_other = 0;
    RequestStats on_cpu, on_card;
    const auto want = logits(*cpu, r, 60, &on_cpu);
    if (threshold == 1) full = want;
    const double effect = mean_kl(want, full, &num_other);
    if (threshold < 1) {
      EXPECT_GT(effect, 8e-3) << "this test tells nothing";
    }
    for (const char* state : {"miss", "hit"}) {
      const auto got = logits(*card, r, 60, &on_card);
      EXPECT_LT(mean_kl(want, got, &num_other), threshold == 1 ? 1e-3 : effect / 3) << state;
      EXPECT_NEAR(on_card.ffn_skipped, on_cpu.ffn_skipped, threshold == 1 ? 0 : 8) << state;
    }
  }
}

// Means over companies that differ, which nothing but their rows can tell from one company.
TEST_P(DeviceTest, MeansOverCompaniesGiveTheLogitsOfTheReferenceKernels) {
  if (!test_device().is_cuda()) GTEST_SKIP() << "needs --device cuda";
  Engine::Options reference;
  reference.forced = {{"gemm", "ref"}, {"seg_attn", "ref"}};
  const auto cpu = load_on({}, GetParam(), reference), card = load(GetParam());
  Request r = request(Mode::kReuse, {fresh(9, 1), document(70, 2), document(45, 3), fresh(60, 4)});
  r.company = ids(90, 9);
  std::vector<float> one;
  for (const int pieces : {1, 2, 3}) {
    r.company_pieces = pieces;
    cpu->clear_cache();
    card->clear_cache();
    int64_t num_other = 0;
    const auto want = logits(*cpu, r, 60);
    for (const char* state : {"miss", "hit"}) {
      const auto got = logits(*card, r, 60);
      EXPECT_LT(mean_kl(want, got, &num_other), 1e-3) << pieces << state;
      EXPECT_LE(num_other, 3) << pieces << state;
    }
    if (pieces == 1) one = want;
    if (pieces > 1) {
      EXPECT_GT(mean_kl(want, one, &num_other), 1e-3) << "this test tells nothing";
    }
  }
}

// Somebody else has nearly all of the card: both numbers, and that it is in use.
TEST(CardMemory, TakenByOthersIsSaid) {
  if (!test_device().is_cuda()) GTEST_SKIP() << "needs --device cuda";
  const auto card = open_card(test_device().index);
  ASSERT_TRUE(card.ok());
  const auto taken = Buffer::allocate(card->free_bytes - (int64_t{600} << 20), Memory::kCard);
  ASSERT_TRUE(taken.ok()) << taken.status().message();
  Engine::Options options;
  options.model = path("llama");
  options.device = test_device();
  const auto engine = Engine::create(options);
  std::filesystem::remove(options.model);
  EXPECT_EQ(engine.status().code(), Code::kExhausted);
  for (const char* text : {"MiB for KV wanted", "MiB free", "in use already", "--fit"}) {
    EXPECT_NE(engine.status().message().find(text), std::string::npos)
        << text << " is not in: " << engine.status().message();
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DeviceTest, testing::Values("llama", "qwen2"));

}  // namespace
}  // namespace rk::engine::tiny
