// The mean of stored rows: one document computed behind several contexts, averaged. K is stored
// rotated at its row's index, the same in all of them, and rotation is linear: the mean of stored K
// is the stored form of the mean of K before rotation (spec A3).
#pragma once

#include <memory>
#include <span>

#include "base/status.h"
#include "kv/frame_rows.h"

namespace rk::kv {

/// Mean of K and of V, row by row, in pages of its own; summed in f32. On a card the next step
/// carries it out (PagePool::mean_page).
/// Requires: at least one, all of the same rows [0, n) and heads, in `pool`, computed.
/// Errors: kExhausted from the pool.
Result<std::shared_ptr<const FrameRows>> mean_rows(
    PagePool& pool, std::span<const std::shared_ptr<const FrameRows>> rows);

}  // namespace rk::kv
