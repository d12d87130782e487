// Weights in the packed layout (layout.h) and the loops around the instruction sets' kernels.
#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"
#include "kernels/gemm/pack.h"
#include "kernels/gemm/weight.h"
#include "tensor/buffer.h"

namespace rk::kernels::gemm_detail {
namespace {

/// Rows of activations that are quantised and multiplied at a time: bounds the scratch.
constexpr int64_t kMaxRows = 516;
/// Blocks that share a chunk of activations while it is in the second cache.
constexpr int64_t kBlocksAtOnce = 4;
constexpr int64_t kLargePage = 2 << 20;
constexpr int64_t kPlainChunk = 192;  // features; 24 KiB of f32 weights stay in the first cache

/// Consecutive rows of one format.
struct Segment {
  Format format;
  int64_t first_row, num_rows;
  int64_t begin;        ///< byte of its first block
  int64_t block_bytes;  ///< of one block
  int64_t num_blocks() const { return (num_rows + kBlockRows - 1) / kBlockRows; }
};

/// Memory of one thread, kept between calls.
struct Scratch {
  Buffer memory;
  uint8_t* at_least(int64_t bytes) {
    if (memory.num_bytes() < bytes) {
      memory = Buffer();
      Result<Buffer> more = Buffer::allocate(bytes);
      if (!more.ok()) return nullptr;
      memory = std::move(more).value();
    }
    return memory.as<uint8_t>();
  }
};
thread_local Scratch activations_scratch;
thread_local Scratch block_scratch;

class BlockedWeight final : public Weight {
 public:
  BlockedWeight(int64_t n, int64_t k, const Kernels& kernels, std::vector<Segment> segments,
                Buffer memory)
      : Weight(n, k),
        kernels_(kernels),
        segments_(std::move(segments)),
        memory_(std::move(memory)) {}
  const char* variant() const override { return kernels_.name; }
  int64_t num_bytes() const override { return memory_.num_bytes(); }
  uint8_t* block(const Segment& s, int64_t i) const {
    return memory_.as<uint8_t>() + s.begin + i * s.block_bytes;
  }
  const std::vector<Segment>& segments() const { return segments_; }

  Status run(const GemmArgs& args, Context& ctx) const override;
  void unpack_row(int64_t row, float* out) const override {
    for (const Segment& s : segments_) {
      const int64_t i = row - s.first_row;
      if (i < 0 || i >= s.num_rows) continue;
      unpack_lane(s.format, block(s, i / kBlockRows), k(), static_cast<int>(i % kBlockRows), out);
    }
  }

 private:
  /// Some rows of activations: a part of args.x, and its tiles.
  struct Rows {
    const GemmArgs& args;
    int64_t first, num;
    const uint8_t* tiles = nullptr;
    int64_t num_terms() const { return num * kTerms; }  ///< rows of the tiles
  };
  void quantize(const Rows& rows, const Segment& s, uint8_t* tiles, Context& ctx) const;
  void multiply_few(const Rows& rows, const Segment& s, int64_t block) const;
  void multiply_many(const Rows& rows, const Segment& s, int64_t begin, int64_t end) const;
  void multiply_plain(const Rows& rows, const Segment& s, int64_t begin, int64_t end) const;
  void write(const Rows& rows, const Segment& s, int64_t block, const float* acc) const;
  void write_terms(const Rows& rows, const Segment& s, int64_t block, float* acc) const;
  int64_t num_groups() const { return k() / kGroup; }
  int64_t tile_bytes() const { return num_groups() * kernels_.tile_rows * kTileRowBytes; }

