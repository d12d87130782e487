#include <algorithm>
#include <cstring>

#include "kernels/gemm/gemm_cuda_kernels.h"
#include "kernels/gemm/weight_upload.h"

namespace rk::kernels {
namespace {

constexpr int64_t kStagingBytes = int64_t{8} << 20;

}  // namespace

CudaWeightForm packed_form(DType dtype, CudaWeightForm wanted) {
  if (!is_packed(wanted)) return wanted;
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
      return wanted;
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kQ5_K:
    case DType::kQ6_K:
      return CudaWeightForm::kInt8G32;
    default:
      return CudaWeightForm::kBf16;
  }
}

Status allocate(CardWeight& w, WeightPiece& piece, Stream stream) {
  const int64_t bytes = weight_bytes(piece.form, piece.n, piece.k);
  RK_TRY(Buffer data, Buffer::allocate(std::max<int64_t>(bytes, 16), Memory::kCard));
  piece.data = data.data();
  if (is_packed(piece.form)) RK_RETURN_IF_ERROR(zero_on_card(piece.data, bytes, stream));
  w.storage.push_back(std::move(data));
  if (!is_fp8(piece.form)) return {};
  int64_t scales = piece.n + 1;
  if (piece.form == CudaWeightForm::kFp8Blocks) {
    piece.block_rows = piece.block_columns = kFp8Block;
    piece.scale_stride = fp8_scale_stride(piece.k);
    scales = up_to(piece.n, kFp8Block) * piece.scale_stride;
  }
  RK_TRY(Buffer scale, Buffer::allocate(scales * 4, Memory::kCard));
  piece.scale = scale.as<float>();
  w.storage.push_back(std::move(scale));
  return {};
}

Result<std::unique_ptr<CardWeight>> WeightUpload::upload(std::span<const View> parts,
                                                         CudaWeightForm form) {
  RK_TRY(auto weight, lay_out(parts, form));
  RK_RETURN_IF_ERROR(make_staging());
  int64_t slices = 0, row = 0;
  for (const View& part : parts) {
    RK_TRY(slices, upload_part(*weight, part, row, slices));
    row += part.dim[0];
  }
  RK_RETURN_IF_ERROR(sync_stream(stream_));
  return weight;
}

Result<std::unique_ptr<CardWeight>> WeightUpload::upload_fp8(std::span<const Fp8Matrix> parts,
                                                             const Fp8Products& products) {
  if (parts.empty()) return invalid_argument("gemm: a weight of no parts");
  const int64_t k = parts[0].k();
  int64_t n = 0;
  for (const Fp8Matrix& part : parts) {
    if (part.k() != k) return invalid_argument("gemm: parts of ", k, " and ", part.k(), " columns");
    n += part.n();
  }
  RK_RETURN_IF_ERROR(make_staging());
  auto weight = std::make_unique<CardWeight>(n, k, products.form_of(parts));
  RK_RETURN_IF_ERROR(is_fp8(weight->form()) ? upload_pieces(parts, products, *weight)
                                            : upload_expanded(parts, *weight));
  RK_RETURN_IF_ERROR(sync_stream(stream_));
  return weight;
}

Status WeightUpload::upload_pieces(std::span<const Fp8Matrix> parts, const Fp8Products& products,
                                   CardWeight& weight) {
  const bool blocks = weight.form() == CudaWeightForm::kFp8Blocks;
  int64_t slices = 0, row = 0;
  for (size_t i = 0; i < parts.size();) {
    const size_t first = i;
    WeightPiece piece{.form = weight.form(), .row_begin = row, .k = weight.k()};
    std::vector<float> scales;
    do {
      const Fp8Scales more = fp8_scales(parts[i], weight.form());
      scales.insert(scales.end(), more.values.begin(), more.values.end());
      piece.n += parts[i++].n();
    } while (i < parts.size() && (blocks ? piece.n % kFp8Block == 0 : products.has_row_scales()));
    RK_RETURN_IF_ERROR(allocate(weight, piece, stream_));
    weight.pieces.push_back(piece);
    RK_RETURN_IF_ERROR(copy_values(piece.scale, scales));
    for (const Fp8Matrix& part : parts.subspan(first, i - first)) {
      RK_TRY(slices, upload_part(weight, part.codes, row, slices));
      row += part.n();
    }
  }
  return {};
}

