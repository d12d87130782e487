#include "kv/quant_rows.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/row_code/row_code_cuda.h"

namespace rk::kv {
namespace {

constexpr const char* kNames[] = {"auto", "int8", "k8v4", "fp8"};

struct Codes {
  kernels::RowCode k, v;
};

Codes codes_of(RowFormat format) {
  using kernels::RowCode;
  switch (format) {
    case RowFormat::kInt8:
      return {RowCode::kInt8, RowCode::kInt8};
    case RowFormat::kK8V4:
      return {RowCode::kInt8, RowCode::kInt4};
    case RowFormat::kFp8:
      return {RowCode::kFp8, RowCode::kFp8};
    case RowFormat::kAsComputed:
      break;
  }
  RK_CHECK(!"rows as computed have no codes");
  return {};
}

// Room for the ids of a document that no copy or kernel uses any more.
Result<RowCoder::Ids*> free_ids(RowCoder& coder, int64_t bytes) {
  if (coder.copies == nullptr) {
    RK_TRY(coder.copies, create_stream());
  }
  RowCoder::Ids& ids = coder.ids[coder.next_ids];
  coder.next_ids = 1 - coder.next_ids;
  if (ids.card.num_bytes() == 0) {
    RK_TRY(ids.sent, create_event());
    RK_TRY(ids.read, create_event());
  }
  RK_RETURN_IF_ERROR(sync_event(ids.read));
  if (ids.card.num_bytes() < bytes) {
    RK_TRY(ids.pinned, Buffer::allocate(2 * bytes, Memory::kPinned));
    RK_TRY(ids.card, Buffer::allocate(2 * bytes, Memory::kCard));
  }
  return &ids;
}

}  // namespace

const char* row_format_name(RowFormat format) { return kNames[static_cast<size_t>(format)]; }

Result<RowFormat> parse_row_format(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<RowFormat>(i);
    known += cat(i == 0 ? "" : ", ", kNames[i]);
  }
  return invalid_argument("format of stored rows: '", name, "' is none of ", known);
}

int64_t quant_page_bytes(RowFormat format, int page_rows, int head_dim) {
  const Codes codes = codes_of(format);
  return kernels::row_block_bytes(codes.k, page_rows, head_dim) +
         kernels::row_block_bytes(codes.v, page_rows, head_dim);
}

Status check_row_format(RowFormat format, int head_dim) {
  if (format == RowFormat::kAsComputed) return {};
  const int multiple = format == RowFormat::kK8V4 ? kernels::kRowCodeGroup : 1;
  if (head_dim % multiple == 0 && head_dim <= kernels::kRowCodeMaxDim) return {};
  return invalid_argument("stored rows: ", row_format_name(format),
                          " takes heads of a multiple of ", multiple, " up to ",
                          kernels::kRowCodeMaxDim, " elements, the model's have ", head_dim);
}

Result<std::shared_ptr<const QuantRows>> QuantRows::quantise(const PagePool& pool,
                                                             const FrameRows& rows,
                                                             RowFormat format, RowCoder& coder) {
  RK_CHECK(rows.row_begin() == 0 && rows.num_rows() > 0);
  RK_RETURN_IF_ERROR(check_row_format(format, pool.head_dim()));
  std::shared_ptr<QuantRows> out(new QuantRows(format));
  out->num_rows_ = rows.num_rows();
  out->num_heads_ = rows.num_heads();
  out->pages_per_head_ = static_cast<int64_t>(rows.pages(0).size());
  const int64_t page = quant_page_bytes(format, pool.page_rows(), pool.head_dim());
  RK_TRY(out->blocks_, Buffer::allocate(out->num_pages() * page, pool.memory()));
  RK_RETURN_IF_ERROR(out->code(true, pool, rows, coder));
  return std::shared_ptr<const QuantRows>(std::move(out));
}

