// Weights of one or more pieces, each in one form, and which path a product takes: few rows stream
// the weights through our own kernel, many rows go to cuBLASLt, quantised weights expanded to bf16
// in a scratch first.
#include "kernels/gemm/gemm_cuda.h"

#include <algorithm>
#include <vector>

#include "kernels/gemm/cublas_lt.h"
#include "kernels/gemm/fp8_products.h"
#include "kernels/gemm/gemm_cuda_kernels.h"
#include "kernels/gemm/weight_upload.h"
#include "kernels/layer/layer_cuda.h"
#include "tensor/buffer.h"

namespace rk::kernels {
namespace {

class Gemm final : public GemmCuda {
 public:
  Gemm(std::unique_ptr<CublasLt> lt, Stream stream)
      : lt_(std::move(lt)), stream_(stream), upload_(stream) {}

  Status start(const Options& options) {
    num_sms_ = num_multiprocessors();
    hopper_rows_ = options.hopper_rows;
    hopper_packed_from_ = options.hopper_packed_from;
    few_bf16_rows_ = options.few_bf16_rows;
    few_fp8_rows_ = options.few_fp8_rows;
    few_block_rows_ = options.few_block_rows;
    few_uneven_rows_ = options.few_uneven_rows;
    few_quant_rows_ = options.few_quant_rows;
    RK_TRY(counters_, Buffer::allocate(kFewRowsCounters * 4, Memory::kCard));
    RK_RETURN_IF_ERROR(zero_on_card(counters_.data(), kFewRowsCounters * 4, stream_));
    RK_TRY(parts_, Buffer::allocate(few_rows_parts_bytes(num_sms_), Memory::kCard));
    RK_TRY(bias_, Buffer::allocate(kMaxBias * 2, Memory::kCard));
    RK_TRY(expanded_, Buffer::allocate(options.expand_elements * 2, Memory::kCard));
    RK_TRY(fp8_, Fp8Products::create(*lt_, options.fp8_elements, stream_));
    return {};
  }

  Result<std::unique_ptr<CudaWeight>> upload(std::span<const View> parts,
                                             CudaWeightForm form) override {
    RK_TRY(auto weight, upload_.upload(parts, form));
    if (is_fp8(form)) return to_fp8(std::move(weight), form);
    return std::unique_ptr<CudaWeight>(std::move(weight));
  }

  Result<std::unique_ptr<CudaWeight>> upload_fp8(std::span<const Fp8Matrix> parts) override {
    RK_TRY(auto weight, upload_.upload_fp8(parts, fp8_));
    return std::unique_ptr<CudaWeight>(std::move(weight));
  }

  Result<std::unique_ptr<CudaWeight>> random(int64_t n, int64_t k, CudaWeightForm form,
                                             uint64_t seed, float deviation) override {
    const bool packed = is_packed(form);
    if (n <= 0 || k <= 0 || (packed && k % 32 != 0)) {
      return invalid_argument("gemm: random weight [", n, ", ", k, "], K must be a multiple of 32");
    }
    auto weight = std::make_unique<CardWeight>(n, k, packed ? form : CudaWeightForm::kBf16);
    WeightPiece piece{.form = weight->form(), .n = n, .k = k};
    RK_RETURN_IF_ERROR(allocate(*weight, piece, stream_));
    weight->pieces.push_back(piece);
    RK_RETURN_IF_ERROR(packed ? random_codes(piece, seed, deviation, stream_)
                              : fill_normal_cuda(View(piece.data, DType::kBf16, {n, k}), seed,
                                                 deviation, stream_));
    if (is_fp8(form)) return to_fp8(std::move(weight), form);
    RK_RETURN_IF_ERROR(sync_stream(stream_));  // kernels read weights without waiting
    return std::unique_ptr<CudaWeight>(std::move(weight));
  }

  CudaWeightForm compact_form(DType dtype) const override {
    return packed_form(dtype, CudaWeightForm::kInt4G32);
  }