  const Kernels& kernels_;
  std::vector<Segment> segments_;
  Buffer memory_;
};

/// y = acc (+ bias) (+ y) for one block's columns.
void BlockedWeight::write(const Rows& rows, const Segment& s, int64_t block,
                          const float* acc) const {
  const int64_t first = s.first_row + block * kBlockRows;
  const int64_t num = std::min<int64_t>(kBlockRows, s.num_rows - block * kBlockRows);
  const float* bias = rows.args.bias.empty() ? nullptr : rows.args.bias.ptr<float>() + first;
  for (int64_t m = 0; m < rows.num; ++m, acc += kBlockRows) {
    float* y = rows.args.y.row<float>(rows.first + m) + first;
    if (bias == nullptr && !rows.args.accumulate) {
      std::copy_n(acc, num, y);
      continue;
    }
    for (int64_t i = 0; i < num; ++i) {
      const float value = bias == nullptr ? acc[i] : acc[i] + bias[i];
      y[i] = rows.args.accumulate ? y[i] + value : value;
    }
  }
}

/// The same, of an activation's terms: their sums.
void BlockedWeight::write_terms(const Rows& rows, const Segment& s, int64_t block,
                                float* acc) const {
  for (int64_t m = 0; m < rows.num; ++m) {
    const float* terms = acc + m * kTerms * kBlockRows;
    for (int64_t i = 0; i < kBlockRows; ++i) {
      acc[m * kBlockRows + i] = terms[i] + terms[kBlockRows + i];
    }
  }
  write(rows, s, block, acc);
}

void BlockedWeight::quantize(const Rows& rows, const Segment& s, uint8_t* tiles,
                             Context& ctx) const {
  const FormatInfo& f = kFormats[s.format];
  const int64_t height = kernels_.tile_rows, num = rows.num_terms();
  const int64_t num_tiles = (num + height - 1) / height;
  const auto some = [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t m = t * height;
      kernels_.quantize(rows.args.x.row<float>(rows.first + m / kTerms), rows.args.x.stride[0],
                        static_cast<int>(std::min(height, num - m)), num_groups(), f.zero_point,
                        f.halves, tiles + t * tile_bytes());
    }
  };
  if (num_tiles < 2) return some(0, num_tiles, 0);
  parallel_for(ctx, num_tiles, std::max<int64_t>(1, num_tiles / (2 * num_threads(ctx))), some);
}

void BlockedWeight::multiply_few(const Rows& rows, const Segment& s, int64_t i) const {
  alignas(64) float acc[16 * kBlockRows];
  kernels_.few(s.format, block(s, i), num_groups(), rows.tiles, static_cast<int>(rows.num_terms()),
               acc);
  write_terms(rows, s, i, acc);
}

/// Chunk of features after chunk; inside it block after block; inside that all the rows.
void BlockedWeight::multiply_many(const Rows& rows, const Segment& s, int64_t begin,
                                  int64_t end) const {
  const int64_t num = rows.num_terms(), acc_floats = num * kBlockRows;
  uint8_t* panel = block_scratch.at_least(kChunkGroups * kPanelGroupBytes +
                                          (end - begin) * acc_floats * int64_t{sizeof(float)});
  RK_CHECK(panel != nullptr);
  float* acc = reinterpret_cast<float*>(panel + kChunkGroups * kPanelGroupBytes);
  std::fill_n(acc, (end - begin) * acc_floats, 0.0F);
  const int64_t height = kernels_.tile_rows, group_bytes = height * kTileRowBytes;
  for (int64_t g = 0; g < num_groups(); g += kChunkGroups) {
    const int64_t groups = std::min<int64_t>(kChunkGroups, num_groups() - g);
    for (int64_t i = begin; i < end; ++i) {
      kernels_.expand(s.format, block(s, i), g, g + groups, panel);
      float* out = acc + (i - begin) * acc_floats;
      for (int64_t m = 0; m < num; m += height, out += height * kBlockRows) {
        kernels_.tile(s.format, panel, groups,
                      rows.tiles + m / height * tile_bytes() + g * group_bytes,
                      static_cast<int>(std::min(height, num - m)), out);
      }
    }
  }
  for (int64_t i = begin; i < end; ++i) write_terms(rows, s, i, acc + (i - begin) * acc_floats);
}

void BlockedWeight::multiply_plain(const Rows& rows, const Segment& s, int64_t begin,
                                   int64_t end) const {
  const int64_t acc_floats = rows.num * kBlockRows;
  auto* acc = reinterpret_cast<float*>(block_scratch.at_least(acc_floats * int64_t{sizeof(float)}));
  RK_CHECK(acc != nullptr);
  const int64_t height = kernels_.tile_rows;
  const int64_t feature_bytes = kBlockRows * kFormats[s.format].bits / 8;
  for (int64_t i = begin; i < end; ++i) {
    std::fill_n(acc, acc_floats, 0.0F);
    for (int64_t j = 0; j < k(); j += kPlainChunk) {
      for (int64_t m = 0; m < rows.num; m += height) {
        kernels_.plain(s.format, block(s, i) + j * feature_bytes, std::min(kPlainChunk, k() - j),
                       rows.args.x.row<float>(rows.first + m) + j, rows.args.x.stride[0],
                       static_cast<int>(std::min(height, rows.num - m)), acc + m * kBlockRows);
      }
    }
    write(rows, s, i, acc);
  }
}

Status BlockedWeight::run(const GemmArgs& args, Context& ctx) const {
  const int64_t num_rows = args.x.dim[0], height = kernels_.tile_rows;
  const int64_t parts = (num_rows + kMaxRows - 1) / kMaxRows;
  const int64_t step = ((num_rows + parts - 1) / parts + height - 1) / height * height;
  const int64_t num_tiles = (std::min(step, num_rows) * kTerms + height - 1) / height;
  uint8_t* tiles = nullptr;
  const auto grouped = [](const Segment& s) { return s.format < kF32; };
  if (std::any_of(segments_.begin(), segments_.end(), grouped)) {
    const int64_t bytes = num_tiles * tile_bytes();
    tiles = activations_scratch.at_least(bytes);
    if (tiles == nullptr && bytes > 0) {
      return exhausted("gemm: ", bytes, " bytes of scratch for ", num_tiles * height, " rows of ",
                       k());
    }
  }
  for (int64_t first = 0; first < num_rows; first += step) {
    const Rows rows{args, first, std::min(step, num_rows - first), tiles};
    const Segment* quantized_for = nullptr;
    for (const Segment& s : segments_) {
      if (s.format >= kF32) {
        parallel_for(ctx, s.num_blocks(), 1,
                     [&](int64_t b, int64_t e, int) { multiply_plain(rows, s, b, e); });
        continue;
      }
      const auto same = [&](const FormatInfo& a, const FormatInfo& b) {
        return a.zero_point == b.zero_point && a.halves == b.halves;
      };
      if (quantized_for == nullptr || !same(kFormats[quantized_for->format], kFormats[s.format])) {
        quantize(rows, s, tiles, ctx);
        quantized_for = &s;
      }
      const int64_t share = std::max<int64_t>(1, s.num_blocks() / (3 * num_threads(ctx)));
      if (rows.num_terms() <= height) {
        const int64_t grain = std::min(share, std::max<int64_t>(1, (256 << 10) / s.block_bytes));
        parallel_for(ctx, s.num_blocks(), grain, [&](int64_t b, int64_t e, int) {
          for (int64_t i = b; i < e; ++i) multiply_few(rows, s, i);
        });
      } else {
        parallel_for(ctx, s.num_blocks(), std::min(share, kBlocksAtOnce),
                     [&](int64_t b, int64_t e, int) {
                       for (; b < e; b += kBlocksAtOnce) {
                         multiply_many(rows, s, b, std::min(b + kBlocksAtOnce, e));
                       }
                     });
      }
    }
  }
  return {};
}

std::vector<Segment> plan(std::span<const View> parts, int64_t k, int64_t& bytes) {
  std::vector<Segment> segments;
  int64_t row = 0;
  for (const View& part : parts) {
    const Format format = format_of(part.dtype);
    if (segments.empty() || segments.back().format != format) {
      segments.push_back({format, row, 0, 0, block_bytes(format, k)});
    }
    segments.back().num_rows += part.dim[0];
    row += part.dim[0];
  }
  bytes = 0;
  for (Segment& s : segments) {
    s.begin = bytes;
    bytes += s.num_blocks() * s.block_bytes;
  }
  return segments;
}

}  // namespace

