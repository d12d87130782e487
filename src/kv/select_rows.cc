#include "kv/select_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rk::kv {
namespace {

struct Block {
  double score;  // mean of its rows
  int64_t begin, end;
};

// Runs of at most `block_rows` rows of each candidate.
std::vector<Block> cut_blocks(std::span<const SelectSpan> spans, std::span<const double> scores,
                              int32_t block_rows) {
  std::vector<Block> blocks;
  int64_t offset = 0;
  for (const SelectSpan& span : spans) {
    const int64_t span_end = offset + span.num_rows;
    for (int64_t begin = offset; span.candidate && begin < span_end;) {
      const int64_t end = std::min(begin + block_rows, span_end);
      double sum = 0;
      for (int64_t row = begin; row < end; ++row) sum += scores[static_cast<size_t>(row)];
      const double mean = sum / static_cast<double>(end - begin);
      blocks.push_back(
          {std::isnan(mean) ? -std::numeric_limits<double>::infinity() : mean, begin, end});
      begin = end;
    }
    offset = span_end;
  }
  return blocks;
}

// Takes blocks, best first, until `wanted` rows are taken. Requires: a block is taken whole or not
// at all before.
void take(std::span<const SelectSpan> spans, std::span<const double> scores, int32_t block_rows,
          int64_t wanted, std::vector<bool>& taken, int64_t& num_taken) {
  if (num_taken >= wanted) return;
  std::vector<Block> blocks = cut_blocks(spans, scores, block_rows);
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block& a, const Block& b) { return a.score > b.score; });
  for (const Block& block : blocks) {
    if (num_taken >= wanted) return;
    if (taken[static_cast<size_t>(block.begin)]) continue;
    std::fill(taken.begin() + block.begin, taken.begin() + block.end, true);
    num_taken += block.end - block.begin;
  }
}

// A product that is whole but for rounding (0.15 * 20) asks for no further row.
int64_t rows_of(double share, int64_t num_rows) {
  return static_cast<int64_t>(std::ceil(share * static_cast<double>(num_rows) * (1 - 1e-12)));
}

// What was taken, in rows of each span.
std::vector<std::vector<RowRange>> ranges(std::span<const SelectSpan> spans,
                                          const std::vector<bool>& taken) {
  std::vector<std::vector<RowRange>> out(spans.size());
  size_t at = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    for (int32_t row = 0; row < spans[i].num_rows; ++row, ++at) {
      if (!taken[at]) continue;
      if (out[i].empty() || out[i].back().end < row) {
        out[i].push_back({row, row + 1});
      } else {
        ++out[i].back().end;
      }
    }
  }
  return out;
}

}  // namespace

int64_t num_candidate_rows(std::span<const SelectSpan> spans) {
  int64_t rows = 0;
  for (const SelectSpan& span : spans) rows += span.candidate ? span.num_rows : 0;
  return rows;
}

Status check_ratio(double ratio) {
  if (ratio >= 0 && ratio <= 1) return {};
  return invalid_argument("a ratio of ", ratio, " of the documents' rows, 0 to 1 wanted");
}

Result<std::vector<std::vector<RowRange>>> select_rows(std::span<const SelectSpan> spans,
                                                       std::span<const double> scores, double ratio,
                                                       double block_share) {
  RK_RETURN_IF_ERROR(check_ratio(ratio));
  if (!(block_share >= 0 && block_share <= 1)) {
    return invalid_argument("selective: a share of ", block_share, " in blocks, 0 to 1 wanted");
  }
  int64_t num_rows = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].num_rows < 0) {
      return invalid_argument("selective: span ", i, " has ", spans[i].num_rows, " rows");
    }
    num_rows += spans[i].num_rows;
  }
  std::vector<std::vector<RowRange>> out(spans.size());
  if (ratio == 0) return out;
  if (ratio == 1) {
    for (size_t i = 0; i < spans.size(); ++i) {
      if (spans[i].candidate && spans[i].num_rows > 0) out[i].push_back({0, spans[i].num_rows});
    }
    return out;
  }
  if (static_cast<int64_t>(scores.size()) < num_rows) {
    return invalid_argument("selective: scores of ", scores.size(), " rows, ", num_rows,
                            " rows are there");
  }
  const int64_t wanted = rows_of(ratio, num_candidate_rows(spans));
  std::vector<bool> taken(static_cast<size_t>(num_rows));
  int64_t num_taken = 0;
  take(spans, scores, kSelectBlockRows, rows_of(block_share, wanted), taken, num_taken);
  take(spans, scores, 1, wanted, taken, num_taken);
  return ranges(spans, taken);
}

}  // namespace rk::kv
