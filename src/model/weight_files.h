// The weight files of a model, GGUF or a Hugging Face folder, behind one name per tensor: GGUF's
// ("blk.3.attn_q.weight", "token_embd.weight"). Views point into the mapping; fp8 matrices of a
// folder (codes and, beside them, their scales) are read as such or expanded to bf16. Engine thread
// only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/buffer.h"
#include "tensor/fp8.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"

namespace rk::model {

class WeightFiles {
 public:
  static Result<WeightFiles> open(const std::string& path);

  /// An fp8 matrix comes expanded to bf16, in memory of its own until it is forgotten.
  /// Errors: kInvalidArgument naming file, tensor, expected and found shape, or what is wrong with
  /// fp8 scales; kUnimplemented for types that are not read; kNotFound; kExhausted.
  Result<View> tensor(const std::string& name, std::initializer_list<int64_t> shape) const;
  bool has(const std::string& name) const;
  /// As it is stored: kE4m3 for an fp8 matrix. Nothing where it is missing.
  std::optional<DType> stored_dtype(const std::string& name) const;
  /// An fp8 matrix with its scales. Requires: that is how it is stored. Errors: as tensor().
  Result<Fp8Matrix> fp8(const std::string& name, int64_t n, int64_t k) const;
  /// See MappedFile::forget. Gives memory of an expanded matrix back.
  void forget(const View& view) const;
  bool is_gguf() const { return gguf_.has_value(); }
  const GgufFile* gguf() const { return gguf_ ? &*gguf_ : nullptr; }
  const std::string& path() const { return path_; }
  int64_t num_bytes() const;
  /// Of num_bytes(): codes of fp8 matrices.
  int64_t num_fp8_bytes() const;

 private:
  const View* find(const std::string& name) const;
  Result<View> find_shaped(const std::string& name, std::initializer_list<int64_t> shape) const;
  std::string shown(const std::string& name) const;
  std::string path_;
  mutable std::vector<Buffer> expanded_;  ///< fp8 matrices in use, as bf16
  std::optional<GgufFile> gguf_;
  std::optional<Safetensors> safetensors_;
};

/// The Hugging Face name of a GGUF tensor name ("blk.3.attn_q.weight" ->
/// "model.layers.3.self_attn.q_proj.weight"); "" where there is none.
std::string hugging_face_name(const std::string& gguf_name);

}  // namespace rk::model
