// GGUF v2/v3 reader (little endian): metadata and tensor directory of one memory-mapped file.
//
// Everything is checked before it is believed: counts and lengths against the bytes that are left,
// offsets and sizes against the file, products against overflow; nothing is allocated on a count's
// word alone. Knows no model; names and meanings belong to the caller. Immutable.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "tensor/mapped_file.h"
#include "tensor/view.h"

namespace rk {

/// One metadata value. Integers of all widths are widened to int64 (uint64 above 2^63-1: an error),
/// f32 to double. Arrays are of one kind; arrays of arrays are refused. Strings of arrays (whole
/// vocabularies) view into the file and live as long as it does.
using GgufValue =
    std::variant<bool, int64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                 std::vector<double>, std::vector<std::string_view>>;

class GgufFile {
 public:
  /// Errors: kNotFound; kDataLoss or kInvalidArgument naming path, field, and both numbers.
  static Result<GgufFile> open(const std::string& path);
  /// The same from memory (tests, fuzzing); `bytes` must outlive the result.
  static Result<GgufFile> parse(const std::byte* bytes, int64_t num_bytes, const std::string& name);

  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  /// Null where absent.
  const GgufValue* find(std::string_view key) const;
  /// Errors: kNotFound naming the key; kInvalidArgument where the kind is another.
  Result<int64_t> get_int(std::string_view key) const;
  Result<double> get_double(std::string_view key) const;  ///< integers convert
  Result<std::string> get_string(std::string_view key) const;
  Result<bool> get_bool(std::string_view key) const;

  /// Tensors in file order. Dims are outermost first (GGUF stores them reversed), so a weight
  /// matrix reads [out_features, in_features].
  struct Tensor {
    std::string name;
    View view;
  };
  const std::vector<Tensor>& tensors() const { return tensors_; }
  /// Null where absent.
  const Tensor* find_tensor(std::string_view name) const;

  const std::string& name() const { return name_; }
  int64_t num_bytes() const { return num_bytes_; }
  /// See MappedFile::forget; no effect for files parsed from memory.
  void forget(const View& tensor) const;

 private:
  std::shared_ptr<MappedFile> file_;
  std::string name_;
  const std::byte* bytes_ = nullptr;
  int64_t num_bytes_ = 0;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<Tensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace rk
