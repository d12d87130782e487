// The FFN of a layer on a card: of every row, or of those that matter by the norm of their
// attention output (model/sparse_ffn.h).
//
// The host chooses: norms travel back while the card is at the O projection, so that the choice is
// made by the time it is done. How many are chosen differs from layer to layer, and a row count not
// seen before costs a question to cuBLASLt: rows are made up to a multiple of kGrain by repeating
// the last one, so that there are few row counts. Products go by tiles of about so many rows
// anyway.
#include <algorithm>
#include <cstring>

#include "kernels/layer/layer_cuda.h"
#include "model/decoder_cuda.h"

namespace rk::model {
namespace {

constexpr View kNone;
constexpr int64_t kGrain = 128;

}  // namespace

Status CudaDecoder::run_ffn(const Layer& w, const View& x) {
  const int64_t num_rows = x.dim[0];
  const View hidden = rows_of(hidden_, num_rows);
  RK_RETURN_IF_ERROR(linear_normed({.x = x,
                                    .norm = vector_view(w.ffn_norm),
                                    .eps = config_.rms_eps,
                                    .w = w.gate_up.get(),
                                    .y = hidden,
                                    .gated = true,
                                    .normed = rows_of(normed_, num_rows),
                                    .gate_up = rows_of(gate_up_, num_rows)}));
  return linear({hidden, w.down.get(), kNone, x, true});
}

Status CudaDecoder::send_norms(const View& attended) {
  RK_RETURN_IF_ERROR(kernels::row_norms_cuda(attended, norms_, stream_));
  RK_RETURN_IF_ERROR(
      copy_from_card(ffn_pinned_.data(), norms_, attended.dim[0] * int64_t{4}, stream_));
  return note_event(norms_sent_, stream_);
}

// Requires: send_norms of this layer.
Status CudaDecoder::run_sparse_ffn(const Layer& w, const View& x, const SparseFfn& ffn) {
  const int64_t num_rows = x.dim[0];
  RK_RETURN_IF_ERROR(sync_event(norms_sent_));
  const auto* norms = ffn_pinned_.as<float>();
  const std::vector<double> importance(norms, norms + num_rows);
  const std::vector<int32_t> chosen = ffn_rows(ffn, importance);
  const auto num = static_cast<int64_t>(chosen.size());
  *ffn.num_skipped += num_rows - num;
  if (num == num_rows) return run_ffn(w, x);
  if (num == 0) return {};

  // The list before was copied up ahead of the norms that have just come.
  const int64_t padded = std::min((num + kGrain - 1) / kGrain * kGrain, num_rows);
  int32_t* rows = ffn_pinned_.as<int32_t>() + max_step_rows();
  std::ranges::copy(chosen, rows);
  std::fill(rows + num, rows + padded, chosen.back());
  RK_RETURN_IF_ERROR(copy_to_card(ffn_rows_, rows, padded * 4, stream_));
  const View normed = rows_of(normed_, padded), hidden = rows_of(hidden_, padded);
  const View gate_up = rows_of(gate_up_, padded);
  RK_RETURN_IF_ERROR(kernels::rms_norm_cuda(
      {x, vector_view(w.ffn_norm), normed, config_.rms_eps, ffn_rows_}, stream_));
  RK_RETURN_IF_ERROR(gemm_->run({normed, w.gate_up.get(), kNone, gate_up, false}));
  RK_RETURN_IF_ERROR(kernels::swiglu_cuda(gate_up, hidden, stream_));
  const View out(gate_up_.data, DType::kF32,
                 {padded, config_.hidden});  // gate and up are done with
  RK_RETURN_IF_ERROR(gemm_->run({hidden, w.down.get(), kNone, out, false}));
  count(num, *w.gate_up, DType::kBf16, false);
  count(num, *w.down, DType::kF32, true);
  return kernels::add_rows_cuda(rows_of(out, num), ffn_rows_, x, stream_);
}

}  // namespace rk::model
