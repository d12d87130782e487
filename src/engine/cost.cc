#include "engine/cost.h"

#include <algorithm>
#include <cmath>

#include "kv/select_rows.h"

namespace rk::engine {
namespace {

using kernels::Work;
using kv::RowRange;

// Sum of min(x, most) over x = 1 .. n.
double sum_of_least(double n, double most) {
  n = std::max(n, 0.0);
  const double ramp = std::min(n, most);
  return ramp * (ramp + 1) / 2 + (n - ramp) * most;
}

// (query, row) pairs of queries at positions [begin, end): all rows up to the query, or the window
// and the sinks outside it.
double pairs_of(const kv::Visible& v, const RowRange& r) {
  const double a = r.begin, b = r.end;
  if (v.window < 0) return (b - a) * (a + b + 1) / 2;
  const double w = v.window, s = v.sink;
  return sum_of_least(b, w) - sum_of_least(a, w) + sum_of_least(b - w, s) - sum_of_least(a - w, s);
}

// Rows that some query of the ranges sees.
double rows_of(const kv::Visible& v, std::span<const RowRange> ranges) {
  const int64_t end = ranges.back().end;
  if (v.window < 0) return static_cast<double>(end);
  int64_t seen = v.sink, rows = std::min<int64_t>(v.sink, end);
  for (const RowRange& r : ranges) {
    seen = std::max<int64_t>(seen, int64_t{r.begin} + 1 - v.window);
    // A window narrower than one row: only sinks.
    if (v.window > 0 && seen < r.end) rows += r.end - seen;
    seen = std::max<int64_t>(seen, r.end);
  }
  return static_cast<double>(rows);
}

int64_t count_rows(std::span<const RowRange> ranges) {
  int64_t n = 0;
  for (const RowRange& r : ranges) n += r.num_rows();
  return n;
}

// The rows at `first` and later.
std::vector<RowRange> from(std::span<const RowRange> ranges, int64_t first) {
  std::vector<RowRange> out;
  for (RowRange r : ranges) {
    r.begin = std::max(r.begin, static_cast<int32_t>(first));
    if (r.begin < r.end) out.push_back(r);
  }
  return out;
}

std::vector<RowRange> last_rows(std::span<const RowRange> ranges, int64_t num) {
  std::vector<RowRange> out;
  for (size_t i = ranges.size(); i-- > 0 && num > 0;) {
    RowRange r = ranges[i];
    r.begin = std::max(r.begin, static_cast<int32_t>(r.end - num));
    num -= r.num_rows();
    out.insert(out.begin(), r);
  }
  return out;
}

struct Seen {
  double pairs = 0, rows = 0;
};
// All heads of layers [begin, end).
Seen seen_in(const CostShape& s, std::span<const kv::Visible> visible, int begin, int end,
             std::span<const RowRange> queries) {
  Seen out;
  const auto heads = static_cast<size_t>(s.num_kv_heads);
  const double group = static_cast<double>(s.num_heads) / s.num_kv_heads;
  const kv::Visible* known = nullptr;
  Seen one;
  for (size_t i = static_cast<size_t>(begin) * heads; i < static_cast<size_t>(end) * heads; ++i) {
    if (known == nullptr || !(*known == visible[i])) {
      known = &visible[i];
      one = {};
      for (const RowRange& r : queries) one.pairs += group * pairs_of(*known, r);
      one.rows = rows_of(*known, queries);
    }
    out.pairs += one.pairs;
    out.rows += one.rows;
  }
  return out;
}

Work attention(const CostShape& s, std::span<const kv::Visible> visible, int begin, int end,
               std::span<const RowRange> queries) {
  if (queries.empty() || begin == end) return {};
  const Seen seen = seen_in(s, visible, begin, end, queries);
  return kernels::attention_work(seen.pairs, 2 * seen.rows * s.row_bytes,
                                 static_cast<double>(count_rows(queries)) * (end - begin),
                                 s.num_heads, s.head_dim, s.activation_bytes);
}

Work mass(const CostShape& s, std::span<const kv::Visible> visible,
          std::span<const RowRange> queries) {
  if (queries.empty()) return {};
  const Seen seen = seen_in(s, visible, 0, s.num_layers, queries);
  return kernels::mass_work(seen.pairs, seen.rows * s.row_bytes,
                            static_cast<double>(count_rows(queries)) * s.num_layers, s.num_heads,
                            s.head_dim, s.activation_bytes);
}

// Gate, up and down, without their weights.
Work ffn_cost(const CostShape& s, double rows) {
  const double act = s.activation_bytes;
  return kernels::gemm_work(rows, 2 * s.ffn, s.hidden, 0, act, act, false) +
         kernels::gemm_work(rows, s.hidden, s.ffn, 0, act, 4, true);
}

// O, gate, up and down of `layers` layers, whose weights have `weight_bytes` together.
Work behind_attention(const CostShape& s, double rows, double layers, double weight_bytes) {
  const double act = s.activation_bytes, q = static_cast<double>(s.num_heads) * s.head_dim;
  Work out = (kernels::gemm_work(rows, s.hidden, q, 0, act, 4, true) + ffn_cost(s, rows)) * layers;
  out.bytes += weight_bytes;
  return out;
}

// One forward pass of the first layers: its active rows, and of those the ones with logits and the
// ones with scores.
Work step_cost(const CostShape& s, int num_layers, std::span<const kv::Visible> visible,
               std::span<const RowRange> active, std::span<const RowRange> logits,
               std::span<const RowRange> scored) {
  const double act = s.activation_bytes, rows = static_cast<double>(count_rows(active));
  const double qkv = (s.num_heads + 2.0 * s.num_kv_heads) * s.head_dim;
  Work out = kernels::gemm_work(rows, qkv, s.hidden, 0, act, act, false) * num_layers;
  out.bytes += s.matrices.qkv * num_layers / s.num_layers;
  const int last = num_layers - 1;
  out += attention(s, visible, 0, last, active);
  const double rest = last == 0 ? 0 : s.matrices.rest * last / (s.num_layers - 1);
  out += behind_attention(s, rows, last, rest);
  if (!scored.empty())
    out += attention(s, visible, last, last + 1, active) + mass(s, visible, scored);
  if (logits.empty()) return out;
  const auto wanted = static_cast<double>(count_rows(logits));
  out += attention(s, visible, last, last + 1, logits);
  out += behind_attention(s, wanted, 1, s.matrices.last);
  return out + kernels::gemm_work(wanted, s.vocab, s.hidden, s.matrices.output, act, 4, false);
}

// The blocks that a choice without scores would take: as many as the ratio wants, evenly apart.
std::vector<RowRange> spread_targets(const CostLayout& layout) {
  std::vector<RowRange> blocks;
  int64_t candidates = 0;
  int32_t at = 0;
  for (const CostSpan& span : layout.spans) {
    const bool takes = span.segment && !span.exact && span.prefix_rows == 0;
    for (int32_t i = 0; takes && i < span.num_rows; i += kv::kSelectBlockRows) {
      blocks.push_back({at + i, at + std::min(i + kv::kSelectBlockRows, span.num_rows)});
    }
    if (takes) candidates += span.num_rows;
    at += span.num_rows;
  }
  if (blocks.empty()) return {};
  const double wanted = std::ceil(layout.ratio * static_cast<double>(candidates));
  const double mean = static_cast<double>(candidates) / static_cast<double>(blocks.size());
  const auto num = std::min(blocks.size(), static_cast<size_t>(std::ceil(wanted / mean)));
  std::vector<RowRange> out;
  for (size_t i = 0; i < num; ++i) out.push_back(blocks[(2 * i + 1) * blocks.size() / (2 * num)]);
  return out;
}

// Positions that run through the layers (spec A5); the last one always does.
std::vector<RowRange> active_rows(const CostLayout& layout, Mode mode,
                                  std::span<const RowRange> targets) {
  std::vector<RowRange> out;
  const auto add = [&](int32_t begin, int32_t end) {
    if (begin >= end) return;
    if (!out.empty() && out.back().end >= begin) {
      out.back().end = std::max(out.back().end, end);
    } else {
      out.push_back({begin, end});
    }
  };
  int32_t at = 0;
  auto target = targets.begin();
  for (const CostSpan& span : layout.spans) {
    const int32_t end = at + span.num_rows;
    if (mode == Mode::kDense || mode == Mode::kNone) {
      add(at, end);
    } else if (!span.segment) {
      add(at + span.prefix_rows, end);
    } else if (mode == Mode::kBoundary && !span.exact) {
      add(at, std::min(end, at + layout.boundary_rows));
    } else if ((mode == Mode::kPrefix || mode == Mode::kRedknot) && !span.exact) {
      add(at, end);
    }
    for (; takes_ratio(mode) && target != targets.end() && target->begin < end; ++target) {
      add(target->begin, target->end);
    }
    at = end;
  }
  if (out.empty() || out.back().end < at) add(at - 1, at);
  return out;
}

}  // namespace

CostShape cost_shape(const model::Decoder& decoder, DType kv_dtype,
                     std::span<const kv::Visible> visible,
                     std::span<const kv::Visible> dense_visible) {
  const model::ModelConfig& c = decoder.config();
  CostShape out;
  out.hidden = c.hidden;
  out.ffn = c.ffn;
  out.vocab = static_cast<double>(c.vocab_size);
  out.num_layers = c.num_layers;
  out.num_heads = c.num_heads;
  out.num_kv_heads = c.num_kv_heads;
  out.head_dim = c.head_dim;
  out.matrices = decoder.matrix_bytes();
  out.activation_bytes = decoder.kv_memory() == Memory::kHost ? 4 : 2;
  out.row_bytes = static_cast<double>(dtype_bytes(kv_dtype, c.head_dim));
  out.step_rows = decoder.max_step_rows();
  out.visible.assign(visible.begin(), visible.end());
  out.dense_visible.assign(dense_visible.begin(), dense_visible.end());
  return out;
}

Work cost_of(const CostShape& shape, const CostPass& pass) {
  const auto& visible = pass.all_global ? shape.dense_visible : shape.visible;
  const std::vector<RowRange> logits = last_rows(pass.active, pass.logits_rows);
  Work out;
  std::vector<RowRange> step;
  int64_t room = shape.step_rows;
  const auto run = [&] {
    if (step.empty()) return;
    const std::vector<RowRange> wanted = logits.empty() ? logits : from(step, logits.front().begin);
    const std::vector<RowRange> scored =
        pass.first_scored < 0 ? std::vector<RowRange>() : from(step, pass.first_scored);
    out += step_cost(shape, pass.num_layers > 0 ? pass.num_layers : shape.num_layers, visible, step,
                     wanted, scored);
    step.clear();
    room = shape.step_rows;
  };
  for (RowRange rest : pass.active) {
    while (rest.begin < rest.end) {
      auto taken = static_cast<int32_t>(std::min<int64_t>(room, rest.num_rows()));
      const int32_t first = step.empty() ? rest.begin : step.front().begin;
      const auto cut = std::ranges::find_if(pass.whole, [&](const RowRange& r) {
        return r.begin > first && r.begin < rest.begin + taken && r.end > rest.begin + taken;
      });
      if (cut != pass.whole.end() && taken == room) {
        taken = room = cut->begin - rest.begin;
      }
      step.push_back({rest.begin, rest.begin + taken});
      rest.begin += taken;
      room -= taken;
      if (room == 0) run();
    }
  }
  run();
  return out;
}

namespace {

// Positions below `end`.
std::vector<RowRange> up_to(std::vector<RowRange> rows, int32_t end) {
  while (!rows.empty() && rows.back().begin >= end) rows.pop_back();
  if (!rows.empty()) rows.back().end = std::min(rows.back().end, end);
  return rows;
}

// What finding the rows to recompute takes (engine_select.cc).
Work scoring_cost(const CostShape& shape, const CostLayout& layout) {
  int32_t at = 0, last = 0;
  for (const CostSpan& span : layout.spans) {
    at += span.num_rows;
    if (span.segment && !span.exact) last = at;
  }
  if (last == 0 || layout.mode == Mode::kRandom) return {};
  if (layout.mode == Mode::kCacheblend) {
    const int layers = std::min(kDeviationLayer + 1, shape.num_layers);
    return cost_of(shape,
                   {up_to(active_rows(layout, Mode::kPrefix, {}), last), 0, false, -1, {}, layers});
  }
  return cost_of(shape, {up_to(active_rows(layout, Mode::kReuse, {}), layout.query.end), 0, false,
                         layout.query.begin});
}

}  // namespace

Work cost_of(const CostShape& shape, const CostLayout& layout) {
  Work out;
  for (const RowRange& rows : layout.ingested) out += cost_of(shape, {{rows}, 0, true, -1});
  std::vector<RowRange> targets = layout.chosen;
  if (takes_ratio(layout.mode)) {
    if (targets.empty()) targets = spread_targets(layout);
    if (layout.ratio > 0 && layout.ratio < 1) out += scoring_cost(shape, layout);
  }
  const auto skipped = static_cast<double>(layout.ffn_skipped);
  return out - ffn_cost(shape, skipped) +
         cost_of(shape, {active_rows(layout, layout.mode, targets), layout.logits_rows, false, -1,
                         layout.documents});
}

Work decode_cost(const CostShape& shape, int64_t prompt_tokens, int64_t num_tokens) {
  Work out;
  for (int64_t i = 0; i < num_tokens; ++i) {
    const auto at = static_cast<int32_t>(prompt_tokens + i);
    out += cost_of(shape, {{{at, at + 1}}, 1, false, -1});
  }
  return out;
}

}  // namespace rk::engine
