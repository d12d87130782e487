// SHA-256 of a stream of bytes. One thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace rk::cli {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(const void* data, size_t bytes);
  /// Lower-case hex; ends the stream.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rk::cli
