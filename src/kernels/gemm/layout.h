// The packed layout that the fast variants share, and the table of functions each of them fills.
// Includes nothing with inline functions: files compiled for an instruction set read it.
//
// A weight is cut into blocks of 32 output rows; a block holds its K input features front to back,
// so that one thread streams it. A group is 32 rows x 32 features. Its codes are eight quads of
// four features; byte 4*row + feature%4 of a quad's 128 bytes belongs to one weight, so that a
// 32-bit lane is an output row and four consecutive features, as the int8 dot instructions want
// them.
//   low four bits : quads 0..3 in the low nibbles of 4 x 128 bytes, quads 4..7 in the high nibbles
//   fifth bit     : 128 bytes, bit q = quad q
//   bits 5 and 6  : 2 x 128 bytes, bits 2i..2i+1 of the t-th = quad 4t+i
//   8 bits        : 8 x 128 bytes
// weight = scale * (code - zero_point) + min, where scale and min are
//   simple formats: f16[32] behind the group's codes (then f16[32] mins where the format has them)
//   super formats : eight groups behind a header of f16[32] d (then f16[32] dmin); behind each
//                   group's codes u8[32] s and u8[32] m: scale = d*s, min = -dmin*m
//                   (6 bits: i8[2][32] s, one for each 16 features, no mins)
// Plain formats: for each feature 32 values, one for each row.
#pragma once

#include <cstdint>

namespace rk::kernels::gemm_detail {

enum Format : int {
  kSym4,
  kMin4,
  kSym5,
  kMin5,
  kSym8,
  kSuper4,
  kSuper5,
  kSuper6,
  kF32,
  kF16,
  kBf16
};
constexpr int kNumGroupFormats = 8;  ///< those before kF32

struct FormatInfo {
  int bits;
  int zero_point;  ///< 0 where the format has mins
  bool has_min;
  bool halves;  ///< two scales a group
  int groups;   ///< groups between headers
  int header_bytes;
  int code_bytes;
  int group_bytes;  ///< codes, scales and mins
};

constexpr FormatInfo kFormats[] = {
    {4, 8, false, false, 1, 0, 512, 576},     {4, 0, true, false, 1, 0, 512, 640},
    {5, 16, false, false, 1, 0, 640, 704},    {5, 0, true, false, 1, 0, 640, 768},
    {8, 128, false, false, 1, 0, 1024, 1088}, {4, 0, true, false, 8, 128, 512, 576},
    {5, 0, true, false, 8, 128, 640, 704},    {6, 32, false, true, 8, 64, 768, 832},
    {32, 0, false, false, 1, 0, 4096, 4096},  {16, 0, false, false, 1, 0, 2048, 2048},
    {16, 0, false, false, 1, 0, 2048, 2048},
};

constexpr int kBlockRows = 32;
constexpr int kGroup = 32;
/// Features whose expanded codes stay in the first cache while all activation rows pass by.
constexpr int kChunkGroups = 16;
/// A group of the expanded panel: codes as bytes, f32[32] scales, f32[32] mins or second scales.
constexpr int kPanelGroupBytes = 1024 + 128 + 128;

/// int8 terms of one activation: x = s0 c0 + s1 c1, the second term being the rounding error of the
/// first. One term costs SmolLM2's 4-bit file 5 % of its most likely tokens against the reference.
inline constexpr int kTerms = 2;

/// A tile of quantised activations: `tile_rows` rows, a row's terms one after the other; for each
/// group of features
///   i8[tile_rows][32] codes, f32[tile_rows] scale, f32[tile_rows] scale*sum(codes),
///   i32[2][tile_rows]: -zero_point * sum(codes), over the group (or over each half of it).
constexpr int kTileRowBytes = 32 + 4 + 4 + 8;

struct Kernels {
  const char* name;
  int tile_rows;
  /// x[rows, k] f32 -> one tile.
  void (*quantize)(const float* x, int64_t x_stride, int rows, int64_t num_groups, int zero_point,
                   bool halves, uint8_t* tile);
  /// acc[rows][32] = x w, straight from a packed block.
  void (*few)(Format format, const uint8_t* block, int64_t num_groups, const uint8_t* tile,
              int rows, float* acc);
  /// Groups [begin, end) of a packed block -> panel.
  void (*expand)(Format format, const uint8_t* block, int64_t begin, int64_t end, uint8_t* panel);
  /// acc[rows][32] += x w over a panel's groups; `tile` points at the first of them.
  void (*tile)(Format format, const uint8_t* panel, int64_t num_groups, const uint8_t* tile,
               int rows, float* acc);
  /// acc[rows][32] += x w over `k` features of a plain block.
  void (*plain)(Format format, const uint8_t* block, int64_t k, const float* x, int64_t x_stride,
                int rows, float* acc);
};

extern const Kernels kVnniKernels;
extern const Kernels kAvx2Kernels;

}  // namespace rk::kernels::gemm_detail
