// Stands in for decoder_cuda.cc in a build without CUDA.
#include "model/decoder_devices.h"

namespace rk::model {

Result<std::unique_ptr<Decoder>> load_cuda_decoder(const LoadArgs& args) {
  return open_card(args.options.device.index).status();  // says that there is no CUDA here
}

}  // namespace rk::model
