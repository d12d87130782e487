// safetensors reader: one file, or a Hugging Face folder's shards through its index. Checked like
// GGUF (tensor/gguf.h): header length, offsets, overlaps, shape products, dtypes, missing shards,
// index entries that point outside the folder. F32, F16, BF16, F8_E4M3 (others are listed, not
// readable).
// Immutable.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/mapped_file.h"
#include "tensor/view.h"

namespace rk {

class Safetensors {
 public:
  /// `path` is a .safetensors file or a folder holding model.safetensors or
  /// model.safetensors.index.json with its shards.
  static Result<Safetensors> open(const std::string& path);
  /// One file's bytes (tests, fuzzing); `bytes` must outlive the result.
  static Result<Safetensors> parse(const std::byte* bytes, int64_t num_bytes,
                                   const std::string& name);

  struct Tensor {
    std::string name;
    View view;                 ///< data is null where the stored type or rank is not readable
    std::string stored_dtype;  ///< as the file says: "BF16"
  };
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find_tensor(std::string_view name) const;
  int64_t num_bytes() const { return num_bytes_; }
  const std::vector<std::string>& paths() const { return paths_; }
  void forget(const View& tensor) const;

 private:
  Status add(const std::byte* bytes, int64_t num_bytes, const std::string& name);
  std::vector<std::shared_ptr<MappedFile>> files_;
  std::vector<std::string> paths_;
  int64_t num_bytes_ = 0;
  std::vector<Tensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace rk
