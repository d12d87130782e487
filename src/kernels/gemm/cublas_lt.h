// cuBLASLt behind one small interface, opened at run time: y = x w^T over device memory. Private to
// this folder. Algorithms are asked for once per shape and kept; prepare() measures the most
// promising ones. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace rk::kernels {

/// Of fp8 operands: one a matrix, one a row of x and of w, or one for 128 elements of a row of x
/// ([ceil(k / 128)][m]) and for 128 x 128 of w ([ceil(n / 128)][ceil(k / 128) to whole fours]).
enum class LtScales : uint8_t { kNone, kOne, kRows, kBlocks };

/// y[m,n] (+)= sum_k x[m,k] w[n,k] (+ bias[n]); x and w rows contiguous.
struct LtShape {
  int64_t m = 0, n = 0, k = 0, y_stride = 0;
  LtScales scales = LtScales::kNone;  ///< x and w e4m3 with f32 scales, else bf16
  bool y_f32 = false;                 ///< else bf16
  bool bias = false;                  ///< dtype: lt_bias_dtype
  bool accumulate = false;
  bool fp8() const { return scales != LtScales::kNone; }
  auto operator<=>(const LtShape&) const = default;
};
/// f32 with f32 results of bf16 operands, else bf16: what cuBLASLt can fuse.
inline DType lt_bias_dtype(const LtShape& s) {
  return s.y_f32 && !s.fp8() ? DType::kF32 : DType::kBf16;
}

struct LtOperands {
  const void* x = nullptr;
  const void* w = nullptr;
  const float* x_scale = nullptr;  ///< fp8
  const float* w_scale = nullptr;
  const void* bias = nullptr;
  void* y = nullptr;
};

/// Whether `library` can be opened and has the functions we call. Errors: kUnavailable naming it
/// and the places looked at, or what it lacks.
Status check_cublas_lt(const char* library);

class CublasLt {
 public:
  /// Opens libcublasLt.so.13: where the loader looks, then below $CUDA_HOME, /usr/local/cuda and a
  /// Python environment's nvidia packages. Errors: kUnavailable naming the places; kExhausted.
  static Result<std::unique_ptr<CublasLt>> open(int64_t workspace_bytes, Stream stream);
  virtual ~CublasLt() = default;

  /// Errors: kUnimplemented where cuBLASLt has no algorithm for the shape.
  virtual Status run(const LtShape& shape, const LtOperands& operands) = 0;
  /// Times the best candidates on these operands (y is overwritten) and keeps the fastest. Waits
  /// for the card.
  virtual Status prepare(const LtShape& shape, const LtOperands& operands) = 0;
  /// Whether there is an algorithm for the shape.
  virtual bool can(const LtShape& shape) = 0;
  /// Scratch of the stream, free between calls.
  virtual void* workspace() const = 0;
};

}  // namespace rk::kernels
