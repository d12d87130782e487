#include "tensor/device.h"

#include <charconv>

namespace rk {

std::string Device::name() const { return is_cuda() ? cat("cuda:", index) : "cpu"; }

Result<Device> parse_device(std::string_view text) {
  if (text == "cpu") return Device{};
  Device device{Device::Kind::kCuda, 0};
  if (text == "cuda") return device;
  if (text.substr(0, 5) == "cuda:") {
    const std::string_view digits = text.substr(5);
    const char* end = digits.data() + digits.size();
    const auto [last, error] = std::from_chars(digits.data(), end, device.index);
    if (error == std::errc() && last == end && !digits.empty() && device.index >= 0) return device;
  }
  return invalid_argument("device: \"", text, "\"; known: cpu, cuda, cuda:N");
}

}  // namespace rk
