// Products of a model's shapes in every form of weights, and what stands between them, on a card.
// Weights are rotated, so that no cache holds them.
#include "kernels/gemm/gemm_cuda.h"
#include "kernels/layer/layer_cuda.h"
#include "main/bench_kernels.h"
#include "tensor/buffer.h"

namespace rk::cli {
namespace {

using kernels::CudaWeight;
using kernels::CudaWeightForm;
using kernels::GemmCuda;

constexpr int kRounds = 7;
constexpr int64_t kRotatedBytes = int64_t{400} << 20;

struct Linear {
  const char* name;
  int64_t n, k;
  bool residual;  // f32 results added to what is there, as the model does
};
std::vector<Linear> linears_of(const model::ModelConfig& c) {
  const int64_t q = int64_t{c.num_heads} * c.head_dim, kv = int64_t{c.num_kv_heads} * c.head_dim;
  return {{"qkv", q + 2 * kv, c.hidden, false},
          {"o", c.hidden, q, true},
          {"gate_up", 2 * c.ffn, c.hidden, false},
          {"down", c.hidden, c.ffn, true}};
}

constexpr struct {
  CudaWeightForm form;
  const char* name;
} kForms[] = {{CudaWeightForm::kBf16, "bf16"},
              {CudaWeightForm::kFp8, "fp8"},
              {CudaWeightForm::kFp8Blocks, "fp8-128"},
              {CudaWeightForm::kInt8G32, "int8"},
              {CudaWeightForm::kInt4G32, "int4"}};

struct Memory3 {
  Buffer x, y, z;
};

/// x, y and z with noise in all of them.
Result<Memory3> noise(int64_t x_bytes, int64_t y_bytes, int64_t z_bytes, Stream stream) {
  Memory3 out;
  uint64_t seed = 1;
  for (auto [buffer, bytes] : {std::pair{&out.x, x_bytes}, {&out.y, y_bytes}, {&out.z, z_bytes}}) {
    RK_TRY(*buffer, Buffer::allocate(std::max<int64_t>(bytes, 16), Memory::kCard));
    const View view(buffer->data(), DType::kBf16, {bytes / 2});
    RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(view, seed++, 1.0F, stream));
  }
  return out;
}

int calls_for(int64_t rows) { return rows <= 64 ? 60 : rows <= 512 ? 20 : 6; }

Status bench_linear(const KernelBench& bench, GemmCuda& gemm, const char* path, const Linear& l,
                    CudaWeightForm form, const char* form_name, const std::vector<int64_t>& rows,
                    Stream stream) {
  const auto name_of = [&](int64_t m) {
    return cat(form_name, path[0] == '\0' ? "" : " ", path, " ", l.name, " M=", m);
  };
  if (std::none_of(rows.begin(), rows.end(),
                   [&](int64_t m) { return bench.wants("gemm", name_of(m)); })) {
    return {};
  }
  std::vector<std::unique_ptr<CudaWeight>> copies;
  for (int64_t bytes = 0; copies.size() < 2 || bytes < kRotatedBytes;) {
    RK_TRY(auto w, gemm.random(l.n, l.k, form, copies.size(), 0.02F));
    bytes += w->num_bytes();
    copies.push_back(std::move(w));
  }
  const int64_t most = *std::max_element(rows.begin(), rows.end());
  const DType y_dtype = l.residual ? DType::kF32 : DType::kBf16;
  const int64_t y_element = l.residual ? 4 : 2;
  RK_TRY(const Memory3 memory, noise(most * l.k * 2, 0, 0, stream));
  RK_TRY(const Buffer results, Buffer::allocate(most * l.n * y_element, Memory::kCard));
  for (const int64_t m : rows) {
    if (!bench.wants("gemm", name_of(m))) continue;
    RK_RETURN_IF_ERROR(zero_on_card(results.data(), m * l.n * y_element, stream));
    RK_RETURN_IF_ERROR(gemm.prepare(*copies[0], m, y_dtype, false, l.residual));
    kernels::GemmCudaArgs args{.x = View(memory.x.data(), DType::kBf16, {m, l.k})};
    args.y = View(results.data(), y_dtype, {m, l.n});
    args.accumulate = l.residual;
    RK_TRY(const Spread ms, time_on_card(stream, kRounds, calls_for(m), [&](int i) {
             args.w = copies[static_cast<size_t>(i) % copies.size()].get();
             return gemm.run(args);
           }));
    const double x_bytes = 2.0 * static_cast<double>(m * l.k),
                 y_bytes = static_cast<double>(m * l.n * y_element) * (l.residual ? 2 : 1);
    bench.report({.kernel = "gemm",
                  .name = name_of(m),
                  .ms = ms,
                  .flops = 2.0 * static_cast<double>(m * l.n) * static_cast<double>(l.k),
                  .bytes = static_cast<double>(copies[0]->num_bytes()) + x_bytes + y_bytes});
  }
  return {};
}

Status bench_row_ops(const KernelBench& bench, const model::ModelConfig& c, int64_t rows,
                     Stream stream) {
  const int calls = calls_for(rows);
  const double m = static_cast<double>(rows), h = static_cast<double>(c.hidden),
               f = static_cast<double>(c.ffn);
  // Copies in turn, where one would fit the cache.
  const int64_t turns = rows > 512 ? 1 : 32;
  const auto turn = [&](const Buffer& b, int i, int64_t bytes) -> void* {
    return b.as<std::byte>() + i % turns * bytes;
  };
  RK_TRY(const Buffer weight, Buffer::allocate(c.hidden * 4, Memory::kCard));
  const View norm(weight.data(), DType::kF32, {c.hidden});
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(norm, 5, 1.0F, stream));
  const std::string suffix = cat(" M=", rows);
  if (bench.wants("layer", "rms_norm" + suffix)) {
    const int64_t x_bytes = rows * c.hidden * 4, y_bytes = x_bytes / 2;
    RK_TRY(const Memory3 memory, noise(turns * x_bytes, turns * y_bytes, 0, stream));
    RK_TRY(const Spread ms, time_on_card(stream, kRounds, calls, [&](int i) {
             return kernels::rms_norm_cuda(
                 {View(turn(memory.x, i, x_bytes), DType::kF32, {rows, c.hidden}), norm,
                  View(turn(memory.y, i, y_bytes), DType::kBf16, {rows, c.hidden}), 1e-6F},
                 stream);
           }));
    bench.report({.kernel = "layer", .name = "rms_norm" + suffix, .ms = ms, .bytes = 6 * m * h});
  }
  if (bench.wants("layer", "swiglu" + suffix)) {
    const int64_t x_bytes = rows * c.ffn * 4, y_bytes = x_bytes / 2;
    RK_TRY(const Memory3 memory, noise(turns * x_bytes, turns * y_bytes, 0, stream));
    RK_TRY(const Spread ms, time_on_card(stream, kRounds, calls, [&](int i) {
             return kernels::swiglu_cuda(
                 View(turn(memory.x, i, x_bytes), DType::kBf16, {rows, 2 * c.ffn}),
                 View(turn(memory.y, i, y_bytes), DType::kBf16, {rows, c.ffn}), stream);
           }));
    bench.report({.kernel = "layer", .name = "swiglu" + suffix, .ms = ms, .bytes = 6 * m * f});
  }
  return {};
}

