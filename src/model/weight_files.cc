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

Result<View> WeightFiles::tensor(const std::string& name,
                                 std::initializer_list<int64_t> shape) const {
  const View* view = find(name);
  const std::string shown = gguf_ ? name : hugging_face_name(name);
  if (view == nullptr) return not_found(path_, ": tensor ", shown, " is missing");
  const bool same = view->rank == static_cast<int>(shape.size()) &&
                    std::equal(shape.begin(), shape.end(), view->dim.begin());
  if (!same) {
    std::string want;
    for (const int64_t d : shape) want += cat(want.empty() ? "" : ", ", d);
    return invalid_argument(path_, ": tensor ", shown, " is ", view->describe(),
                            ", the config wants [", want, "]");
  }
  return *view;
}

void WeightFiles::forget(const View& view) const {
  if (gguf_) {
    gguf_->forget(view);
  } else {
    safetensors_->forget(view);
  }
}

int64_t WeightFiles::num_bytes() const {
  return gguf_ ? gguf_->num_bytes() : safetensors_->num_bytes();
}

}  // namespace rk::model
