// A request becomes an assembly: which rows of its prompt are stored already, which are spliced
// from documents, and which are active (recomputed). Pure bookkeeping over kv; runs no model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/request.h"
#include "kv/prefix_tree.h"
#include "kv/recovery_plan.h"
#include "kv/segment_store.h"
#include "kv/sequence_kv.h"

namespace rk::engine {

/// The prompt's ids in one row, and where its spans lie.
struct Prompt {
  struct Span {
    int32_t begin = 0, end = 0;
    bool segment = false;
  };
  std::vector<int32_t> tokens;
  std::vector<Span> spans;
  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  /// Tokens before the first segment; all where there is none.
  int32_t lead_tokens() const;
  std::span<const int32_t> ids(int32_t begin, int32_t end) const {
    return std::span<const int32_t>(tokens).subspan(static_cast<size_t>(begin),
                                                    static_cast<size_t>(end - begin));
  }
};
/// Empty spans are dropped, without `with_documents` the segments too.
Prompt flatten(const std::vector<PromptSpan>& spans, bool with_documents = true);

/// What asks about the documents: the fresh rows behind the last segment, less the last
/// `answer_tokens`. Empty without a segment.
kv::RowRange query_rows(const Prompt& prompt, int answer_tokens);

/// The mode a request runs in: a prompt that gives splicing nothing to do is exact (spec A5).
Mode effective_mode(Mode asked, const Prompt& prompt, int answer_tokens);

/// Documents are taken wherever they stand, not only where they are exact.
bool splices(Mode mode);

/// What may be taken from the store, per span of the prompt.
struct Available {
  explicit Available(const Prompt& prompt)
      : segments(prompt.spans.size()),
        rows(prompt.spans.size()),
        exact(prompt.spans.size()),
        fit(prompt.spans.size(), Fit::kLead),
        ingested_now(prompt.spans.size()) {}
  kv::PrefixTree::Match prefix;                              ///< exact rows from position 0 on
  std::vector<std::shared_ptr<const kv::Segment>> segments;  ///< per span; null: not spliced
  std::vector<std::shared_ptr<const kv::FrameRows>> rows;    ///< per span: that segment's
  std::vector<bool> exact;                                   ///< per span: that segment is exact
  std::vector<Fit> fit;                                      ///< per span: how well it fits
  std::vector<bool> ingested_now;  ///< per span: computed for this request (its rows are fresh)
};

struct Assembly {
  std::vector<int32_t> active;  ///< positions that run through the layers, ascending
  int32_t exact_tokens = 0;     ///< rows from 0 on that are exact once the prompt has run
  RequestStats stats;           ///< the token counts and documents
};

/// Rows to recompute, per span of the prompt: ascending and apart.
using Targets = std::vector<std::vector<kv::RowRange>>;

/// Which rows of non-exact segments are recomputed.
struct Recovery {
  Mode mode = Mode::kDense;
  int boundary_rows = 0;  ///< kBoundary: the first of each segment
  Targets targets = {};   ///< takes_ratio(); kRedknot: all
};

/// Lays the prompt out in `seq` (empty before).
Result<Assembly> assemble(const Prompt& prompt, const Recovery& recovery,
                          const Available& available, kv::SequenceKv& seq);

}  // namespace rk::engine
