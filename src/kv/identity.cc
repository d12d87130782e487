#include "kv/identity.h"

#include <openssl/evp.h>

#include <bit>
#include <cstring>
#include <vector>

#include "base/check.h"

namespace rk::kv {
namespace {

std::array<uint8_t, 8> le64(uint64_t value) {
  std::array<uint8_t, 8> out{};
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<uint8_t>(value >> (8 * i));
  return out;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string Digest::hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(64);
  for (const uint8_t b : bytes) {
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

Result<Digest> Digest::from_hex(std::string_view hex) {
  Digest out;
  if (hex.size() != 2 * out.bytes.size()) {
    return invalid_argument("digest: ", hex.size(), " characters, 64 hex digits expected");
  }
  for (size_t i = 0; i < out.bytes.size(); ++i) {
    const int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0) {
      return invalid_argument("digest: no hex digit at characters ", 2 * i, "-", 2 * i + 1);
    }
    out.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return out;
}

struct IdentityBuilder::State {
  State() : ctx(EVP_MD_CTX_new()) {
    RK_CHECK(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), nullptr));
  }
  ~State() { EVP_MD_CTX_free(ctx); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  EVP_MD_CTX* ctx;
};

IdentityBuilder::IdentityBuilder(std::string_view kind) : state_(std::make_unique<State>()) {
  field("redknot identity", 's', kind.data(), kind.size());
}
IdentityBuilder::~IdentityBuilder() = default;

void IdentityBuilder::update(const void* data, size_t num_bytes) {
  RK_CHECK(state_ != nullptr);
  RK_CHECK(EVP_DigestUpdate(state_->ctx, data, num_bytes) == 1);
}

void IdentityBuilder::field(std::string_view label, char type, const void* data, size_t num_bytes) {
  const auto label_size = le64(label.size()), size = le64(num_bytes);
  update(label_size.data(), label_size.size());
  update(label.data(), label.size());
  update(&type, 1);
  update(size.data(), size.size());
  update(data, num_bytes);
}

IdentityBuilder& IdentityBuilder::add(std::string_view label, std::string_view bytes) {
  field(label, 's', bytes.data(), bytes.size());
  return *this;
}
IdentityBuilder& IdentityBuilder::add(std::string_view label, int64_t value) {
  const auto bytes = le64(static_cast<uint64_t>(value));
  field(label, 'i', bytes.data(), bytes.size());
  return *this;
}
IdentityBuilder& IdentityBuilder::add(std::string_view label, double value) {
  const auto bytes = le64(std::bit_cast<uint64_t>(value));
  field(label, 'f', bytes.data(), bytes.size());
  return *this;
}
IdentityBuilder& IdentityBuilder::add(std::string_view label, std::span<const int32_t> ids) {
  static_assert(std::endian::native == std::endian::little, "ids are hashed as little endian");
  field(label, 't', ids.data(), ids.size_bytes());
  return *this;
}
IdentityBuilder& IdentityBuilder::add(std::string_view label, const Digest& digest) {
  field(label, 'd', digest.bytes.data(), digest.bytes.size());
  return *this;
}

Digest IdentityBuilder::finish() {
  RK_CHECK(state_ != nullptr);
  Digest out;
  RK_CHECK(EVP_DigestFinal_ex(state_->ctx, out.bytes.data(), nullptr) == 1);
  state_.reset();
  return out;
}

}  // namespace rk::kv
