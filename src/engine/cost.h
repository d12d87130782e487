// The cost model: arithmetic and bytes of a request from the model's shape, the head plan and the
// prompt's layout, without running it (spec A7). The launch code of the kernels counts what really
// runs (kernels/work.h); both stand side by side in RequestStats. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "kernels/work.h"
#include "kv/visible.h"
#include "model/decoder.h"

namespace rk::engine {

/// What does not change from request to request.
struct CostShape {
  double hidden = 0, ffn = 0, vocab = 0;
  int num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  model::MatrixBytes matrices;
  double activation_bytes = 4;  ///< of an element between layers; residuals are f32
  double row_bytes = 0;         ///< K (or V) of one row in one head, as stored
  int step_rows = 0;            ///< active rows of one forward pass
  std::vector<kv::Visible> visible, dense_visible;  ///< [L*G] of requests, and of documents' rows
};
CostShape cost_shape(const model::Decoder& decoder, DType kv_dtype,
                     std::span<const kv::Visible> visible,
                     std::span<const kv::Visible> dense_visible);

/// Rows that run through the layers one after the other, in one sequence.
struct CostPass {
  std::vector<kv::RowRange> active;  ///< positions, ascending and apart
  int64_t logits_rows = 0;           ///< the last ones
  bool all_global = false;           ///< sees what documents' rows see
  int32_t first_scored = -1;  ///< >= 0: the attention mass of rows at this position and later
  std::span<const kv::RowRange> whole = {};  ///< a step ends before one that it cannot end
  int num_layers = 0;                        ///< the first of them, for their K and V; 0: all
};
kernels::Work cost_of(const CostShape& shape, const CostPass& pass);

/// One span of a prompt, in prompt order.
struct CostSpan {
  int32_t num_rows = 0;
  bool segment = false;     ///< a document with stored rows: spliced
  bool exact = false;       ///< those rows are exact
  int32_t prefix_rows = 0;  ///< held by the prefix cache; only a whole span may precede
};
struct CostLayout {
  Mode mode = Mode::kDense;
  std::vector<CostSpan> spans;
  int boundary_rows = 0;
  double ratio = 0;
  kv::RowRange query;  ///< kSelective: what the probe asks with, as query_rows()
  int64_t logits_rows = 1;
  /// takes_ratio(), once they were chosen: positions recomputed. Empty: as many as the ratio says,
  /// spread evenly, which is what can be known before.
  std::vector<kv::RowRange> chosen;
  /// kRedknot with a sparse FFN: documents that steps are not to cut (engine/document_ffn.h), and
  /// rows times layers left out: known once the prompt ran.
  std::vector<kv::RowRange> documents;
  int64_t ffn_skipped = 0;
  /// Rows computed before, each behind what its context holds: the lead, a company, a document.
  std::vector<kv::RowRange> ingested;
};
/// Everything up to the first token: missing rows, the probe, the prompt.
kernels::Work cost_of(const CostShape& shape, const CostLayout& layout);

/// Tokens generated one by one behind a prompt.
kernels::Work decode_cost(const CostShape& shape, int64_t prompt_tokens, int64_t num_tokens);

}  // namespace rk::engine
