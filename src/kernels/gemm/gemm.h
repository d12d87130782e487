// GEMM over weights that may be group-quantised: the linear layers.
//
//   y[m,n] (+)= sum_k x[m,k] w[n,k] (+ bias[n])
//
// M rows of activations, N output features, K input features. Weights are packed once at load into
// the layout the chosen variant reads (about the size of the file's); activations are quantised on
// the fly where the variant computes in int8. Accumulates in f32 (int32 inside a group).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/view.h"

namespace rk::kernels {

/// A weight matrix in some variant's layout. Immutable; made by pack_weight.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  virtual const char* variant() const = 0;  ///< which variant's layout this is
  virtual int64_t num_bytes() const = 0;    ///< memory held

 protected:
  PackedWeight(int64_t n, int64_t k) : n_(n), k_(k) {}

 private:
  int64_t n_, k_;
};

/// Packs the rows of `parts` one below the other (all [N_i, K], dtypes may differ: plain or block
/// formats) for the fastest variant that runs here, or the forced one. Parts are read once, from
/// front to back, and not kept: `done(part)` is called after each so that a file mapping can be
/// forgotten. The reference variant keeps f32 rows and computes in f32/double.
/// Errors: kInvalidArgument for shapes or dtypes that do not fit; kExhausted.
Result<std::unique_ptr<PackedWeight>> pack_weight(
    std::span<const View> parts, Context& ctx, const std::function<void(const View&)>& done = {});

struct GemmArgs {
  View x;                           ///< [M, K] f32, rows contiguous
  const PackedWeight* w = nullptr;  ///< [N, K]
  View bias;                        ///< [N] f32, or empty
  View y;                           ///< [M, N] f32 out, rows may be strided
  bool accumulate = false;          ///< y += instead of y =
};

/// Scratch lives inside the call's thread-local arena and is reused; a warm call allocates nothing.
/// Deterministic: the result does not depend on the number of threads, and a row's result does not
/// depend on the other rows of the same call except through the choice of the few-rows path.
/// Errors: kInvalidArgument for shapes that do not fit.
Status gemm(const GemmArgs& args, Context& ctx);

/// Names of the variants that run here, fastest first ("ref" last).
std::vector<std::string> gemm_variants();

/// Row `row` of a packed weight as f32 (embedding lookup of tied models). out: [K].
void unpack_row(const PackedWeight& w, int64_t row, float* out);

}  // namespace rk::kernels