/// A layer's second half for one row, in one chain as a step has it: norm, gate and up, SwiGLU,
/// down.
Status bench_one_row_chain(const KernelBench& bench, GemmCuda& gemm, const model::ModelConfig& c,
                           CudaWeightForm form, const char* form_name, const char* path,
                           Stream stream) {
  const std::string name =
      cat(form_name, path[0] == '\0' ? "" : " ", path, " norm+gate_up+down M=1");
  if (!bench.wants("layer", name)) return {};
  std::vector<std::unique_ptr<CudaWeight>> up, down;
  double bytes = 0;
  for (uint64_t i = 0; i < 4 || static_cast<double>(i) * bytes < kRotatedBytes; ++i) {
    RK_TRY(auto a, gemm.random(2 * c.ffn, c.hidden, form, 2 * i, 0.01F));
    RK_TRY(auto b, gemm.random(c.hidden, c.ffn, form, 2 * i + 1, 0.01F));
    bytes = static_cast<double>(a->num_bytes() + b->num_bytes());
    up.push_back(std::move(a));
    down.push_back(std::move(b));
  }
  RK_TRY(const Memory3 memory, noise(c.hidden * 2, c.ffn * 4, c.ffn * 2, stream));
  RK_TRY(const Buffer residual, Buffer::allocate(c.hidden * 8, Memory::kCard));
  const View x(residual.data(), DType::kF32, {1, c.hidden}),
      norm(residual.as<float>() + c.hidden, DType::kF32, {c.hidden});
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(x, 1, 1.0F, stream));
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(norm, 2, 1.0F, stream));
  const View hidden(memory.z.data(), DType::kBf16, {1, c.ffn});
  kernels::NormedGemmArgs project{.x = x, .norm = norm, .y = hidden, .gated = true};
  project.normed = View(memory.x.data(), DType::kBf16, {1, c.hidden});
  project.gate_up = View(memory.y.data(), DType::kBf16, {1, 2 * c.ffn});
  RK_RETURN_IF_ERROR(gemm.prepare(*up[0], 1, DType::kBf16, false, false));
  RK_RETURN_IF_ERROR(gemm.prepare(*down[0], 1, DType::kF32, false, true));
  RK_TRY(const Spread ms, time_on_card(stream, kRounds, 32, [&](int i) {
           const size_t layer = static_cast<size_t>(i) % up.size();
           project.w = up[layer].get();
           RK_RETURN_IF_ERROR(gemm.run_normed(project));
           return gemm.run({hidden, down[layer].get(), View(), x, true});
         }));
  bench.report({.kernel = "layer", .name = name, .ms = ms, .bytes = bytes});
  return {};
}

