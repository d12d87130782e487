// Linear layers on a card: y[m,n] (+)= sum_k x[m,k] w[n,k] (+ bias[n]).
//
// Weights are kept in the form that is fastest for the shape and fits: bf16 through cuBLASLt, or
// int8 / int4 groups by our own kernels where few rows make it a matter of bytes (many rows expand
// a layer into a bf16 scratch first). FP8 (e4m3) runs in cuBLASLt with its scales, one a row or one
// for each block of 128 x 128. f32 accumulation
// everywhere. cuBLASLt is opened at run time (dlopen), so the program starts without it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"
#include "tensor/device.h"
#include "tensor/fp8.h"
#include "tensor/view.h"

namespace rk::kernels {

/// How a weight lies on the card.
enum class CudaWeightForm : uint8_t {
  kBf16,       ///< [N, K]
  kFp8,        ///< e4m3, f32 scales: one a row where cuBLASLt takes them (Hopper), else one
  kFp8Blocks,  ///< e4m3, one f32 scale for each 128 x 128 (Hopper)
  kInt8G32,  ///< groups of 32 along K: int8 codes, f16 scale and minimum (Q5, Q8) or two f16 scales
             ///< (Q6_K); 9 bits a weight
  kInt4G32,  ///< groups of 32 along K: 4-bit codes, f16 scale and minimum (Q4); 5 bits a weight
};

/// A weight matrix on the card; immutable.
class CudaWeight {
 public:
  virtual ~CudaWeight() = default;
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  /// What was asked for; parts may differ.
  virtual CudaWeightForm form() const = 0;
  virtual int64_t num_bytes() const = 0;

 protected:
  CudaWeight(int64_t n, int64_t k) : n_(n), k_(k) {}

 private:
  int64_t n_, k_;
};

struct GemmCudaArgs {
  View x;                         ///< [M, K] bf16, rows contiguous
  const CudaWeight* w = nullptr;  ///< [N, K]
  View bias;                      ///< [N] f32 on the card, or empty
  View y;                         ///< [M, N] bf16 or f32, rows may be strided
  bool accumulate = false;        ///< y += (f32 only)
};

/// y = norm(x) w^T (+ bias), or y = silu(g) * u of that product's halves g and u.
struct NormedGemmArgs {
  View x;     ///< [M, K] f32, rows contiguous
  View norm;  ///< [K] f32: the RMS norm's weights
  float eps = 1e-6F;
  const CudaWeight* w = nullptr;  ///< [N, K]
  View bias;                      ///< [N] f32 on the card, or empty; not where gated
  View y;                         ///< [M, N] bf16 or f32, or [M, N / 2] bf16 where gated
  bool gated = false;
  // Where the pieces do not run as one kernel:
  View normed;   ///< scratch [M, K] bf16
  View gate_up;  ///< scratch [M, N] bf16 where gated
};

/// cuBLASLt, its cached choices of algorithm and its workspace, for one stream. Engine thread only.
class GemmCuda {
 public:
  struct Options {
    int64_t workspace_bytes = int64_t{64} << 20;
    int64_t expand_elements = 0;  ///< bf16 scratch for quantised weights and many rows: max N*K
    int64_t fp8_elements = 0;     ///< scratch for x in e4m3: max M*K
    /// Rows up to which our own kernel is taken, by the weights' form; defaults as measured on an
    /// H200 (redknot bench kernels): cuBLASLt streams bf16 faster at every row count but one.
    int64_t few_bf16_rows = 0, few_fp8_rows = 4, few_quant_rows = 48;
    /// The same of fp8 in blocks: in fours, which is all that cuBLASLt takes, and otherwise.
    int64_t few_block_rows = 0, few_uneven_rows = 16;
    /// Our own kernels for Hopper, where they can run: one row of bf16 weights, few rows of packed.
    bool hopper_rows = true;
    /// Packed weights of fewer elements, and long rows beside others, start faster in the plain
    /// kernel: as measured on an H200 too. 0: Hopper's wherever it can run.
    int64_t hopper_packed_from = int64_t{24} << 20;
  };
  /// Errors: kUnavailable naming libcublasLt.so.13 and where it was looked for; kExhausted.
  static Result<std::unique_ptr<GemmCuda>> create(const Options& options, Stream stream);
  virtual ~GemmCuda() = default;

  /// Uploads the rows of `parts` (host views, [N_i, K], plain or GGUF block formats) one below the
  /// other; raw bytes travel, the card unpacks them. kBf16 and kFp8 take every dtype. With kInt4G32
  /// and kInt8G32 each part gets the least form that keeps it: codes exactly, scales to f16's 11
  /// bits (products of Q4_K, Q5_K and Q6_K are rounded, the others exact); plain parts become bf16.
  /// Waits for the card. Errors: kInvalidArgument, kExhausted.
  virtual Result<std::unique_ptr<CudaWeight>> upload(std::span<const View> parts,
                                                     CudaWeightForm form) = 0;
  /// fp8 matrices of a file one below the other, as they are stored. Where this card has no product
  /// for such scales (or for sides that are no multiples of 16) they become bf16. Waits for the
  /// card. Errors: as upload().
  virtual Result<std::unique_ptr<CudaWeight>> upload_fp8(std::span<const Fp8Matrix> parts) = 0;
  /// Random normal weights of the given deviation, made on the card from a seed.
  virtual Result<std::unique_ptr<CudaWeight>> random(int64_t n, int64_t k, CudaWeightForm form,
                                                     uint64_t seed, float deviation) = 0;
  /// The form that keeps `dtype` with the least bytes without further loss.
  virtual CudaWeightForm compact_form(DType dtype) const = 0;

  /// Measures algorithms for a row count up front, outside timed steps and graph capture. Waits for
  /// the card, borrows memory for x and y; where there is none, takes the heuristic's first.
  virtual Status prepare(const CudaWeight& w, int64_t num_rows, DType y_dtype, bool bias,
                         bool accumulate) = 0;
  /// In stream order; allocates nothing on the card (an unseen row count costs a heuristic query on
  /// the host). May be captured in a graph. A bias that cuBLASLt fuses into bf16 or fp8 products is
  /// rounded to bf16 there. Errors: kInvalidArgument; kExhausted where Options' bounds are too
  /// small.
  virtual Status run(const GemmCudaArgs& args) = 0;

  /// The same with what stands around a layer's products: one kernel where there is one row, two
  /// where there are few and packed weights.
  virtual Status run_normed(const NormedGemmArgs& args) = 0;

  /// out[i] = row ids[i] of w as f32 [num, K]: the embedding lookup. ids on the card; an id outside
  /// [0, N) reads row 0 (the caller has checked).
  virtual Status gather_rows(const CudaWeight& w, const int32_t* ids, int64_t num,
                             const View& out) = 0;
};

}  // namespace rk::kernels
