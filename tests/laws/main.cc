// laws_test [--device cpu|cuda[:N]]: the same laws on every device.
#include <cstdio>
#include <string_view>

#include "tests_device.h"

namespace {
rk::Device device;
}
const rk::Device& rk::test_device() { return device; }

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    std::string_view text = argv[i];
    if (text == "--device" && i + 1 < argc) {
      text = argv[++i];
    } else if (text.substr(0, 9) == "--device=") {
      text.remove_prefix(9);
    } else {
      std::fprintf(stderr, "laws_test: unknown argument %s\n", argv[i]);
      return 2;
    }
    const auto parsed = rk::parse_device(text);
    if (!parsed.ok()) {
      std::fprintf(stderr, "laws_test: %s\n", parsed.status().message().c_str());
      return 2;
    }
    device = parsed.value();
  }
  return RUN_ALL_TESTS();
}
