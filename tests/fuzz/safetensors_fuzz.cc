// One safetensors file: no crash, and every tensor believed lies inside the file.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = rk::Safetensors::parse(reinterpret_cast<const std::byte*>(data),
                                           static_cast<int64_t>(size), "fuzz");
  if (!file.ok()) {
    RK_CHECK(!file.status().message().empty());
    return 0;
  }
  for (const auto& tensor : file->tensors()) {
    const rk::View& view = tensor.view;
    if (view.empty()) continue;
    RK_CHECK(view.ptr<uint8_t>() >= data);
    RK_CHECK(view.ptr<uint8_t>() + view.num_bytes() <= data + size);
    for (int64_t i = 0; view.rank == 1 && i < view.dim[0]; ++i) (void)view.at(i);
  }
  return 0;
}
