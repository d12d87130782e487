#include "tensor/fp8.h"

#include <cmath>

#include "tensor/quant_block.h"

namespace rk {

Result<Fp8Matrix> make_fp8_matrix(const View& codes, const View& scales, bool blocks,
                                  const std::string& name) {
  if (codes.rank != 2 || codes.dtype != DType::kE4m3 || codes.num_elements() == 0) {
    return invalid_argument(name, ": codes of fp8 are e4m3 [N, K], these are ", codes.describe());
  }
  const int64_t n = codes.dim[0], k = codes.dim[1], num = scales.num_elements();
  const int64_t rows = (n + kFp8Block - 1) / kFp8Block, columns = (k + kFp8Block - 1) / kFp8Block;
  const bool is_grid = scales.rank == 2 && scales.dim[0] == rows && scales.dim[1] == columns;
  const bool is_column = num == n && scales.dim[0] == n && scales.rank <= 2;
  Fp8Matrix out{.codes = codes};
  if (is_grid) {
    out.block_rows = out.block_columns = kFp8Block;
  } else if (!blocks && num == 1) {
    out.block_rows = n;
    out.block_columns = k;
  } else if (!blocks && is_column) {
    out.block_columns = k;
  } else {
    return invalid_argument(name, ": scales ", scales.describe(), " of codes ", codes.describe(),
                            "; ", blocks ? "" : cat("[1], [", n, ", 1] or "), "[", rows, ", ",
                            columns, "] (blocks of ", kFp8Block, " x ", kFp8Block, ") wanted");
  }
  if (scales.dtype != DType::kF32 && scales.dtype != DType::kBf16 && scales.dtype != DType::kF16) {
    return invalid_argument(name, ": scales ", scales.describe(), "; f32, bf16 or f16 wanted");
  }
  out.scales.resize(static_cast<size_t>(num));
  dequantize(scales.dtype, scales.data, out.scales.data(), num);
  for (int64_t i = 0; i < num; ++i) {
    const float s = out.scales[static_cast<size_t>(i)];
    if (!(s >= 0) || std::isinf(s)) {
      return invalid_argument(name, ": scale ", i, " is ", s, "; 0 or more, finite, wanted");
    }
  }
  return out;
}

void dequantize_fp8(const Fp8Matrix& w, int64_t begin, int64_t end, float* out) {
  for (int64_t n = begin; n < end; ++n) {
    const uint8_t* codes = w.codes.ptr<uint8_t>() + n * w.k();
    for (int64_t k = 0; k < w.k(); ++k) *out++ = e4m3_to_f32(codes[k]) * w.scale(n, k);
  }
}

}  // namespace rk
