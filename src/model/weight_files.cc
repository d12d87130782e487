#include "model/weight_files.h"

#include <sys/stat.h>

#include <algorithm>

namespace rk::model {
namespace {

struct NamePair {
  const char* gguf;
  const char* hugging_face;
};
constexpr NamePair kTop[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
constexpr NamePair kLayer[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"attn_output.bias", "self_attn.o_proj.bias"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};

}  // namespace

std::string hugging_face_name(const std::string& name) {
  for (const NamePair& pair : kTop) {
    if (name == pair.gguf) return pair.hugging_face;
  }
  if (name.rfind("blk.", 0) != 0) return {};
  const size_t dot = name.find('.', 4);
  if (dot == std::string::npos) return {};
  const std::string layer = name.substr(4, dot - 4), rest = name.substr(dot + 1);
  for (const NamePair& pair : kLayer) {
    if (rest == pair.gguf) return "model.layers." + layer + "." + pair.hugging_face;
  }
  return {};
}

Result<WeightFiles> WeightFiles::open(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return not_found(path, ": no such model file or folder");
  WeightFiles files;
  files.path_ = path;
  const std::string suffix = ".safetensors";
  const bool safetensors = S_ISDIR(info.st_mode) ||
                           (path.size() > suffix.size() &&
                            path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0);
  if (safetensors) {
    RK_TRY(files.safetensors_, Safetensors::open(path));
  } else {
    RK_TRY(files.gguf_, GgufFile::open(path));
  }
  return files;
}

const View* WeightFiles::find(const std::string& name) const {
  if (gguf_) {
    const auto* tensor = gguf_->find_tensor(name);
    return tensor ? &tensor->view : nullptr;
  }
  const auto* tensor = safetensors_->find_tensor(hugging_face_name(name));
  return tensor ? &tensor->view : nullptr;
}

bool WeightFiles::has(const std::string& name) const { return find(name) != nullptr; }

std::optional<DType> WeightFiles::stored_dtype(const std::string& name) const {
  const View* view = find(name);
  return view == nullptr ? std::nullopt : std::optional(view->dtype);
}

std::string WeightFiles::shown(const std::string& name) const {
  return gguf_ ? name : hugging_face_name(name);
}

Result<View> WeightFiles::find_shaped(const std::string& name,
                                      std::initializer_list<int64_t> shape) const {
  const View* view = find(name);
  if (view == nullptr) return not_found(path_, ": tensor ", shown(name), " is missing");
  const bool same = view->rank == static_cast<int>(shape.size()) &&
                    std::equal(shape.begin(), shape.end(), view->dim.begin());
  if (!same) {
    std::string want;
    for (const int64_t d : shape) want += cat(want.empty() ? "" : ", ", d);
    return invalid_argument(path_, ": tensor ", shown(name), " is ", view->describe(),
                            ", the config wants [", want, "]");
  }
  if (view->data == nullptr && view->num_elements() > 0) {
    return unimplemented(path_, ": tensor ", shown(name), " is stored as ",
                         safetensors_ ? safetensors_->find_tensor(shown(name))->stored_dtype : "?",
                         "; F32, F16, BF16 and F8_E4M3 are read");
  }
  return *view;
}

Result<View> WeightFiles::tensor(const std::string& name,
                                 std::initializer_list<int64_t> shape) const {
  RK_TRY(const View view, find_shaped(name, shape));
  if (view.dtype != DType::kE4m3) return view;
  RK_TRY(const Fp8Matrix w, fp8(name, view.dim[0], view.rank == 2 ? view.dim[1] : 0));
  RK_TRY(Buffer memory, Buffer::allocate(2 * view.num_elements()));
  std::vector<float> row(static_cast<size_t>(w.k()));
  auto* out = memory.as<uint16_t>();
  for (int64_t n = 0; n < w.n(); ++n) {
    dequantize_fp8(w, n, n + 1, row.data());
    for (const float v : row) *out++ = f32_to_bf16(v);
  }
  safetensors_->forget(view);
  expanded_.push_back(std::move(memory));
  return View(expanded_.back().data(), DType::kBf16, {w.n(), w.k()});
}

// Files that scale blocks say so in the scales' name, files with one scale or one a row too.
Result<Fp8Matrix> WeightFiles::fp8(const std::string& name, int64_t n, int64_t k) const {
  RK_TRY(const View codes, find_shaped(name, {n, k}));
  const std::string full = shown(name);
  const auto* blocks = safetensors_->find_tensor(full + "_scale_inv");
  const auto* scales = blocks != nullptr ? blocks : safetensors_->find_tensor(full + "_scale");
  if (scales == nullptr) {
    return not_found(path_, ": tensor ", full, " is F8_E4M3 without its scales: neither ", full,
                     "_scale_inv nor ", full, "_scale is there");
  }
  if (scales->view.data == nullptr) {
    return invalid_argument(path_, ": tensor ", scales->name, " is stored as ",
                            scales->stored_dtype, "; F32, BF16 or F16 wanted");
  }
  return make_fp8_matrix(codes, scales->view, blocks != nullptr,
                         cat(path_, ": tensor ", scales->name));
}

void WeightFiles::forget(const View& view) const {
  if (std::erase_if(expanded_, [&](const Buffer& b) { return b.data() == view.data; }) > 0) return;
  if (gguf_) {
    gguf_->forget(view);
  } else {
    safetensors_->forget(view);
  }
}

int64_t WeightFiles::num_fp8_bytes() const {
  int64_t bytes = 0;
  if (!safetensors_) return bytes;
  for (const auto& t : safetensors_->tensors()) {
    if (t.view.dtype == DType::kE4m3) bytes += t.view.num_bytes();
  }
  return bytes;
}

int64_t WeightFiles::num_bytes() const {
  return gguf_ ? gguf_->num_bytes() : safetensors_->num_bytes();
}

}  // namespace rk::model
