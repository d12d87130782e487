#include "kernels/attn_mass/attn_mass_cuda.h"

#include <gtest/gtest.h>

#include "kernels/attn_mass/attn_mass_testing.h"
#include "kernels/attn_mass/attn_mass_variants.h"
#include "kernels/seg_attn/seg_attn_cuda_testing.h"

namespace rk::kernels {
namespace {

std::vector<int32_t> range(int32_t begin, int32_t end, int32_t step = 1) {
  std::vector<int32_t> out;
  for (int32_t i = begin; i < end; i += step) out.push_back(i);
  return out;
}

/// Of one sequence.
class Problem : public SegAttnCudaProblem {
 public:
  using SegAttnCudaProblem::SegAttnCudaProblem;
  int num_positions() const {
    int end = sequences_[0].q_pos.back() + 1;
    for (const Run& run : sequences_[0].runs) end = std::max(end, run.offset + run.row_end);
    return end;
  }

  /// Of the queries from row `first` on.
  std::vector<double> reference_mass(int64_t first) const {
    const Sequence& s = sequences_[0];
    std::vector<double> out(num_positions());
    std::vector<float> q(q_.size()), k(k_.size());
    std::transform(q_.begin(), q_.end(), q.begin(), [&](uint16_t x) { return decode(x); });
    std::transform(k_.begin(), k_.end(), k.begin(), [&](uint16_t x) { return decode(x); });
    std::vector<float> lse = reference().lse;
    std::vector<HeadRows> heads;
    for (int g = 0; g < num_kv_heads(); ++g) {
      heads.push_back({s.runs,
                       {head_pages(s, g), static_cast<size_t>(s.num_pages)},
                       s.sight[g].sink,
                       s.sight[g].window});
    }
    AttnMassArgs a;
    a.q = View(q.data(), DType::kF32, {num_tokens(), shape_.heads, shape_.dim});
    a.q.stride[0] = q_stride_;
    a.q = a.q.rows(first, num_tokens());
    a.k_pages = View(k.data(), DType::kF32, {num_pages_, kPageRows, shape_.dim});
    a.q_pos = std::span(s.q_pos).subspan(first);
    a.heads = heads;
    a.rope = table_.view();
    a.scale = scale();
    a.lse = View(lse.data(), DType::kF32, {num_tokens(), shape_.heads}).rows(first, num_tokens());
    a.mass = out;
    Context ctx;
    EXPECT_TRUE(attn_mass_ref(a, ctx).ok());
    return out;
  }

  /// The same on the card, added up over KV heads; `times` calls are added up.
  std::vector<double> card_mass(int64_t first, Stream stream, int times = 1) const {
    std::vector<double> out;
    const Status status = try_mass(first, stream, times, out);
    EXPECT_TRUE(status.ok()) << status.message();
    return out;
  }

  /// The card is told that the last run may grow, as that of a decoder's step may.
  void open_last_run() { open_ = true; }

