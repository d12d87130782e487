// A request to the engine and what it answers, in token ids only: the engine knows no text.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/sample/sample.h"
#include "kernels/work.h"

namespace rk::engine {

/// Recovery modes (spec A5), and rivals to compare them with: kBoundary is EPIC; kRandom and
/// kCacheblend recompute as many rows as kSelective, chosen otherwise (engine_select.cc); kNone
/// leaves the documents out of the prompt. kRedknot is the published system's: heads that the
/// plan calls local keep the documents' stored rows. kAuto: the gate chooses (engine/gate.h).
enum class Mode {
  kDense,
  kPrefix,
  kReuse,
  kBoundary,
  kSelective,
  kRandom,
  kCacheblend,
  kNone,
  kRedknot,
  kAuto
};
const char* mode_name(Mode mode);
/// Errors: kInvalidArgument naming the known ones.
Result<Mode> parse_mode(std::string_view name);
/// Recomputes a share of the documents' rows: Request::selective_ratio is its number.
constexpr bool takes_ratio(Mode mode) {
  return mode == Mode::kSelective || mode == Mode::kRandom || mode == Mode::kCacheblend;
}

/// A card tells settings of the mode apart by a number from 0 to 1 (mode_share).
constexpr bool has_share(Mode mode) { return takes_ratio(mode) || mode == Mode::kRedknot; }

/// What takes_ratio() takes together: blocks of 16 rows; half of the rows in blocks, then the best
/// single ones until the ratio is spent; single rows.
enum class SelectUnits { kBlocks, kBoth, kRows };
const char* select_name(SelectUnits units);  ///< "blocks", "both", "rows"
/// Errors: kInvalidArgument naming the known ones.
Result<SelectUnits> parse_select(std::string_view name);
/// Errors: kInvalidArgument for kBoth of a rival: kRandom and kCacheblend take one kind.
Status check_select(Mode mode, SelectUnits units);

/// kCacheblend compares K and V of this layer: the first that depends on the context.
constexpr int kDeviationLayer = 1;

/// How faithful a request wants its answer (spec A8). Ordered: kStrict is the most faithful.
enum class Level { kNone, kFast, kBalanced, kStrict };
const char* level_name(Level level);  ///< "none", "fast", "balanced", "strict"
/// Errors: kInvalidArgument naming the known ones; kNone cannot be asked for.
Result<Level> parse_level(std::string_view name);

/// What the documents of a prompt were computed behind, best first (spec A3). A prompt's fit is the
/// worst of its documents'.
enum class Fit { kPredecessor, kMean, kCompany, kLead, kOtherLead };
const char* fit_name(Fit fit);

struct Request;
/// takes_ratio(): the share of rows; kRedknot: the FFN's threshold; else 0.
double mode_share(const Request& request);
void set_mode_share(Request& request, double share);
/// Errors: kInvalidArgument outside (0, 1].
Status check_ffn_threshold(double threshold);
/// A mode as people write it, with its number: "dense", "selective:0.3" (ratio), "boundary:32" (k),
/// "redknot:0.6" (the FFN's threshold); behind a ratio may stand what is taken together:
/// "selective:0.3:both". What is not said stays as the request has it. Errors: those of
/// parse_mode(), parse_select() and check_select(); kInvalidArgument for a number that is none,
/// outside its range, or behind a mode that takes none.
Status read_mode(std::string_view text, Request& request);

/// Consecutive prompt tokens. A segment is a document: its rows are computed once behind the lead
/// (everything before the first segment) and kept by content.
struct PromptSpan {
  std::vector<int32_t> tokens;
  bool segment = false;
};

struct Request {
  std::vector<PromptSpan> spans;  ///< in prompt order; empty spans are dropped
  Mode mode = Mode::kPrefix;
  Level quality = Level::kStrict;  ///< kAuto: what the gate must see on the card
  int boundary_rows = 32;          ///< kBoundary: first k rows of each non-exact segment
  double selective_ratio = 0.15;   ///< takes_ratio(): share of non-exact document rows recomputed
  SelectUnits select = SelectUnits::kBlocks;  ///< takes_ratio()
  /// kRedknot: where below 1, a document row runs a layer's FFN only if it is among the rows whose
  /// attention outputs, largest first, make up this share of the document's (spec A6).
  double ffn_threshold = 1;
  int ffn_dense_layers = 5;   ///< kRedknot: the first so many layers run it on every row
  int ffn_recent_rows = 128;  ///< kRedknot: so do the last rows of each document
  /// kSelective: the prompt's last tokens that stand for generated ones (a given answer that is
  /// followed); no part of the question, so they do not take part in the choice of rows.
  int answer_tokens = 0;
  /// Ids between lead and document at ingest; their rows are no part of the document's.
  std::vector<int32_t> company;
  int company_pieces = 1;       ///< > 1: the mean over so many equal pieces of `company`
  std::string cache_namespace;  ///< part of every stored row's identity
  /// Documents side by side may change places for the best fit of what is stored.
  bool any_order = false;
  bool cache_read = true;    ///< may use stored rows of earlier requests
  bool cache_write = true;   ///< may leave rows for later requests
  bool stored_only = false;  ///< a document that would have to be computed is an error

