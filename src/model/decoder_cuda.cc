// Until the decoder on a card is here: says that it is not.
#include "model/decoder_devices.h"

namespace rk::model {

Result<std::unique_ptr<Decoder>> load_cuda_decoder(const LoadArgs& args) {
  (void)args;
  return unimplemented("the decoder on a card is not built yet");
}

}  // namespace rk::model