/// Norm, gate and up, and SwiGLU of a step's rows.
Status bench_gated(const KernelBench& bench, GemmCuda& gemm, const model::ModelConfig& c,
                   const char* path, int64_t rows, Stream stream) {
  const std::string name =
      cat("bf16", path[0] == '\0' ? "" : " ", path, " norm+gate_up+swiglu M=", rows);
  if (!bench.wants("layer", name)) return {};
  RK_TRY(const auto w, gemm.random(2 * c.ffn, c.hidden, CudaWeightForm::kBf16, 1, 0.01F));
  RK_TRY(const Memory3 memory,
         noise(rows * c.hidden * 2, rows * c.ffn * 4, rows * c.ffn * 2, stream));
  RK_TRY(const Buffer residual, Buffer::allocate((rows + 1) * c.hidden * 4, Memory::kCard));
  kernels::NormedGemmArgs args{.x = View(residual.data(), DType::kF32, {rows, c.hidden})};
  args.norm = View(residual.as<float>() + rows * c.hidden, DType::kF32, {c.hidden});
  args.w = w.get();
  args.y = View(memory.z.data(), DType::kBf16, {rows, c.ffn});
  args.gated = true;
  args.normed = View(memory.x.data(), DType::kBf16, {rows, c.hidden});
  args.gate_up = View(memory.y.data(), DType::kBf16, {rows, 2 * c.ffn});
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(args.x, 1, 1.0F, stream));
  RK_RETURN_IF_ERROR(kernels::fill_normal_cuda(args.norm, 2, 1.0F, stream));
  RK_RETURN_IF_ERROR(gemm.prepare(*w, rows, DType::kBf16, false, false));
  RK_TRY(const Spread ms,
         time_on_card(stream, kRounds, 40, [&](int) { return gemm.run_normed(args); }));
  const double m = static_cast<double>(rows), h = static_cast<double>(c.hidden),
               f = static_cast<double>(c.ffn);
  bench.report({.kernel = "layer",
                .name = name,
                .ms = ms,
                .flops = 4 * m * h * f,
                .bytes = 4 * h * f + m * (4 * h + 2 * f)});
  return {};
}

}  // namespace

Status bench_card_layers(const KernelBench& bench, const model::ModelConfig& config,
                         int64_t step_rows) {
  RK_TRY(const Stream stream, create_stream());
  GemmCuda::Options options{.expand_elements = 2 * config.ffn * config.hidden,
                            .fp8_elements = step_rows * config.ffn};
  RK_TRY(const auto gemm, GemmCuda::create(options, stream));
  struct Path {
    const char* name;
    GemmCuda* gemm;
    std::vector<int64_t> rows;
  };
  std::vector<Path> paths = {{"", gemm.get(), {1, 2, 4, 8, 16, 64, step_rows}}};
  std::unique_ptr<GemmCuda> own, codes, library;
  if (bench.all_paths) {
    const auto own_up_to = [&](int64_t rows) {
      options.few_bf16_rows = options.few_quant_rows = rows;
      options.few_fp8_rows = options.few_block_rows = options.few_uneven_rows = rows;
    };
    own_up_to(64);
    options.hopper_rows = false;
    RK_TRY(own, GemmCuda::create(options, stream));
    options.hopper_rows = true;
    options.hopper_packed_from = 0;
    RK_TRY(codes, GemmCuda::create(options, stream));
    options.hopper_rows = false;
    own_up_to(0);
    RK_TRY(library, GemmCuda::create(options, stream));
    paths.push_back({"few_rows", own.get(), {1, 2, 4, 8, 16, 32, 64}});
    paths.push_back({"few_codes", codes.get(), {1, 2, 4, 8, 16}});
    paths.push_back({"library", library.get(), {1, 2, 4, 8, 16, 32, 64, 128, 512, step_rows}});
  }
  for (const auto& form : kForms) {
    for (const Linear& linear : linears_of(config)) {
      for (const Path& path : paths) {
        const bool packed =
            form.form == CudaWeightForm::kInt8G32 || form.form == CudaWeightForm::kInt4G32;
        if (path.gemm == codes.get() && !packed) continue;
        RK_RETURN_IF_ERROR(bench_linear(bench, *path.gemm, path.name, linear, form.form, form.name,
                                        path.rows, stream));
      }
    }
  }
  for (const auto& form : kForms) {
    for (const Path& path : paths) {
      RK_RETURN_IF_ERROR(
          bench_one_row_chain(bench, *path.gemm, config, form.form, form.name, path.name, stream));
    }
  }
  for (const Path& path : paths) {
    if (path.gemm != gemm.get() && path.gemm != library.get()) continue;
    RK_RETURN_IF_ERROR(bench_gated(bench, *path.gemm, config, path.name, step_rows, stream));
  }
  for (const int64_t rows : {int64_t{1}, step_rows}) {
    RK_RETURN_IF_ERROR(bench_row_ops(bench, config, rows, stream));
  }
  return {};
}

}  // namespace rk::cli