  Status prepare(const CudaWeight& w, int64_t num_rows, DType y_dtype, bool bias,
                 bool accumulate) override {
    const auto& weight = static_cast<const CardWeight&>(w);
    if (few(weight, num_rows) || one(weight, num_rows, false)) return {};
    const int64_t y_bytes = num_rows * w.n() * dtype_info(y_dtype).block_bytes;
    Result<Buffer> x = Buffer::allocate(num_rows * w.k() * 2, Memory::kCard);
    Result<Buffer> y = Buffer::allocate(y_bytes, Memory::kCard);
    Result<Buffer> b = Buffer::allocate(w.n() * 4, Memory::kCard);
    if (!x.ok() || !y.ok() || !b.ok()) return {};
    const View xs(x->data(), DType::kBf16, {num_rows, w.k()});
    RK_RETURN_IF_ERROR(fill_normal_cuda(xs, 1, 1.0F, stream_));
    RK_RETURN_IF_ERROR(zero_on_card(y->data(), y_bytes, stream_));
    RK_RETURN_IF_ERROR(zero_on_card(b->data(), w.n() * 4, stream_));
    GemmCudaArgs args{.x = xs, .w = &w, .y = View(y->data(), y_dtype, {num_rows, w.n()})};
    if (bias) args.bias = View(b->data(), DType::kF32, {w.n()});
    args.accumulate = accumulate;
    measuring_ = true;
    const Status status = run(args);
    measuring_ = false;
    RK_RETURN_IF_ERROR(sync_stream(stream_));
    return status;
  }

  Status run(const GemmCudaArgs& a) override {
    RK_RETURN_IF_ERROR(check(a));
    const auto& w = static_cast<const CardWeight&>(*a.w);
    const int64_t m = a.x.dim[0];
    if (m == 0 || w.n() == 0) return {};
    if (one(w, m, false)) {
      return one_row(w.pieces[0],
                     {.x = a.x.data,
                      .bias = a.bias.ptr<float>(),
                      .y = a.y.data,
                      .y_f32 = a.y.dtype == DType::kF32,
                      .accumulate = a.accumulate,
                      .num_sms = num_sms_},
                     stream_);
    }
    if (few(w, m)) return run_few(a, w);
    if (is_fp8(w.pieces[0].form)) return run_fp8(a, w);
    const void* data = w.pieces[0].data;
    if (!w.all(CudaWeightForm::kBf16)) {
      if (w.n() * w.k() * 2 > expanded_.num_bytes()) {
        return exhausted("gemm: expanding [", w.n(), ", ", w.k(), "] wants ", w.n() * w.k(),
                         " elements of scratch, there are ", expanded_.num_bytes() / 2);
      }
      data = expanded_.data();
      for (const WeightPiece& p : w.pieces) {
        RK_RETURN_IF_ERROR(expand_rows(p, expanded_.as<uint16_t>() + p.row_begin * p.k, stream_));
      }
    }
    return run_lt(a, shape_of(a), {.x = a.x.data, .w = data, .y = a.y.data});
  }

  Status run_normed(const NormedGemmArgs& a) override {
    const auto& w = static_cast<const CardWeight&>(*a.w);
    const int64_t m = a.x.dim[0], n = a.gated ? w.n() / 2 : w.n();
    if (a.x.rank != 2 || a.x.dtype != DType::kF32 || a.x.dim[1] != w.k() || a.y.rank != 2 ||
        a.y.dim[0] != m || a.y.dim[1] != n || (a.gated && (w.n() % 2 != 0 || !a.bias.empty()))) {
      return invalid_argument("gemm: normed product of x f32 [M, ", w.k(), "] into y [M, ", n,
                              "] wanted, are ", a.x.describe(), " and ", a.y.describe());
    }
    if (one(w, m, true)) {
      return one_row(w.pieces[0],
                     {.x = a.x.data,
                      .norm = a.norm.ptr<float>(),
                      .eps = a.eps,
                      .bias = a.bias.ptr<float>(),
                      .y = a.y.data,
                      .y_f32 = a.y.dtype == DType::kF32,
                      .gated = a.gated,
                      .num_sms = num_sms_},
                     stream_);
    }
    const bool by_codes =
        w.pieces.size() == 1 && m <= kFewRows && few(w, m) && codes(w.pieces[0], m, a.gated);
    if (by_codes && m <= kNormedCodeRows) return run_codes(a, w.pieces[0], true);
    RK_RETURN_IF_ERROR(rms_norm_cuda({a.x, a.norm, a.normed, a.eps}, stream_));
    if (by_codes) return run_codes(a, w.pieces[0], false);
    RK_RETURN_IF_ERROR(run({a.normed, a.w, a.bias, a.gated ? a.gate_up : a.y, false}));
    return a.gated ? swiglu_cuda(a.gate_up, a.y, stream_) : Status();
  }

  Status gather_rows(const CudaWeight& w, const int32_t* ids, int64_t num,
                     const View& out) override {
    if (out.rank != 2 || out.dtype != DType::kF32 || out.dim[0] != num || out.dim[1] != w.k() ||
        out.stride[1] != 1) {
      return invalid_argument("gemm: gather_rows wants f32 [", num, ", ", w.k(), "], is ",
                              out.describe());
    }
    for (const WeightPiece& piece : static_cast<const CardWeight&>(w).pieces) {
      RK_RETURN_IF_ERROR(
          gather_piece(piece, w.n(), ids, num, out.ptr<float>(), out.stride[0], stream_));
    }
    return {};
  }