 private:
  bool open_ = false;
  Status try_mass(int64_t first, Stream stream, int times, std::vector<double>& out) const {
    Card card{{}, stream};
    SegAttnCudaArgs attn;
    const SegAttnPlanOptions options{num_heads(), num_kv_heads(), 132, 4096};
    RK_RETURN_IF_ERROR(lay_out(plan_seg_attn(plan_sequences(), options), card, attn));
    if (open_) {
      std::vector<Run> runs = sequences_[0].runs;
      runs.back().row_end = 1 << 30;
      DeviceSequence sequence;
      RK_RETURN_IF_ERROR(copy_from_card(&sequence, attn.sequences, sizeof(sequence), stream));
      RK_RETURN_IF_ERROR(sync_stream(stream));
      RK_TRY(sequence.runs, card.put(runs));
      RK_TRY(attn.sequences, card.put(&sequence, 1));
    }
    RK_RETURN_IF_ERROR(seg_attn_cuda(attn, "", stream));
    AttnMassCudaArgs a;
    a.q = attn.q.rows(first, num_tokens());
    a.k_pages = attn.k_pages;
    a.q_pos = attn.q_pos + first;
    a.lse = attn.lse + first * num_heads();
    a.sequence = attn.sequences;
    const auto tiles = attn_mass_tiles(sequences_[0].runs, sequences_[0].q_pos.back() + 1,
                                       attn_mass_tile_rows(shape_.dim));
    RK_TRY(a.tiles, card.put(tiles));
    a.num_tiles = static_cast<int>(tiles.size());
    a.layer = attn.layer;
    a.num_kv_heads = attn.num_kv_heads;
    a.rope = attn.rope;
    a.scale = attn.scale;
    a.mass_stride = num_positions() + 5;
    std::vector<float> mass(size_t(a.mass_stride) * num_kv_heads());
    RK_TRY(a.mass, card.put(mass));
    for (int i = 0; i < times; ++i) RK_RETURN_IF_ERROR(attn_mass_cuda(a, stream));
    RK_RETURN_IF_ERROR(copy_from_card(mass.data(), a.mass, mass.size() * 4, stream));
    RK_RETURN_IF_ERROR(sync_stream(stream));
    out.assign(num_positions(), 0.0);
    for (int g = 0; g < num_kv_heads(); ++g) {
      for (int i = 0; i < a.mass_stride; ++i) {
        const float value = mass[g * a.mass_stride + i];
        if (i < num_positions()) out[i] += value;
        EXPECT_TRUE(i < num_positions() || value == 0.0F) << "written behind the last position";
      }
    }
    return {};
  }
};
using Shape = SegAttnCudaProblem::Shape;

class AttnMassCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (num_cards() == 0) GTEST_SKIP() << "no card";
    ASSERT_TRUE(open_card(0).ok());
    auto stream = create_stream();
    ASSERT_TRUE(stream.ok()) << stream.status().message();
    stream_ = *stream;
  }
  // Queries are rotated and rounded to 16 bits, as seg_attn's are: weights are off by about 1 %.
  std::vector<double> expect_agrees(const Problem& p, int64_t first) {
    const auto want = p.reference_mass(first), got = p.card_mass(first, stream_);
    EXPECT_LE(distance(got, want), 1e-2);
    for (size_t i = 0; i < want.size(); ++i) {
      if (want[i] == 0.0) {
        EXPECT_EQ(got[i], 0.0) << i;
      }
      EXPECT_NEAR(got[i], want[i], 0.05 * want[i] + 1e-4) << i;
    }
    EXPECT_EQ(got, p.card_mass(first, stream_)) << "not the same twice";
    return got;
  }
  Stream stream_ = nullptr;
};

class AttnMassCudaShapes : public AttnMassCuda, public testing::WithParamInterface<Shape> {
 protected:
  static std::vector<HeadSight> sights(int sink, int window) {
    return mixed_sights(GetParam().kv_heads, sink, window);
  }
};

// Lead, two documents at offsets (one cut inside a page), an empty run, fresh rows; a gap of
// positions. Every row that asks sees itself, so its weights add up to 1.
TEST_P(AttnMassCudaShapes, DocumentsSinksAndWindows) {
  for (const int tokens : {1, 7, 64, 133}) {
    SCOPED_TRACE(tokens);
    Problem p(GetParam(), 20 + tokens);
    p.add_sequence(
        {{0, 0, 17, 0}, {0, 0, 100, 17}, {0, 5, 38, 112}, {0, 7, 7, 150}, {0, 0, 133, 170}},
        sights(3, 40), range(303 - tokens, 303));
    p.finish();
    for (const int first : {0, tokens / 2}) {
      const auto got = expect_agrees(p, first);
      const double want = (tokens - first) * p.num_heads();
      EXPECT_NEAR(sum(got), want, 2e-3 * want);
    }
  }
}

// More rows than a tile of keys, rows that nobody sees, queries with gaps among the rows.
TEST_P(AttnMassCudaShapes, LongRuns) {
  Problem p(GetParam(), 5);
  p.add_sequence({{0, 0, 515, 0}, {0, 16, 600, 499}, {0, 0, 300, 1099}}, sights(5, 200),
                 range(3, 1250, 7));
  p.finish();
  expect_agrees(p, 0);
  expect_agrees(p, 91);
}