Status WeightUpload::upload_expanded(std::span<const Fp8Matrix> parts, CardWeight& weight) {
  WeightPiece all{.n = weight.n(), .k = weight.k()};
  RK_RETURN_IF_ERROR(allocate(weight, all, stream_));
  int64_t slices = 0, row = 0;
  for (const Fp8Matrix& part : parts) {
    RK_TRY(const Buffer codes, Buffer::allocate(part.codes.num_bytes(), Memory::kCard));
    const auto num_scales = static_cast<int64_t>(part.scales.size());
    RK_TRY(const Buffer scales, Buffer::allocate(num_scales * 4, Memory::kCard));
    RK_RETURN_IF_ERROR(copy_values(scales.as<float>(), part.scales));
    const WeightPiece piece{.form = CudaWeightForm::kFp8,
                            .row_begin = row,
                            .n = part.n(),
                            .k = all.k,
                            .data = codes.data(),
                            .scale = scales.as<float>(),
                            .block_rows = part.block_rows,
                            .block_columns = part.block_columns,
                            .scale_stride = part.scale_columns()};
    weight.pieces = {piece};
    RK_TRY(slices, upload_part(weight, part.codes, row, slices));
    void* to = static_cast<uint16_t*>(all.data) + row * all.k;
    RK_RETURN_IF_ERROR(expand_rows(piece, to, stream_));
    RK_RETURN_IF_ERROR(sync_stream(stream_));  // codes and scales go now
    row += part.n();
  }
  weight.pieces = {all};
  return {};
}

// The pieces of a weight with memory for them; fp8 begins as bf16.
Result<std::unique_ptr<CardWeight>> WeightUpload::lay_out(std::span<const View> parts,
                                                          CudaWeightForm form) {
  const int64_t k = parts.empty() ? 0 : parts[0].dim[1];
  int64_t n = 0;
  std::vector<WeightPiece> pieces;
  for (const View& part : parts) {
    const int block = dtype_info(part.dtype).block_elems;
    if (part.rank != 2 || part.dim[1] != k || k % block != 0 || part.dim[0] <= 0 || k <= 0 ||
        part.stride[0] != k || part.dtype == DType::kE4m3) {
      return invalid_argument("gemm: weight parts must be dense [N, ", k,
                              "] in whole blocks, one is ", part.describe());
    }
    const auto lies = packed_form(part.dtype, is_fp8(form) ? CudaWeightForm::kBf16 : form);
    const bool sixteens = lies == CudaWeightForm::kInt8G32 && part.dtype == DType::kQ6_K;
    if (pieces.empty() || pieces.back().form != lies || pieces.back().sixteens != sixteens) {
      pieces.push_back({.form = lies, .sixteens = sixteens, .row_begin = n, .k = k});
    }
    pieces.back().n += part.dim[0];
    n += part.dim[0];
  }
  if (pieces.empty()) return invalid_argument("gemm: a weight of no parts");
  auto weight = std::make_unique<CardWeight>(n, k, form);
  for (WeightPiece& piece : pieces) {
    RK_RETURN_IF_ERROR(allocate(*weight, piece, stream_));
    weight->pieces.push_back(piece);
  }
  return weight;
}

Result<int64_t> WeightUpload::upload_part(const CardWeight& weight, const View& part, int64_t row,
                                          int64_t slices) {
  const int64_t row_bytes = dtype_bytes(part.dtype, part.dim[1]);
  const int64_t most = kStagingBytes / row_bytes;
  if (most == 0) {
    return invalid_argument("gemm: a row of ", row_bytes, " bytes, at most ", kStagingBytes,
                            " can be uploaded");
  }
  const WeightPiece* piece = &weight.pieces[0];
  for (const WeightPiece& p : weight.pieces) {
    if (p.row_begin <= row) piece = &p;
  }
  for (int64_t begin = 0; begin < part.dim[0]; begin += most, ++slices) {
    const int64_t rows = std::min(most, part.dim[0] - begin), which = slices % 2;
    // The copy out of this buffer two slices ago is done once the stream is empty.
    if (slices >= 2 && which == 0) RK_RETURN_IF_ERROR(sync_stream(stream_));
    std::memcpy(staging_[which].data(), part.ptr<char>() + begin * row_bytes,
                static_cast<size_t>(rows * row_bytes));
    if (part.dtype == DType::kE4m3) {  // as it is
      RK_RETURN_IF_ERROR(copy_to_card(
          static_cast<char*>(piece->data) + (row + begin - piece->row_begin) * piece->k,
          staging_[which].data(), rows * row_bytes, stream_));
      continue;
    }
    RK_RETURN_IF_ERROR(
        copy_to_card(raw_[which].data(), staging_[which].data(), rows * row_bytes, stream_));
    RK_RETURN_IF_ERROR(pack_rows(*piece, row + begin - piece->row_begin, part.dtype,
                                 raw_[which].data(), rows, stream_));
  }
  return slices;
}

Status WeightUpload::make_staging() {
  for (int i = 0; i < 2; ++i) {  // kept for the next weight: pinning costs milliseconds
    if (staging_[i].data() != nullptr) continue;
    RK_TRY(staging_[i], Buffer::allocate(kStagingBytes, Memory::kPinned));
    RK_TRY(raw_[i], Buffer::allocate(kStagingBytes, Memory::kCard));
  }
  return {};
}

// Waits: `values` are not pinned.
Status WeightUpload::copy_values(float* card, const std::vector<float>& values) {
  RK_RETURN_IF_ERROR(
      copy_to_card(card, values.data(), static_cast<int64_t>(values.size() * 4), stream_));
  return sync_stream(stream_);
}

}  // namespace rk::kernels
