// What tests of the card's kernels share: a stream, and arrays carried there and back. Tests skip
// where there is no card.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace rk::kernels {

/// Opens card 0 once; tests call RK_NEEDS_CARD() first.
inline bool card_opened() {
  static const bool opened = num_cards() > 0 && open_card(0).ok();
  return opened;
}
#define RK_NEEDS_CARD() \
  if (!::rk::kernels::card_opened()) GTEST_SKIP() << "no CUDA card"

inline Stream test_stream() {
  static const Stream stream = create_stream().value();
  return stream;
}

/// An array on the card; what is not given is filled with bytes 0xff (NaN), so that an element that
/// nothing writes shows.
template <class T>
class CardArray {
 public:
  explicit CardArray(size_t num) : CardArray(std::vector<T>(num, poison())) {}
  explicit CardArray(const std::vector<T>& host) : num_(host.size()) {
    buffer_ = Buffer::allocate(static_cast<int64_t>(num_ * sizeof(T)) + 16, Memory::kCard).value();
    EXPECT_TRUE(copy_to_card(buffer_.data(), host.data(), bytes(), test_stream()).ok());
    EXPECT_TRUE(sync_stream(test_stream()).ok());
  }
  T* data() const { return buffer_.as<T>(); }
  std::vector<T> host() const {
    std::vector<T> out(num_);
    EXPECT_TRUE(copy_from_card(out.data(), buffer_.data(), bytes(), test_stream()).ok());
    const Status status = sync_stream(test_stream());
    EXPECT_TRUE(status.ok()) << status.message();
    return out;
  }
  View view(DType dtype, std::initializer_list<int64_t> dims) const {
    return View(data(), dtype, dims);
  }

 private:
  static T poison() {
    T value;
    std::memset(&value, 0xff, sizeof(value));
    return value;
  }
  int64_t bytes() const { return static_cast<int64_t>(num_ * sizeof(T)); }
  size_t num_;
  Buffer buffer_;
};

inline std::vector<float> normal_values(size_t num, uint32_t seed, float deviation = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> out(num);
  for (float& v : out) v = normal(random);
  return out;
}
inline std::vector<uint16_t> to_bf16(const std::vector<float>& x) {
  std::vector<uint16_t> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = f32_to_bf16(x[i]);
  return out;
}
inline std::vector<float> from_bf16(const std::vector<uint16_t>& x) {
  std::vector<float> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = bf16_to_f32(x[i]);
  return out;
}
/// Rounded to what bf16 holds.
inline std::vector<float> rounded(const std::vector<float>& x) { return from_bf16(to_bf16(x)); }

/// ||got - want|| / ||want||; NaN where anything is.
inline double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    norm += double{want[i]} * want[i];
  }
  return got.size() != want.size() ? NAN : std::sqrt(difference / (norm > 0 ? norm : 1.0));
}

}  // namespace rk::kernels
