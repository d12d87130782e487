// A matrix in fp8 (e4m3) with f32 scales, as checkpoints store it:
//
//   w[n,k] = code[n,k] * scale[n / block_rows][k / block_columns]
//
// One scale for all, one a row, or one for each block of 128 x 128 (weight_scale_inv of DeepSeek's
// and Qwen's files). Plain values; codes are borrowed.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "tensor/view.h"

namespace rk {

inline constexpr int64_t kFp8Block = 128;

struct Fp8Matrix {
  View codes;                 ///< [N, K] e4m3, dense
  std::vector<float> scales;  ///< [ceil(N / block_rows), ceil(K / block_columns)]
  int64_t block_rows = 1, block_columns = 1;

  int64_t n() const { return codes.dim[0]; }
  int64_t k() const { return codes.dim[1]; }
  int64_t scale_columns() const { return (k() + block_columns - 1) / block_columns; }
  float scale(int64_t row, int64_t column) const {
    return scales[static_cast<size_t>(row / block_rows * scale_columns() + column / block_columns)];
  }
  bool has_blocks() const { return block_rows == kFp8Block && block_columns == kFp8Block; }
};

/// A checkpoint's codes and scales put together. `blocks`: the scales must be those of blocks; else
/// there is one, one a row ([N] or [N, 1]), or one a block, by their number.
/// Errors: kInvalidArgument naming `name`, both shapes and what would fit, or a scale that is
/// negative or not finite.
Result<Fp8Matrix> make_fp8_matrix(const View& codes, const View& scales, bool blocks,
                                  const std::string& name);

/// Rows [begin, end) as f32, [end - begin, K]: the specification of every other reader.
void dequantize_fp8(const Fp8Matrix& w, int64_t begin, int64_t end, float* out);

}  // namespace rk
