// Host memory that is owned: zeroed, 64-byte aligned, released in the destructor. Large buffers
// come straight from the kernel and cost nothing until touched, so capacity can be reserved up
// front.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/status.h"

namespace rk {

class Buffer {
 public:
  Buffer() = default;
  /// `bytes` of zeros. Errors: kExhausted with both numbers where the system refuses.
  static Result<Buffer> allocate(int64_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  void* data() const { return data_; }
  int64_t num_bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  /// Gives the physical pages of [begin, begin+bytes) back; they read as zeros afterwards.
  void release_pages(int64_t begin, int64_t bytes) const;

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// Physical memory that could be taken now (MemAvailable, cgroup limits respected), bytes.
int64_t available_memory_bytes();
/// Largest resident set this process had so far, bytes.
int64_t peak_resident_bytes();

}  // namespace rk
