// sample() for a batch of rows on a card: the same token for the same logits, options, history and
// draw. Both compute weights with the same single-precision operations in the same order and round
// them to multiples of 2^-34, so that every sum is exact and its order does not matter
// (vocabularies up to 2^19). One launch, no synchronisation; fine inside a graph.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "kernels/sample/sample.h"
#include "tensor/device.h"
#include "tensor/view.h"

namespace rk::kernels {

/// What penalties and biases do to one token's logit. Entries of a token lie side by side; the
/// first has `seen` and `count`.
struct SampleAdjust {
  int32_t token = 0;
  int32_t seen = 0;   ///< 1: the repetition penalty applies
  int32_t count = 0;  ///< times generated
  float bias = 0.0F;
};

/// One row's choice. Plain data: the array lies on the card.
struct SampleRow {
  float temperature = 0.0F, top_p = 1.0F, min_p = 0.0F;
  float repetition_penalty = 1.0F, presence_penalty = 0.0F, frequency_penalty = 0.0F;
  int32_t top_k = 0;
  int32_t adjust_begin = 0, adjust_end = 0;  ///< of the batch's entries
  uint64_t seed = 0, draw = 0;
};

/// The row of `options`; appends its entries to `adjust`. O(history) where a penalty needs it.
/// Requires: options passed check_sample_options.
SampleRow make_sample_row(const SampleOptions& options, const SampleHistory& history, uint64_t draw,
                          int64_t vocab_size, std::vector<SampleAdjust>& adjust);

/// tokens[i] = the choice of row i, or -1 where none of its logits is finite. logits [R, V] f32 on
/// the card, rows may be strided; rows with entries are adjusted in place. rows [R] and adjust on
/// the card, tokens [R] there or in pinned memory of the host. Errors: kInvalidArgument.
Status sample_cuda(const View& logits, const SampleRow* rows, const SampleAdjust* adjust,
                   int32_t* tokens, Stream stream);

}  // namespace rk::kernels
