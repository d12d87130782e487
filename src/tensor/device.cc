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

namespace {

constexpr int kMinMajor = 8;
constexpr int64_t kOursBytes = int64_t{2} << 30;  // the driver's own, and what a context takes

std::string version_of(int number) { return cat(number / 1000, ".", number % 1000 / 10); }

}  // namespace

Status no_card(int driver, int runtime, std::string_view why) {
  if (driver == 0) {
    return unavailable(
        "cuda: no NVIDIA driver found (libcuda.so.1); install one, or use "
        "--device cpu");
  }
  if (driver / 1000 < runtime / 1000) {
    return unavailable("cuda: the driver knows CUDA ", version_of(driver),
                       ", this redknot was built for ", version_of(runtime),
                       "; update the driver, or use --device cpu");
  }
  return unavailable("cuda: no usable card: ", why,
                     " (nvidia-smi lists cards and who uses them); use --device cpu");
}

Status check_capability(std::string_view name, int major, int minor) {
  if (major >= kMinMajor) return {};
  return unavailable("cuda: ", name, " has compute capability ", major, ".", minor, ", at least ",
                     kMinMajor, ".0 is needed; use --device cpu");
}

std::string card_room(int64_t free, int64_t total) {
  const int64_t used = total - free;
  return cat(
      free >> 20, " of ", total >> 20, " MiB free",
      used > kOursBytes ? cat(", ", used >> 20, " in use already (nvidia-smi says by whom)") : "");
}

Status no_card_memory(int64_t wanted, int64_t free, int64_t total) {
  return exhausted("cuda: ", wanted >> 20, " MiB of device memory wanted, ", free >> 20, " of ",
                   total >> 20, " MiB free");
}

}  // namespace rk
