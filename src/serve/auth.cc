#include "serve/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

namespace rk::serve {
namespace {

std::array<unsigned char, 32> sha256(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

}  // namespace

KeyRing::KeyRing(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(sha256(key));
}

std::optional<size_t> KeyRing::find(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size()) return std::nullopt;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if ((authorization[i] | 0x20) != kScheme[i]) return std::nullopt;
  }
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  const Digest given = sha256(authorization);
  std::optional<size_t> found;
  for (size_t i = 0; i < digests_.size(); ++i) {
    if (CRYPTO_memcmp(digests_[i].data(), given.data(), given.size()) == 0) found = i;
  }
  return found;
}

std::string KeyRing::cache_namespace(std::optional<size_t> key, std::string_view salt) const {
  if (!key && salt.empty()) return "";
  std::string source;
  if (key)
    source.assign(reinterpret_cast<const char*>(digests_[*key].data()), digests_[*key].size());
  const Digest salted = sha256(salt);
  source.append(reinterpret_cast<const char*>(salted.data()), salted.size());
  constexpr const char* kHex = "0123456789abcdef";
  std::string out;
  for (const unsigned char byte : sha256(source)) {
    out += kHex[byte >> 4];
    out += kHex[byte & 15];
  }
  return out;
}

}  // namespace rk::serve
