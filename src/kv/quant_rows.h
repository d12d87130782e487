// Documents at rest: stored rows in fewer bits, in memory of their own, where the pool lies. Rows
// that are computed or read are always pages (FrameRows); these are made from them once and
// expanded into pages again when a prompt takes the document, so that everything above reads
// exactly what the codes say.
//
// K may carry a constant that the layer adds to every row before rotation, its key bias: it is left
// out of the codes, rotated to each row's index, and put back when rows are expanded.
//
// Immutable; made and expanded on the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "kernels/row_code/row_code.h"
#include "kv/frame_rows.h"
#include "tensor/buffer.h"
#include "tensor/device.h"

namespace rk::kv {

/// How documents at rest are kept. kAsComputed: the pages themselves. Persistent by name.
enum class RowFormat : uint8_t { kAsComputed, kInt8, kK8V4, kFp8 };
const char* row_format_name(RowFormat format);  ///< "auto", "int8", "k8v4", "fp8"
/// Errors: kInvalidArgument naming the known ones.
Result<RowFormat> parse_row_format(std::string_view name);

/// Bytes of one page of rows at rest, K and V. Requires: not kAsComputed.
int64_t quant_page_bytes(RowFormat format, int page_rows, int head_dim);
/// Errors: kInvalidArgument where rows of that size cannot be kept so.
Status check_row_format(RowFormat format, int head_dim);

/// What codes rows: threads on the host, or a card's stream. Engine thread only.
struct RowCoder {
  /// The constant part of K, [heads of all layers][head_dim] in the pool's memory; null: none.
  const float* key_bias = nullptr;
  kernels::RopeView rope;  ///< tables in the pool's memory that cover every row; of key_bias
  kernels::Context* ctx = nullptr;  ///< for pages on the host
  Stream stream =
      nullptr;  ///< for pages on a card: behind all that was put there, before what comes
  /// Page ids on their way to a card: those of the next document go up, on a stream of their own,
  /// while this one's rows are coded.
  struct Ids {
    Buffer pinned, card;
    CardEvent sent, read;  ///< the copy is done; what reads them is done
  };
  Ids ids[2] = {};
  int next_ids = 0;
  Stream copies = nullptr;
};

class QuantRows {
 public:
  /// Requires: `rows` are [0, n) with n > 0 in `pool`, all heads of all layers. On a card the rows
  /// are read in the stream's order: their pages may be given back at once.
  /// Errors: kInvalidArgument for a format that these rows cannot have; kExhausted without memory.
  static Result<std::shared_ptr<const QuantRows>> quantise(const PagePool& pool,
                                                           const FrameRows& rows, RowFormat format,
                                                           RowCoder& coder);
  /// The rows in pages of their own. Requires: pool and coder are like those they were made with.
  /// Errors: kExhausted from the pool.
  Result<std::shared_ptr<const FrameRows>> expand(PagePool& pool, RowCoder& coder) const;

  int32_t num_rows() const { return num_rows_; }
  /// Pages that expand() takes.
  int64_t num_pages() const { return num_heads_ * pages_per_head_; }
  int64_t num_bytes() const { return blocks_.num_bytes(); }

 private:
  explicit QuantRows(RowFormat format) : format_(format) {}
  /// Both halves, K and V, of every page: encodes pages to blocks, or decodes.
  Status code(bool encode, const PagePool& pool, const FrameRows& rows, RowCoder& coder) const;
  Status code_on_host(bool encode, const PagePool& pool, const FrameRows& rows,
                      RowCoder& coder) const;
  Status code_on_card(bool encode, const PagePool& pool, const FrameRows& rows,
                      RowCoder& coder) const;

  RowFormat format_;
  int32_t num_rows_ = 0;
  int64_t num_heads_ = 0, pages_per_head_ = 0;
  Buffer blocks_;  ///< where the pool's pages lie. [head][page]: a block of K, a block of V
};

}  // namespace rk::kv
