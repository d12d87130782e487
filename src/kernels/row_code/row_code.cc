#include "kernels/row_code/row_code.h"

#include <algorithm>
#include <cstring>

#include "kernels/row_code/row_code_rows.h"

namespace rk::kernels {
namespace {

bool any(const RowCodeArgs&) { return true; }
bool whole_vectors(const RowCodeArgs& args) { return args.dim % 16 == 0; }

CodeKind code_kind(RowCode code) {
  return code == RowCode::kInt8   ? CodeKind::kInt8
         : code == RowCode::kInt4 ? CodeKind::kInt4
                                  : CodeKind::kFp8;
}
CodedRow coded_row(DType dtype) {
  return dtype == DType::kF32   ? CodedRow::kF32
         : dtype == DType::kF16 ? CodedRow::kF16
                                : CodedRow::kBf16;
}

int64_t num_params(RowCode code, int64_t dim) {
  return code == RowCode::kInt4 ? 2 * (dim / kRowCodeGroup) : 1;
}
int64_t code_bytes(RowCode code, int64_t dim) { return code == RowCode::kInt4 ? dim / 2 : dim; }

template <CodeRowFn kRow, TurnFn kTurn>
void page_rows(const RowCodeArgs& args, const RowCodePage& page) {
  const int64_t params = num_params(args.code, args.dim), codes = code_bytes(args.code, args.dim);
  const int64_t row_bytes = dtype_bytes(args.dtype, args.dim);
  auto* param = reinterpret_cast<uint16_t*>(page.block);
  uint8_t* code = page.block + 2 * params * args.page_rows;
  auto* row = static_cast<char*>(page.rows);
  const int64_t half = args.rope.rotary_dim / 2;
  float turned[kRowCodeMaxDim];
  for (int64_t r = 0; r < page.num_rows; ++r) {
    const float* constant = page.constant;
    if (constant != nullptr && half > 0) {
      const int64_t at = (page.first_row + r) * half;
      kTurn(constant, args.rope.cos + at, args.rope.sin + at, turned, args.dim,
            args.rope.rotary_dim, args.rope.pairs == RopePairs::kInterleaved);
      constant = turned;
    }
    kRow(code_kind(args.code), coded_row(args.dtype), row + r * row_bytes, param + r * params,
         code + r * codes, constant, args.dim);
  }
}

template <CodeRowFn kRow, TurnFn kTurn, bool kEncode>
Status by_pages(const RowCodeArgs& args, Context& ctx) {
  const int64_t page_elems = args.page_rows * args.dim;
  const int64_t grain = std::max<int64_t>(1, 32768 / page_elems);
  parallel_for(ctx, static_cast<int64_t>(args.pages.size()), grain,
               [&args](int64_t begin, int64_t end, int) {
                 for (int64_t i = begin; i < end; ++i) {
                   const RowCodePage& page = args.pages[static_cast<size_t>(i)];
                   if (kEncode && page.num_rows < args.page_rows) {
                     const int64_t size = row_block_bytes(args.code, args.page_rows, args.dim);
                     std::memset(page.block, 0, static_cast<size_t>(size));
                   }
                   page_rows<kRow, kTurn>(args, page);
                 }
               });
  return {};
}

constexpr Variant<RowCodeArgs> kEncoders[] = {
    {"avx512", on_avx512, whole_vectors, by_pages<encode_row_avx512, turn_constant_avx512, true>},
    {"avx2", on_avx2, whole_vectors, by_pages<encode_row_avx2, turn_constant_avx2, true>},
    {"ref", on_any, any, by_pages<encode_row_ref, turn_constant_ref, true>},
};
constexpr Variant<RowCodeArgs> kDecoders[] = {
    {"avx512", on_avx512, whole_vectors, by_pages<decode_row_avx512, turn_constant_avx512, false>},
    {"avx2", on_avx2, whole_vectors, by_pages<decode_row_avx2, turn_constant_avx2, false>},
    {"ref", on_any, any, by_pages<decode_row_ref, turn_constant_ref, false>},
};

Status check(const RowCodeArgs& a) {
  if (a.dtype != DType::kF16 && a.dtype != DType::kBf16 && a.dtype != DType::kF32) {
    return invalid_argument("row_code: rows of ", dtype_name(a.dtype), "; f16, bf16, f32 wanted");
  }
  const int64_t multiple = a.code == RowCode::kInt4 ? kRowCodeGroup : 1;
  if (a.dim < 1 || a.dim > kRowCodeMaxDim || a.dim % multiple != 0) {
    return invalid_argument("row_code: rows of ", a.dim, " elements; a multiple of ", multiple,
                            " up to ", kRowCodeMaxDim, " wanted");
  }
  if (a.rope.rotary_dim > a.dim) {
    return invalid_argument("row_code: ", a.rope.rotary_dim, " of ", a.dim, " elements turn");
  }
  for (const RowCodePage& page : a.pages) {
    if (page.rows == nullptr || page.block == nullptr || page.num_rows < 0 ||
        page.num_rows > a.page_rows) {
      return invalid_argument("row_code: a page of ", page.num_rows, " rows, ", a.page_rows,
                              " fit, or without memory");
    }
    if (page.constant != nullptr && a.rope.rotary_dim > 0 &&
        (page.first_row < 0 || page.first_row + page.num_rows > a.rope.num_positions)) {
      return invalid_argument("row_code: rows [", page.first_row, ", ",
                              page.first_row + page.num_rows, ") of a table of ",
                              a.rope.num_positions);
    }
  }
  return {};
}

}  // namespace

int64_t row_block_bytes(RowCode code, int64_t num_rows, int64_t dim) {
  return num_rows * (2 * num_params(code, dim) + code_bytes(code, dim));
}

Status encode_rows(const RowCodeArgs& args, Context& ctx) {
  RK_RETURN_IF_ERROR(check(args));
  return dispatch("row_code", kEncoders, args, ctx);
}

Status decode_rows(const RowCodeArgs& args, Context& ctx) {
  RK_RETURN_IF_ERROR(check(args));
  return dispatch("row_code", kDecoders, args, ctx);
}

}  // namespace rk::kernels
