#include "tensor/buffer.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "base/cgroup.h"
#include "base/check.h"
#include "tensor/device.h"

namespace rk {
namespace {

constexpr int64_t kAlign = 64;
constexpr int64_t kMapFrom = 256 << 10;  // from here on the kernel's pages, below it the heap
constexpr int64_t kMax = int64_t{1} << 47;

int64_t page_bytes() {
  static const int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}

}  // namespace

Result<Buffer> Buffer::allocate(int64_t bytes) {
  if (bytes < 0) return invalid_argument("buffer: ", bytes, " bytes wanted");
  Buffer out;
  if (bytes == 0) return out;
  void* data = nullptr;
  if (bytes >= kMapFrom && bytes <= kMax) {
    data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) data = nullptr;
  } else if (bytes < kMapFrom) {
    const size_t rounded = static_cast<size_t>((bytes + kAlign - 1) / kAlign * kAlign);
    data = std::aligned_alloc(kAlign, rounded);
    if (data != nullptr) std::memset(data, 0, rounded);
  }
  if (data == nullptr) {
    return exhausted("buffer: ", bytes, " bytes wanted, ", available_memory_bytes(), " available");
  }
  out.data_ = data;
  out.bytes_ = bytes;
  return out;
}

Result<Buffer> Buffer::allocate(int64_t bytes, Memory memory) {
  if (memory == Memory::kHost) return allocate(bytes);
  Buffer out;
  RK_TRY(out.data_, memory == Memory::kCard ? allocate_on_card(bytes) : allocate_pinned(bytes));
  out.bytes_ = bytes;
  out.memory_ = memory;
  return out;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (memory_ == Memory::kCard) {
    free_on_card(data_);
  } else if (memory_ == Memory::kPinned) {
    free_pinned(data_);
  } else if (bytes_ >= kMapFrom) {
    munmap(data_, static_cast<size_t>(bytes_));
  } else {
    std::free(data_);
  }
}

void Buffer::release_pages(int64_t begin, int64_t bytes) const {
  if (bytes <= 0 || memory_ != Memory::kHost) return;
  RK_CHECK(begin >= 0 && begin <= bytes_ && bytes <= bytes_ - begin);
  char* base = as<char>();
  const int64_t end = begin + bytes;
  const int64_t page = page_bytes();
  const int64_t first = (begin + page - 1) / page * page;
  const int64_t last = end == bytes_ ? (end + page - 1) / page * page : end / page * page;
  if (bytes_ < kMapFrom || first >= last) {
    std::memset(base + begin, 0, static_cast<size_t>(bytes));
    return;
  }
  std::memset(base + begin, 0, static_cast<size_t>(first - begin));
  if (madvise(base + first, static_cast<size_t>(last - first), MADV_DONTNEED) != 0) {
    std::memset(base + first, 0, static_cast<size_t>(std::min(last, end) - first));
  }
  if (end > last) std::memset(base + last, 0, static_cast<size_t>(end - last));
}

int64_t available_memory_bytes() {
  int64_t available = int64_t{sysconf(_SC_PHYS_PAGES)} * page_bytes();
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;) {
    if (word != "MemAvailable:") continue;
    if (int64_t kib = 0; file >> kib) available = kib * 1024;
    break;
  }
  if (const auto room = cgroup_limits().memory_bytes) available = std::min(available, *room);
  return available;
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace rk
