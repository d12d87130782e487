// Memory that is owned and released in the destructor. Host memory is zeroed and 64-byte aligned;
// large buffers come straight from the kernel and cost nothing until touched, so capacity can be
// reserved up front. Memory of a card, and host memory pinned for copies to it, are not zeroed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/status.h"

namespace rk {

enum class Memory : uint8_t { kHost, kPinned, kCard };

class Buffer {
 public:
  Buffer() = default;
  /// `bytes` of zeros. Errors: kExhausted with both numbers where the system refuses.
  static Result<Buffer> allocate(int64_t bytes);
  /// The same in the given memory; kCard means the thread's current card (open_card).
  static Result<Buffer> allocate(int64_t bytes, Memory memory);
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
  /// Gives the physical pages of [begin, begin+bytes) back; they read as zeros afterwards. Nothing
  /// happens in memory that is not plain host memory.
  void release_pages(int64_t begin, int64_t bytes) const;

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
  }
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Memory memory_ = Memory::kHost;
};

/// Physical memory that could be taken now (MemAvailable, cgroup limits respected), bytes.
int64_t available_memory_bytes();
/// Largest resident set this process had so far, bytes.
int64_t peak_resident_bytes();

}  // namespace rk
