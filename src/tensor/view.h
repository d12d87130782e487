// A borrowed, typed, row-major array of up to four dimensions. Passed by value; owns nothing.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "tensor/dtype.h"

namespace rk {

struct View {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, 4> dim{};     ///< elements; unused ones are 0
  std::array<int64_t, 4> stride{};  ///< elements; for block formats only dense rows make sense

  View() = default;
  /// Dense row-major over `dims`.
  View(void* p, DType type, std::initializer_list<int64_t> dims);
  View(const void* p, DType type, std::initializer_list<int64_t> dims)
      : View(const_cast<void*>(p), type, dims) {}

  int64_t num_elements() const;
  int64_t num_bytes() const { return dtype_bytes(dtype, num_elements()); }
  bool empty() const { return data == nullptr || num_elements() == 0; }

  template <class T>
  T* ptr() const {
    return static_cast<T*>(data);
  }
  /// First element of row i of the outermost dimension. Requires: not a block format.
  template <class T>
  T* row(int64_t i) const {
    return static_cast<T*>(data) + i * stride[0];
  }
  /// Rows [begin, end) of the outermost dimension.
  View rows(int64_t begin, int64_t end) const;

  /// Any plain dtype through double, at most four indices; for references and tests only.
  double at(int64_t i, int64_t j = 0, int64_t k = 0, int64_t l = 0) const;
  void set(double value, int64_t i, int64_t j = 0, int64_t k = 0, int64_t l = 0) const;
  /// "f32 [3, 64]"
  std::string describe() const;
};

}  // namespace rk
