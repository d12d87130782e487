#include "base/read_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace rk {
namespace {

TEST(ReadFile, AllOfItOrTheReason) {
  const auto path = std::filesystem::temp_directory_path() / cat("rk_read_", getpid());
  const std::string text(200000, 'x');
  std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(*read_file(path, 200000), text);
  const auto longer = read_file(path, 199999);
  EXPECT_EQ(longer.code(), Code::kInvalidArgument);
  EXPECT_THAT(longer.status().message(), testing::HasSubstr("at most 199999"));
  EXPECT_EQ(read_file(path.string() + "x", 1).code(), Code::kNotFound);
  EXPECT_EQ(read_file(path.string() + "/x", 1).code(), Code::kNotFound);
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  const auto folder = read_file(path, 1);
  EXPECT_EQ(folder.code(), Code::kUnavailable);
  EXPECT_THAT(folder.status().message(), testing::HasSubstr("cannot be read: Is a directory"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace rk