 private:
  static constexpr int64_t kMaxBias = int64_t{1} << 20, kMaxRows = int64_t{1} << 20;

  Result<std::unique_ptr<CudaWeight>> to_fp8(std::unique_ptr<CardWeight> bf16,
                                             CudaWeightForm form) {
    auto weight = std::make_unique<CardWeight>(bf16->n(), bf16->k(), form);
    WeightPiece piece{.form = form, .n = bf16->n(), .k = bf16->k()};
    if (piece.k % 16 != 0 || piece.n % 16 != 0) {
      return invalid_argument("gemm: fp8 wants N and K in multiples of 16, is [", piece.n, ", ",
                              piece.k, "]");
    }
    RK_RETURN_IF_ERROR(allocate(*weight, piece, stream_));
    const void* rows = bf16->pieces[0].data;
    RK_RETURN_IF_ERROR(form == CudaWeightForm::kFp8Blocks
                           ? weights_to_fp8_blocks(rows, piece, stream_)
                           : quantize_fp8(rows, piece.n, piece.k, piece.data, piece.scale,
                                          !fp8_.has_row_scales(), stream_));
    weight->pieces.push_back(piece);
    RK_RETURN_IF_ERROR(sync_stream(stream_));  // the bf16 rows go now
    return std::unique_ptr<CudaWeight>(std::move(weight));
  }

  static Status check(const GemmCudaArgs& a) {
    if (a.w == nullptr || a.x.rank != 2 || a.x.dtype != DType::kBf16 || a.x.dim[1] != a.w->k() ||
        (a.x.dim[0] > 1 && a.x.stride[0] != a.w->k()) || a.y.rank != 2 ||
        a.y.dim[0] != a.x.dim[0] || a.y.dim[1] != a.w->n() || a.y.stride[1] != 1 ||
        (a.y.dtype != DType::kBf16 && a.y.dtype != DType::kF32)) {
      return invalid_argument("gemm_cuda: x bf16 [M, K] and y bf16 or f32 [M, N] wanted for w [",
                              a.w == nullptr ? 0 : a.w->n(), ", ", a.w == nullptr ? 0 : a.w->k(),
                              "]; are ", a.x.describe(), " and ", a.y.describe());
    }
    if (a.accumulate && a.y.dtype != DType::kF32) {
      return invalid_argument("gemm_cuda: only f32 results accumulate, y is ", a.y.describe());
    }
    if (!a.bias.empty() &&
        (a.bias.dtype != DType::kF32 || a.bias.num_elements() != a.w->n() || a.w->n() > kMaxBias)) {
      return invalid_argument("gemm_cuda: bias f32 [", a.w->n(), "] wanted, is ",
                              a.bias.describe());
    }
    return a.x.dim[0] <= kMaxRows
               ? Status{}
               : invalid_argument("gemm_cuda: ", a.x.dim[0], " rows, at most ", kMaxRows);
  }

  bool one(const CardWeight& w, int64_t m, bool norm) const {
    return hopper_rows_ && m == 1 && w.pieces.size() == 1 && one_row_can(w.pieces[0], norm);
  }

  bool few(const CardWeight& w, int64_t m) const {
    const CudaWeightForm form = w.pieces[0].form;
    const bool whole = Fp8Products::lt_rows(w.pieces[0], m) == m;
    const int64_t most = w.all(CudaWeightForm::kBf16)   ? few_bf16_rows_
                         : form == CudaWeightForm::kFp8 ? few_fp8_rows_
                         : form == CudaWeightForm::kFp8Blocks
                             ? (whole ? few_block_rows_ : few_uneven_rows_)
                             : few_quant_rows_;
    return m <= most && std::all_of(w.pieces.begin(), w.pieces.end(), few_rows_can);
  }

  bool codes(const WeightPiece& piece, int64_t m, bool gated) const {
    const bool pays = hopper_packed_from_ == 0 || (piece.n * piece.k >= hopper_packed_from_ &&
                                                   (m == 1 || (m <= 4 && piece.k <= 8192)));
    return hopper_rows_ && pays && few_codes_can(piece, m, gated);
  }

