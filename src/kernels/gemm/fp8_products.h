// Products of fp8 weights in cuBLASLt, and how such weights lie on the card. Private to this
// folder. Rows of x are rounded to e4m3 on the way in: one scale a row, or one for 128 elements of
// a row where the weights have one for each block of 128 x 128. Engine thread only.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/gemm/cublas_lt.h"
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/gemm/gemm_cuda_kernels.h"
#include "tensor/buffer.h"
#include "tensor/fp8.h"

namespace rk::kernels {

/// Where the scales of a weight on the card are: see WeightPiece. Pure.
struct Fp8Scales {
  std::vector<float> values;
  int64_t stride = 1;
};
/// kFp8: one a row. kFp8Blocks: a row of blocks is padded to four scales, as cuBLASLt wants it.
Fp8Scales fp8_scales(const Fp8Matrix& w, CudaWeightForm form);

class Fp8Products {
 public:
  /// `elements`: scratch for x in e4m3, max M * K. `lt` must outlive it.
  static Result<Fp8Products> create(CublasLt& lt, int64_t elements, Stream stream);

  /// The form that multiplies these as they are stored; kBf16 where this card has no such product.
  CudaWeightForm form_of(std::span<const Fp8Matrix> parts) const;
  /// Whether rows of weights may have scales of their own, else there is one for all.
  bool has_row_scales() const { return row_scales_; }

  /// y = x w^T (+ bias) of one piece. `measure` chooses the algorithm first.
  /// Errors: kExhausted where the scratch is too small.
  Status run(const WeightPiece& piece, const GemmCudaArgs& args, bool measure);
  /// Rows of x that cuBLASLt takes of m: scales of blocks come in fours. The others are few.
  static int64_t lt_rows(const WeightPiece& piece, int64_t m) {
    return piece.form == CudaWeightForm::kFp8Blocks ? m - m % 4 : m;
  }

 private:
  CublasLt* lt_ = nullptr;
  Stream stream_ = nullptr;
  bool row_scales_ = false, block_scales_ = false, block_bias_ = false;
  Buffer codes_, scales_, bias_;
};

}  // namespace rk::kernels
