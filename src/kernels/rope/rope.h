// Rotary position embedding (spec A4): R(p) turns pair i of a head by the angle p * inv_freq[i].
// Half-split: pair i = (x[i], x[i + D_r/2]); interleaved: (x[2i], x[2i+1]). Rows beyond D_r
// (partial rotary) pass through. Angles come from double precision; tables are f32.
#pragma once

#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace rk::kernels {

enum class RopePairs { kHalfSplit, kInterleaved };

/// Borrowed tables: cos and sin of p * inv_freq[i], rows p in [0, num_positions).
struct RopeView {
  const float* cos = nullptr;  ///< [num_positions, rotary_dim / 2]
  const float* sin = nullptr;
  int64_t num_positions = 0;
  int rotary_dim = 0;  ///< elements of a head that turn; 0 means no rotation at all
  RopePairs pairs = RopePairs::kHalfSplit;
};

class RopeTable {
 public:
  /// Tables for positions [0, num_positions). `magnitude` multiplies cos and sin (yarn's factor m,
  /// applied to q and k alike, once).
  static Result<RopeTable> create(const std::vector<double>& inv_freq, int64_t num_positions,
                                  double magnitude, RopePairs pairs);
  /// The same, and no position is computed before fill() asked for it.
  static Result<RopeTable> create_empty(const std::vector<double>& inv_freq, int64_t num_positions,
                                        double magnitude, RopePairs pairs);
  /// Makes positions [0, num_positions) readable, at most all. Cheap where they are.
  void fill(int64_t num_positions);
  const RopeView& view() const { return view_; }

 private:
  std::vector<double> inv_freq_;
  double magnitude_ = 1;
  int64_t filled_ = 0;
  Buffer storage_;
  RopeView view_;
};

/// x[t,h] = R(pos[t]) x[t,h] in place; x [T, H, D] f32. Requires: 0 <= pos[t] < num_positions.
Status rope(const View& x, const int32_t* pos, const RopeView& table, Context& ctx);

/// Copying relocation, the reference for the query-side one: out[r] = R(delta) in[r] as a pure
/// rotation (no magnitude), computed in double; in, out [rows, D] of any plain dtype. delta may be
/// negative.
void rope_relocate(const View& in, const View& out, int64_t delta,
                   const std::vector<double>& inv_freq, RopePairs pairs);

}  // namespace rk::kernels