Result<std::unique_ptr<PackedWeight>> pack_blocked(const Kernels& kernels,
                                                   std::span<const View> parts, int64_t n,
                                                   int64_t k, Context& ctx, const DoneFn& done) {
  int64_t bytes = 0;
  std::vector<Segment> segments = plan(parts, k, bytes);
  RK_TRY(Buffer memory, Buffer::allocate(bytes));
  // Large pages where the system gives them: decode streams all of this for every token.
  if (bytes >= kLargePage) madvise(memory.data(), static_cast<size_t>(bytes), MADV_HUGEPAGE);
  auto weight =
      std::make_unique<BlockedWeight>(n, k, kernels, std::move(segments), std::move(memory));
  int64_t row = 0;  // of the stack
  size_t at = 0;    // segment
  for (const View& part : parts) {
    while (row >= weight->segments()[at].first_row + weight->segments()[at].num_rows) ++at;
    const Segment& s = weight->segments()[at];
    const int64_t offset = row - s.first_row;  // of the part's first row in its segment
    const int64_t first = offset / kBlockRows, last = (offset + part.dim[0] - 1) / kBlockRows;
    parallel_for(ctx, last - first + 1, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = std::max(offset, (first + begin) * kBlockRows);
           i < std::min(offset + part.dim[0], (first + end) * kBlockRows); ++i) {
        pack_row(part.dtype, part.rows(i - offset, i - offset + 1).data, k,
                 static_cast<int>(i % kBlockRows), weight->block(s, i / kBlockRows));
      }
    });
    row += part.dim[0];
    if (done) done(part);
  }
  return std::unique_ptr<PackedWeight>(std::move(weight));
}

}  // namespace rk::kernels::gemm_detail
