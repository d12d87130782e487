// The weight files of a model, GGUF or a Hugging Face folder, behind one name per tensor: GGUF's
// ("blk.3.attn_q.weight", "token_embd.weight"). Views point into the mapping. Immutable.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"

namespace rk::model {

class WeightFiles {
 public:
  static Result<WeightFiles> open(const std::string& path);

  /// Errors: kInvalidArgument naming file, tensor, expected and found shape; kNotFound.
  Result<View> tensor(const std::string& name, std::initializer_list<int64_t> shape) const;
  bool has(const std::string& name) const;
  /// See MappedFile::forget.
  void forget(const View& view) const;
  bool is_gguf() const { return gguf_.has_value(); }
  const GgufFile* gguf() const { return gguf_ ? &*gguf_ : nullptr; }
  const std::string& path() const { return path_; }
  int64_t num_bytes() const;

 private:
  const View* find(const std::string& name) const;
  std::string path_;
  std::optional<GgufFile> gguf_;
  std::optional<Safetensors> safetensors_;
};

/// The Hugging Face name of a GGUF tensor name ("blk.3.attn_q.weight" ->
/// "model.layers.3.self_attn.q_proj.weight"); "" where there is none.
std::string hugging_face_name(const std::string& gguf_name);

}  // namespace rk::model
