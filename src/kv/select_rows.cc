#include "kv/select_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rk::kv {
namespace {

struct Block {
  double score;  // mean of its rows
  size_t span;
  RowRange rows;
};

std::vector<Block> cut_blocks(std::span<const SelectSpan> spans, std::span<const double> scores,
                              int32_t block_rows) {
  std::vector<Block> blocks;
  int64_t offset = 0;
  for (size_t i = 0; i < spans.size(); offset += spans[i].num_rows, ++i) {
    if (!spans[i].candidate) continue;
    for (int32_t row = 0; row < spans[i].num_rows;) {
      const int32_t end = row + std::min(block_rows, spans[i].num_rows - row);
      double sum = 0;
      for (int32_t r = row; r < end; ++r) sum += scores[static_cast<size_t>(offset + r)];
      const double mean = sum / (end - row);
      blocks.push_back(
          {std::isnan(mean) ? -std::numeric_limits<double>::infinity() : mean, i, {row, end}});
      row = end;
    }
  }
  return blocks;
}

// Adjacent blocks of a span become one range. Requires: ascending order.
std::vector<std::vector<RowRange>> join(std::span<const Block> blocks, size_t num_spans) {
  std::vector<std::vector<RowRange>> out(num_spans);
  for (const Block& block : blocks) {
    std::vector<RowRange>& ranges = out[block.span];
    if (!ranges.empty() && ranges.back().end == block.rows.begin) {
      ranges.back().end = block.rows.end;
    } else {
      ranges.push_back(block.rows);
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
                                                       int32_t block_rows) {
  RK_RETURN_IF_ERROR(check_ratio(ratio));
  if (block_rows < 1) return invalid_argument("selective: blocks of ", block_rows, " rows");
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
  std::vector<Block> blocks = cut_blocks(spans, scores, block_rows);
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block& a, const Block& b) { return a.score > b.score; });
  // A product that is whole but for rounding (0.15 * 20) asks for no further row.
  const double exact = ratio * static_cast<double>(num_candidate_rows(spans));
  const auto wanted = static_cast<int64_t>(std::ceil(exact * (1 - 1e-12)));
  size_t taken = 0;
  for (int64_t rows = 0; rows < wanted; ++taken) rows += blocks[taken].rows.num_rows();
  blocks.resize(taken);
  std::sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) {
    return a.span != b.span ? a.span < b.span : a.rows.begin < b.rows.begin;
  });
  return join(blocks, spans.size());
}

}  // namespace rk::kv