  int max_tokens = 256;  ///< generated at most
  int min_tokens = 0;    ///< stop tokens are not sampled before
  std::vector<int32_t> stop_tokens;
  bool guardian = false;  ///< stop where the answer only repeats itself (engine/guardian.h)
  kernels::SampleOptions sampling;
  int num_logprobs = -1;     ///< < 0 none, else how many alternatives per generated token
  bool give_logits = false;  ///< every event carries the whole row it was sampled from
};

struct TokenEvent {
  int32_t token = 0;
  std::optional<kernels::Logprobs> logprobs;
  std::span<const float> logits;  ///< [vocab] during the call, with Request::give_logits
};

enum class DocumentState { kHit, kMiss };
struct DocumentUse {
  DocumentState state = DocumentState::kMiss;
  bool exact = false;  ///< its rows are exact rows (spec A3)
  int num_tokens = 0;
  Fit fit = Fit::kLead;  ///< of the variant that was taken, where it is not exact
  const char* fit_name() const { return exact ? "exact" : engine::fit_name(fit); }
};

/// Disjoint counts of spec A9, and where the time went.
struct RequestStats {
  Mode mode = Mode::kDense;  ///< the one that ran
  /// "pass": exact, or a card allows it; "bypassed": named by hand, no card allows it.
  std::string gate = "pass", gate_reason;
  Level quality_used = Level::kStrict;  ///< what the card says of it; kNone where bypassed
  int64_t prompt_tokens = 0;
  int64_t prefix_cached = 0, document_cached = 0, recomputed = 0,
          fresh = 0;      ///< sum: prompt_tokens
  int64_t relocated = 0;  ///< within document_cached
  /// Document rows computed again: [begin, end) positions, ascending and apart.
  std::vector<std::array<int32_t, 2>> recomputed_rows;
  int64_t generated = 0;
  std::vector<DocumentUse> documents;  ///< one per segment span, in prompt order
  std::vector<int> document_order;     ///< with any_order: which of the given ones each of them is
  double queue_ms = 0, ttft_ms = 0, total_ms = 0;  ///< ttft: submitted to first token emitted
  double ingest_ms = 0;                            ///< part of ttft: computing missing documents
  double probe_ms = 0;                             ///< part of ttft: finding the rows to recompute
  double expand_ms = 0;     ///< part of ttft: pages from documents at rest; a card is only told to
  int64_t store_bytes = 0;  ///< rows of all stored documents, as they are kept, at its end
  int64_t kv_bytes = 0;     ///< pages this request holds itself, at its end
  int64_t ffn_skipped = 0;  ///< rows times layers whose FFN was left out
  /// Counted by the kernels: up to the first token (documents computed for it included), and the
  /// tokens after it. What the cost model (engine/cost.h) says of the former, once the rows to
  /// recompute are chosen.
  kernels::Work work, decode_work, predicted_work;
};

/// kGuardian: the answer only repeated itself (engine/guardian.h).
enum class FinishReason { kStop, kLength, kGuardian, kCancelled, kError };
struct Outcome {
  FinishReason finish = FinishReason::kStop;
  Status status;  ///< not ok only with kError
  RequestStats stats;
};

/// Called on the engine thread; must return quickly and not call back into the engine.
class Listener {
 public:
  virtual ~Listener() = default;
  /// One generated token (a stop token is not reported). False cancels the request.
  virtual bool on_token(const TokenEvent& event) = 0;
  /// Exactly once, last.
  virtual void on_done(const Outcome& outcome) = 0;
  /// Asked between steps, also during prefill. True cancels.
  virtual bool cancelled() const { return false; }
};

}  // namespace rk::engine
