#include "tensor/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rk {
namespace {

using testing::HasSubstr;
using testing::Not;

void expect_says(const Status& status, Code code, std::initializer_list<const char*> texts) {
  EXPECT_EQ(status.code(), code);
  for (const char* text : texts) EXPECT_THAT(status.message(), HasSubstr(text));
}

TEST(Device, WhatIsMissingIsNamedWithHowToGetIt) {
  expect_says(no_card(0, 13000, "no CUDA-capable device is detected"), Code::kUnavailable,
              {"no NVIDIA driver", "libcuda.so.1", "install one", "--device cpu"});
  expect_says(no_card(12040, 13000, "insufficient"), Code::kUnavailable,
              {"driver knows CUDA 12.4", "built for 13.0", "update the driver", "--device cpu"});
  // A driver that knows a later 13 is new enough.
  expect_says(no_card(13010, 13000, "all devices are busy"), Code::kUnavailable,
              {"no usable card: all devices are busy", "nvidia-smi", "--device cpu"});
  expect_says(check_capability("NVIDIA T4", 7, 5), Code::kUnavailable,
              {"NVIDIA T4", "capability 7.5", "at least 8.0", "--device cpu"});
  EXPECT_TRUE(check_capability("NVIDIA A100", 8, 0).ok());
  EXPECT_TRUE(check_capability("later", 12, 0).ok());
}

TEST(Device, MemoryTakenByOthersIsSaid) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  EXPECT_THAT(card_room(10 * kGiB, 140 * kGiB),
              HasSubstr("10240 of 143360 MiB free, 133120 in use already (nvidia-smi"));
  EXPECT_THAT(card_room(139 * kGiB, 140 * kGiB), Not(HasSubstr("in use")));
  expect_says(no_card_memory(3 * kGiB, kGiB, 140 * kGiB), Code::kExhausted,
              {"3072 MiB", "1024 of 143360 MiB free"});
}

TEST(Device, NamesAreParsed) {
  EXPECT_EQ(parse_device("cuda:3")->index, 3);
  EXPECT_FALSE(parse_device("cpu")->is_cuda());
  for (const char* bad : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x"}) {
    EXPECT_FALSE(parse_device(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace rk
