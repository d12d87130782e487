// API keys, kept as SHA-256 digests and compared in constant time. Immutable, thread-safe.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rk::serve {

class KeyRing {
 public:
  explicit KeyRing(const std::vector<std::string>& keys);
  bool empty() const { return digests_.empty(); }
  /// Index of the key in "Bearer <key>", or nothing. Looks at every key in any case.
  std::optional<size_t> find(std::string_view authorization) const;
  /// What rows stored for this key are filed under, mixed with the request's own salt, so that keys
  /// never see each other's rows. "" without keys and salt.
  std::string cache_namespace(std::optional<size_t> key, std::string_view salt) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  std::vector<Digest> digests_;
};

}  // namespace rk::serve
