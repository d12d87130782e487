// Content identities: SHA-256 over labelled, length-prefixed fields, so that no two lists of fields
// give the same bytes. Names what shaped stored KV (spec A3). Plain values; thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace rk::kv {

/// 256 bits.
struct Digest {
  std::array<uint8_t, 32> bytes{};
  auto operator<=>(const Digest&) const = default;
  /// 64 lower-case hex digits.
  std::string hex() const;
  /// Errors: kInvalidArgument for anything but 64 hex digits.
  static Result<Digest> from_hex(std::string_view hex);
};

/// Adds fields in order; the order and the labels are part of the identity.
class IdentityBuilder {
 public:
  /// `kind` separates domains: "segment", "prefix root", "head plan".
  explicit IdentityBuilder(std::string_view kind);
  ~IdentityBuilder();
  IdentityBuilder(const IdentityBuilder&) = delete;
  IdentityBuilder& operator=(const IdentityBuilder&) = delete;

  IdentityBuilder& add(std::string_view label, std::string_view bytes);
  IdentityBuilder& add(std::string_view label, const char* text) {
    return add(label, std::string_view(text));
  }
  IdentityBuilder& add(std::string_view label, int64_t value);
  IdentityBuilder& add(std::string_view label, int value) {
    return add(label, static_cast<int64_t>(value));
  }
  /// By bit pattern: -0.0 and 0.0 differ.
  IdentityBuilder& add(std::string_view label, double value);
  IdentityBuilder& add(std::string_view label, std::span<const int32_t> ids);
  IdentityBuilder& add(std::string_view label, const Digest& digest);
  /// Ends the list; the builder is empty afterwards and must not be used again.
  Digest finish();

 private:
  void update(const void* data, size_t num_bytes);
  void field(std::string_view label, char type, const void* data, size_t num_bytes);
  struct State;
  std::unique_ptr<State> state_;
};

/// Asked while a large file is hashed; true stops it with kCancelled.
using CancelFn = std::function<bool()>;

/// SHA-256 of one file's bytes, read in pieces (about 2 GB/s from memory).
/// Errors: kNotFound, kInvalidArgument (no regular file), kUnavailable, kCancelled.
Result<Digest> file_digest(const std::string& path, const CancelFn& cancelled = {});

/// Identity of a model's weights: a file's digest; for a folder, the names and digests of its
/// *.safetensors and config.json. Remembered in `<cache_dir>/weights_digests.json` by (path, size,
/// mtime, inode), so only a new or changed file is read; an empty cache_dir remembers nothing. A
/// cache that cannot be read or written costs time, never the answer. Call it lazily: a first
/// gigabyte takes a second.
Result<Digest> weights_digest(const std::string& path, const std::string& cache_dir,
                              const CancelFn& cancelled = {});

}  // namespace rk::kv

/// Digests are uniform: their first word is a hash.
template <>
struct std::hash<rk::kv::Digest> {
  size_t operator()(const rk::kv::Digest& d) const noexcept {
    size_t word = 0;
    for (size_t i = 0; i < sizeof word; ++i) word = word << 8 | d.bytes[i];
    return word;
  }
};
