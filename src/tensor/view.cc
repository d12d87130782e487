#include "tensor/view.h"

namespace rk {

View::View(void* p, DType type, std::initializer_list<int64_t> dims) : data(p), dtype(type) {
  RK_CHECK(dims.size() <= 4);
  for (const int64_t d : dims) dim[rank++] = d;
  int64_t step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    stride[i] = step;
    step *= dim[i];
  }
}

int64_t View::num_elements() const {
  if (rank == 0) return 0;
  int64_t n = 1;
  for (int i = 0; i < rank; ++i) n *= dim[i];
  return n;
}

View View::rows(int64_t begin, int64_t end) const {
  RK_DCHECK(0 <= begin && begin <= end && end <= dim[0]);
  View out = *this;
  out.data = static_cast<char*>(data) + dtype_bytes(dtype, begin * stride[0]);
  out.dim[0] = end - begin;
  return out;
}

double View::at(int64_t i, int64_t j, int64_t k, int64_t l) const {
  const int64_t n = i * stride[0] + j * stride[1] + k * stride[2] + l * stride[3];
  switch (dtype) {
    case DType::kF32:
      return ptr<float>()[n];
    case DType::kF16:
      return f16_to_f32(ptr<uint16_t>()[n]);
    case DType::kBf16:
      return bf16_to_f32(ptr<uint16_t>()[n]);
    case DType::kI8:
      return ptr<int8_t>()[n];
    case DType::kI32:
      return ptr<int32_t>()[n];
    default:
      break;
  }
  RK_CHECK(!"View::at of a block format");
  return 0;
}

void View::set(double value, int64_t i, int64_t j, int64_t k, int64_t l) const {
  const int64_t n = i * stride[0] + j * stride[1] + k * stride[2] + l * stride[3];
  switch (dtype) {
    case DType::kF32:
      ptr<float>()[n] = static_cast<float>(value);
      return;
    case DType::kF16:
      ptr<uint16_t>()[n] = f32_to_f16(static_cast<float>(value));
      return;
    case DType::kBf16:
      ptr<uint16_t>()[n] = f32_to_bf16(static_cast<float>(value));
      return;
    case DType::kI8:
      ptr<int8_t>()[n] = static_cast<int8_t>(value);
      return;
    case DType::kI32:
      ptr<int32_t>()[n] = static_cast<int32_t>(value);
      return;
    default:
      break;
  }
  RK_CHECK(!"View::set of a block format");
}

std::string View::describe() const {
  std::string out = cat(dtype_name(dtype), " [");
  for (int i = 0; i < rank; ++i) out += cat(i ? ", " : "", dim[i]);
  return out + "]";
}

}  // namespace rk