  Status run_codes(const NormedGemmArgs& a, const WeightPiece& piece, bool norm) {
    return few_codes(piece,
                     {.x = norm ? a.x.data : a.normed.data,
                      .norm = norm ? a.norm.ptr<float>() : nullptr,
                      .eps = a.eps,
                      .m = a.x.dim[0],
                      .bias = a.bias.ptr<float>(),
                      .y = a.y.data,
                      .y_stride = a.y.stride[0],
                      .y_f32 = a.y.dtype == DType::kF32,
                      .gated = a.gated,
                      .parts = parts_.as<float>(),
                      .counters = counters_.as<int32_t>(),
                      .num_sms = num_sms_},
                     stream_);
  }

  Status run_few(const GemmCudaArgs& a, const CardWeight& w) {
    const bool y_f32 = a.y.dtype == DType::kF32;
    for (int64_t m = 0; m < a.x.dim[0]; m += kFewRows) {
      const FewRowsArgs args{.x = a.x.ptr<uint16_t>() + m * w.k(),
                             .m = std::min<int64_t>(kFewRows, a.x.dim[0] - m),
                             .bias = a.bias.ptr<float>(),
                             .y = a.y.ptr<char>() + m * a.y.stride[0] * (y_f32 ? 4 : 2),
                             .y_stride = a.y.stride[0],
                             .y_f32 = y_f32,
                             .accumulate = a.accumulate,
                             .parts = parts_.as<float>(),
                             .counters = counters_.as<int32_t>(),
                             .num_sms = num_sms_};
      for (const WeightPiece& p : w.pieces) {
        if (!codes(p, args.m, false)) {
          RK_RETURN_IF_ERROR(few_rows(p, args, stream_));
          continue;
        }
        RK_RETURN_IF_ERROR(few_codes(p,
                                     {.x = args.x,
                                      .m = args.m,
                                      .bias = args.bias,
                                      .y = args.y,
                                      .y_stride = args.y_stride,
                                      .y_f32 = y_f32,
                                      .accumulate = a.accumulate,
                                      .parts = args.parts,
                                      .counters = args.counters,
                                      .num_sms = num_sms_},
                                     stream_));
      }
    }
    return {};
  }

  static LtShape shape_of(const GemmCudaArgs& a) {
    return {.m = a.x.dim[0],
            .n = a.w->n(),
            .k = a.w->k(),
            .y_stride = a.y.dim[0] > 1 ? a.y.stride[0] : a.w->n(),
            .y_f32 = a.y.dtype == DType::kF32,
            .bias = !a.bias.empty(),
            .accumulate = a.accumulate};
  }

  Status run_lt(const GemmCudaArgs& a, const LtShape& shape, LtOperands operands) {
    operands.bias = a.bias.data;
    if (shape.bias && lt_bias_dtype(shape) == DType::kBf16) {
      RK_RETURN_IF_ERROR(to_bf16(a.bias.ptr<float>(), bias_.data(), shape.n, stream_));
      operands.bias = bias_.data();
    }
    return measuring_ ? lt_->prepare(shape, operands) : lt_->run(shape, operands);
  }

  // Each piece by itself, and the rows that cuBLASLt leaves over by our own kernel.
  Status run_fp8(const GemmCudaArgs& a, const CardWeight& w) {
    const int64_t m = a.x.dim[0], most = Fp8Products::lt_rows(w.pieces[0], m);
    GemmCudaArgs rows = a;
    rows.x = a.x.rows(0, most);
    rows.y = a.y.rows(0, most);
    for (const WeightPiece& p : w.pieces) {
      if (most > 0) RK_RETURN_IF_ERROR(fp8_.run(p, rows, measuring_));
    }
    if (most == m) return {};
    rows.x = a.x.rows(most, m);
    rows.y = a.y.rows(most, m);
    return run_few(rows, w);
  }

  std::unique_ptr<CublasLt> lt_;
  Stream stream_;
  int num_sms_ = 0;
  int64_t few_bf16_rows_ = 0, few_quant_rows_ = 0;
  int64_t few_fp8_rows_ = 0, few_block_rows_ = 0, few_uneven_rows_ = 0;
  int64_t hopper_packed_from_ = 0;
  bool hopper_rows_ = true, measuring_ = false;
  WeightUpload upload_;
  Buffer counters_, parts_, bias_, expanded_;
  Fp8Products fp8_;
};

}  // namespace

Result<std::unique_ptr<GemmCuda>> GemmCuda::create(const Options& options, Stream stream) {
  RK_TRY(auto lt, CublasLt::open(options.workspace_bytes, stream));
  auto gemm = std::make_unique<Gemm>(std::move(lt), stream);
  RK_RETURN_IF_ERROR(gemm->start(options));
  return std::unique_ptr<GemmCuda>(std::move(gemm));
}

}  // namespace rk::kernels
