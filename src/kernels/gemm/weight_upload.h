// How weights get onto the card. Private to this folder. Engine thread only.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/gemm/fp8_products.h"
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/gemm/weight_layout.h"
#include "tensor/buffer.h"

namespace rk::kernels {

/// A weight as pieces, one below the other.
class CardWeight final : public CudaWeight {
 public:
  CardWeight(int64_t n, int64_t k, CudaWeightForm form) : CudaWeight(n, k), form_(form) {}
  CudaWeightForm form() const override { return form_; }
  int64_t num_bytes() const override {
    int64_t bytes = 0;
    for (const Buffer& b : storage) bytes += b.num_bytes();
    return bytes;
  }
  bool all(CudaWeightForm form) const { return pieces.size() == 1 && pieces[0].form == form; }

  std::vector<WeightPiece> pieces;
  std::vector<Buffer> storage;

 private:
  CudaWeightForm form_;
};

/// What a part becomes where `wanted` is asked for.
CudaWeightForm packed_form(DType dtype, CudaWeightForm wanted);

/// Gives the piece memory for its codes and scales, which the weight holds.
Status allocate(CardWeight& w, WeightPiece& piece, Stream stream);

class WeightUpload {
 public:
  explicit WeightUpload(Stream stream) : stream_(stream) {}
  /// As GemmCuda's; what is to be fp8 comes as bf16.
  Result<std::unique_ptr<CardWeight>> upload(std::span<const View> parts, CudaWeightForm form);
  Result<std::unique_ptr<CardWeight>> upload_fp8(std::span<const Fp8Matrix> parts,
                                                 const Fp8Products& products);

 private:
  Result<std::unique_ptr<CardWeight>> lay_out(std::span<const View> parts, CudaWeightForm form);
  /// Rows travel through two pinned buffers in turn. Returns the slices so far: which buffer is
  /// next.
  Result<int64_t> upload_part(const CardWeight& weight, const View& part, int64_t row,
                              int64_t slices);
  /// Parts that share one grid of scales become one piece.
  Status upload_pieces(std::span<const Fp8Matrix> parts, const Fp8Products& products,
                       CardWeight& weight);
  /// Codes and scales go up for as long as it takes to make bf16 rows of them.
  Status upload_expanded(std::span<const Fp8Matrix> parts, CardWeight& weight);
  Status make_staging();
  Status copy_values(float* card, const std::vector<float>& values);

  Stream stream_;
  Buffer staging_[2], raw_[2];
};

}  // namespace rk::kernels
