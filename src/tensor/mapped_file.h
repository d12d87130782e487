// A file mapped read-only. Immutable while open; the mapping ends with the object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/status.h"

namespace rk {

class MappedFile {
 public:
  /// Errors: kNotFound, kInvalidArgument (no regular file), kUnavailable (the system's reason).
  static Result<MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    swap(other);
    return *this;
  }

  const std::byte* data() const { return data_; }
  int64_t num_bytes() const { return bytes_; }
  const std::string& path() const { return path_; }
  /// Tells the system that [begin, begin+bytes) will not be read again soon, so that it stops
  /// counting as resident. Contents stay valid.
  void forget(int64_t begin, int64_t bytes) const;

 private:
  MappedFile() = default;
  void swap(MappedFile& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(path_, other.path_);
  }
  const std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  std::string path_;
};

}  // namespace rk