// Pages behind the last query are not there.
TEST_P(AttnMassCudaShapes, TheLastRunIsOpen) {
  for (const int end : {130, 143, 144, 401}) {
    SCOPED_TRACE(end);
    Problem p(GetParam(), 6);
    p.add_sequence({{0, 0, 100, 0}, {0, 0, end - 100, 100}}, sights(5, 20), range(end - 30, end));
    p.open_last_run();
    p.finish();
    expect_agrees(p, 0);
    expect_agrees(p, 11);
  }
}

TEST_P(AttnMassCudaShapes, RandomProblems) {
  const Shape& shape = GetParam();
  for (uint32_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(cat("seed=", seed));
    std::mt19937 random(seed * 977 + static_cast<uint32_t>(shape.dim));
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
    Problem p(shape, seed);
    std::vector<rk::kernels::Run> runs;
    int position = below(40);
    for (int i = below(6); i >= 0; --i) {
      const int begin = below(60), length = below(4) == 0 ? below(3) : below(400);
      runs.push_back({0, begin, begin + length, position - begin});
      position += length + (below(2) == 0 ? 0 : below(70));
    }
    std::vector<HeadSight> sight;
    for (int g = 0; g < shape.kv_heads; ++g) {
      sight.push_back(below(3) == 0 ? HeadSight{} : HeadSight{below(50), below(120)});
    }
    std::vector<int32_t> q_pos;
    const int step = 1 + below(2) * below(9);
    for (int pos = std::max(0, position - 1 - below(200)); pos < position || q_pos.empty();
         pos += step) {
      q_pos.push_back(pos);
    }
    p.add_sequence(runs, sight, q_pos);
    p.finish();
    expect_agrees(p, 0);
  }
}

constexpr DType kF16 = DType::kF16;
constexpr RopePairs kInterleaved = RopePairs::kInterleaved;
INSTANTIATE_TEST_SUITE_P(
    All, AttnMassCudaShapes,
    testing::Values(Shape{}, Shape{.heads = 3, .kv_heads = 3, .dim = 64},
                    Shape{.heads = 14, .kv_heads = 2, .dim = 64, .num_layers = 3, .layer = 2},
                    Shape{.heads = 6, .kv_heads = 2, .dim = 64, .dtype = kF16, .rotary = 32},
                    Shape{.heads = 7, .kv_heads = 1, .dim = 128, .dtype = kF16},
                    Shape{.heads = 8, .kv_heads = 2, .rotary = 64, .pairs = kInterleaved},
                    Shape{.heads = 4, .kv_heads = 2, .rotary = 0, .num_layers = 2},
                    Shape{.heads = 5, .kv_heads = 1, .dim = 256},
                    Shape{.heads = 4, .kv_heads = 2, .dim = 256, .dtype = kF16, .rotary = 20}));

TEST_F(AttnMassCuda, CallsAddUp) {
  Problem p({}, 3);
  p.add_sequence({{0, 0, 300, 0}}, {{}, {4, 50}}, range(250, 300));
  p.finish();
  const auto once = p.card_mass(0, stream_), twice = p.card_mass(0, stream_, 2);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]) << i;
}

TEST_F(AttnMassCuda, QueriesThatSeeNothingAddNothing) {
  Problem p({.heads = 4, .kv_heads = 2}, 3);
  p.add_sequence({{0, 0, 10, 0}, {0, 0, 10, 200}}, {{0, -1}, {0, 4}}, range(50, 90));
  p.finish();
  const auto got = expect_agrees(p, 0);
  EXPECT_NEAR(sum(got), 40 * 2, 0.2);  // of the first KV head's query heads
}

TEST_F(AttnMassCuda, BadArgumentsAreNamed) {
  AttnMassCudaArgs a;
  uint16_t row[64] = {};
  a.q = View(row, DType::kBf16, {1, 1, 64});
  a.num_tiles = 1;
  EXPECT_EQ(attn_mass_cuda(a, stream_).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace rk::kernels