Result<std::shared_ptr<const FrameRows>> QuantRows::expand(PagePool& pool, RowCoder& coder) const {
  std::vector<PageId> got;
  RK_RETURN_IF_ERROR(pool.allocate(num_pages(), got));
  std::vector<std::vector<PageId>> pages;
  for (int64_t h = 0; h < num_heads_; ++h) {
    const auto begin = got.begin() + h * pages_per_head_;
    pages.emplace_back(begin, begin + pages_per_head_);
  }
  // Gives the pages back on errors.
  auto rows = std::make_shared<const FrameRows>(pool, 0, num_rows_, std::move(pages));
  RK_RETURN_IF_ERROR(code(false, pool, *rows, coder));
  return rows;
}

Status QuantRows::code(bool encode, const PagePool& pool, const FrameRows& rows,
                       RowCoder& coder) const {
  return pool.memory() == Memory::kCard ? code_on_card(encode, pool, rows, coder)
                                        : code_on_host(encode, pool, rows, coder);
}

Status QuantRows::code_on_host(bool encode, const PagePool& pool, const FrameRows& rows,
                               RowCoder& coder) const {
  const Codes codes = codes_of(format_);
  const int64_t k_bytes = kernels::row_block_bytes(codes.k, pool.page_rows(), pool.head_dim());
  const int64_t bytes = quant_page_bytes(format_, pool.page_rows(), pool.head_dim());
  std::vector<kernels::RowCodePage> k, v;
  uint8_t* block = blocks_.as<uint8_t>();
  for (int64_t h = 0; h < num_heads_; ++h) {
    const float* constant =
        coder.key_bias == nullptr ? nullptr : coder.key_bias + h * pool.head_dim();
    for (int64_t p = 0; p < pages_per_head_; ++p, block += bytes) {
      const PageId page = rows.pages(static_cast<int>(h))[static_cast<size_t>(p)];
      const auto first = static_cast<int32_t>(p * pool.page_rows());
      const int32_t num = std::min(pool.page_rows(), num_rows_ - first);
      k.push_back({pool.k(page).data, block, constant, first, num});
      v.push_back({pool.v(page).data, block + k_bytes, nullptr, first, num});
    }
  }
  for (const bool is_k : {true, false}) {
    const kernels::RowCodeArgs args{is_k ? codes.k : codes.v,
                                    pool.dtype(),
                                    pool.head_dim(),
                                    pool.page_rows(),
                                    is_k ? k : v,
                                    coder.key_bias == nullptr ? kernels::RopeView() : coder.rope};
    RK_RETURN_IF_ERROR(encode ? kernels::encode_rows(args, *coder.ctx)
                              : kernels::decode_rows(args, *coder.ctx));
  }
  return {};
}

Status QuantRows::code_on_card(bool encode, const PagePool& pool, const FrameRows& rows,
                               RowCoder& coder) const {
  const Codes codes = codes_of(format_);
  const int64_t id_bytes = num_pages() * static_cast<int64_t>(sizeof(PageId));
  RK_TRY(RowCoder::Ids * ids, free_ids(coder, id_bytes));
  auto* to = ids->pinned.as<PageId>();
  for (int h = 0; h < rows.num_heads(); ++h) to = std::ranges::copy(rows.pages(h), to).out;
  RK_RETURN_IF_ERROR(copy_to_card(ids->card.data(), ids->pinned.data(), id_bytes, coder.copies));
  RK_RETURN_IF_ERROR(note_event(ids->sent, coder.copies));
  RK_RETURN_IF_ERROR(wait_event(ids->sent, coder.stream));
  kernels::RowCodeCudaArgs args;
  args.k = codes.k;
  args.v = codes.v;
  args.k_pages = pool.k_pages();
  args.v_pages = pool.v_pages();
  args.pages = ids->card.as<PageId>();
  args.blocks = blocks_.as<uint8_t>();
  args.num_heads = num_heads_;
  args.pages_per_head = pages_per_head_;
  args.num_rows = num_rows_;
  args.key_constant = coder.key_bias;
  args.rope = coder.rope;
  RK_RETURN_IF_ERROR(encode ? kernels::encode_rows_cuda(args, coder.stream)
                            : kernels::decode_rows_cuda(args, coder.stream));
  return note_event(ids->read, coder.stream);
}

}  // namespace rk::kv
