// GGUF files: no crash, and every tensor believed lies inside the file and can be read.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "model/config.h"
#include "tensor/gguf.h"
#include "tensor/quant_block.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = rk::GgufFile::parse(reinterpret_cast<const std::byte*>(data),
                                        static_cast<int64_t>(size), "fuzz");
  if (!file.ok()) {
    RK_CHECK(!file.status().message().empty());
    return 0;
  }
  for (const auto& tensor : file->tensors()) {
    const rk::View& view = tensor.view;
    RK_CHECK(view.ptr<uint8_t>() >= data);
    RK_CHECK(view.ptr<uint8_t>() + view.num_bytes() <= data + size);
    std::vector<float> values(static_cast<size_t>(view.num_elements()));
    rk::dequantize(view.dtype, view.data, values.data(), view.num_elements());
  }
  (void)rk::model::config_from_gguf(*file).ok();
  return 0;
}
