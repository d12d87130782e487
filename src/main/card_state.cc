#include "main/card_state.h"

#include <dlfcn.h>

namespace rk::cli {
namespace {

// The few functions we call, by the library's stable interface; 0 is success.
using Handle = void*;
constexpr unsigned kSmClock = 1, kMemoryClock = 2, kGpuTemperature = 0;

struct Nvml {
  int (*init)() = nullptr;
  int (*driver)(char* text, unsigned bytes) = nullptr;
  int (*find)(const char* bus_id, Handle* out) = nullptr;
  int (*clock)(Handle, unsigned which, unsigned* mhz) = nullptr;
  int (*power)(Handle, unsigned* milliwatts) = nullptr;
  int (*power_limit)(Handle, unsigned* milliwatts) = nullptr;
  int (*temperature)(Handle, unsigned which, unsigned* celsius) = nullptr;
  bool usable = false;
};

template <class F>
bool look_up(void* library, const char* name, F& to) {
  to = reinterpret_cast<F>(dlsym(library, name));
  return to != nullptr;
}

const Nvml& nvml() {
  static const Nvml loaded = [] {
    Nvml api;
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    api.usable = library != nullptr && look_up(library, "nvmlInit_v2", api.init) &&
                 look_up(library, "nvmlSystemGetDriverVersion", api.driver) &&
                 look_up(library, "nvmlDeviceGetHandleByPciBusId_v2", api.find) &&
                 look_up(library, "nvmlDeviceGetClockInfo", api.clock) &&
                 look_up(library, "nvmlDeviceGetPowerUsage", api.power) &&
                 look_up(library, "nvmlDeviceGetPowerManagementLimit", api.power_limit) &&
                 look_up(library, "nvmlDeviceGetTemperature", api.temperature) && api.init() == 0;
    return api;
  }();
  return loaded;
}

}  // namespace

CardState card_state(const std::string& bus_id) {
  CardState out;
  Handle card = nullptr;
  if (!nvml().usable || nvml().find(bus_id.c_str(), &card) != 0) return out;
  const auto number = [](int status, unsigned value, int unit = 1) {
    return status == 0 ? static_cast<int>(value) / unit : 0;
  };
  unsigned v = 0;
  int status = nvml().clock(card, kSmClock, &v);
  out.sm_mhz = number(status, v);
  status = nvml().clock(card, kMemoryClock, &v);
  out.memory_mhz = number(status, v);
  status = nvml().power(card, &v);
  out.power_w = number(status, v, 1000);
  status = nvml().power_limit(card, &v);
  out.power_limit_w = number(status, v, 1000);
  status = nvml().temperature(card, kGpuTemperature, &v);
  out.celsius = number(status, v);
  return out;
}

std::string driver_version() {
  char text[96] = "";
  if (!nvml().usable || nvml().driver(text, sizeof(text)) != 0) return {};
  return text;
}

}  // namespace rk::cli
