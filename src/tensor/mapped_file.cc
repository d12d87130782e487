#include "tensor/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace rk {

Result<MappedFile> MappedFile::open(const std::string& path) {
  // Non-blocking: opening a FIFO would otherwise wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return not_found("file: ", path, " does not exist");
    return unavailable("file: cannot open ", path, ": ", std::strerror(errno));
  }
  struct stat info {};
  void* data = nullptr;
  Status status;
  if (fstat(fd, &info) != 0) {
    status = unavailable("file: cannot stat ", path, ": ", std::strerror(errno));
  } else if (!S_ISREG(info.st_mode)) {
    status = invalid_argument("file: ", path, " is not a regular file");
  } else if (info.st_size > 0) {
    data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
      status = unavailable("file: cannot map ", path, ": ", std::strerror(errno));
    }
  }
  ::close(fd);
  if (!status.ok()) return status;
  MappedFile out;
  out.data_ = static_cast<const std::byte*>(data);
  out.bytes_ = info.st_size;
  out.path_ = path;
  return out;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), static_cast<size_t>(bytes_));
}

void MappedFile::forget(int64_t begin, int64_t bytes) const {
  if (data_ == nullptr || begin < 0 || begin > bytes_ || bytes <= 0) return;
  static const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t end = begin + std::min(bytes, bytes_ - begin);
  const int64_t first = (begin + page - 1) / page * page;
  const int64_t last = end / page * page;
  if (first >= last) return;
  // Advice only: where it is refused the pages merely stay resident.
  (void)madvise(const_cast<std::byte*>(data_) + first, static_cast<size_t>(last - first),
                MADV_DONTNEED);
}

}  // namespace rk
