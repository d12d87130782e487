#include "tensor/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace rk {
namespace {

using testing::HasSubstr;

/// A file: header padded to 8 bytes, then `data_bytes` bytes 0, 1, 2, ...
std::string file_of(std::string header, int data_bytes) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t n = header.size();
  std::string out(reinterpret_cast<const char*>(&n), sizeof(n));
  out += header;
  for (int i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
  return out;
}
const char kGood[] =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
    R"("b":{"dtype":"BF16","shape":[],"data_offsets":[8,10]},)"
    R"("c":{"dtype":"U8","shape":[6],"data_offsets":[10,16]}})";

Result<Safetensors> parse(const std::string& bytes) {
  return Safetensors::parse(reinterpret_cast<const std::byte*>(bytes.data()),
                            static_cast<int64_t>(bytes.size()), "x");
}
void expect_refused(const std::string& bytes, const std::string& text) {
  const auto file = parse(bytes);
  ASSERT_FALSE(file.ok()) << "accepted; wanted: " << text;
  EXPECT_THAT(file.status().message(), HasSubstr(text));
}
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return file_of(R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
                     offsets + "}}",
                 16);
}

TEST(Safetensors, ReadsOneFile) {
  const std::string bytes = file_of(kGood, 16);
  const auto file = parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_EQ(file->tensors().size(), 3U);
  EXPECT_EQ(file->find_tensor("a")->view.describe(), "f32 [2, 1]");
  EXPECT_EQ(static_cast<const char*>(file->find_tensor("a")->view.data),
            bytes.data() + bytes.size() - 16);
  EXPECT_EQ(file->find_tensor("b")->view.num_elements(), 1);
  EXPECT_EQ(file->find_tensor("c")->stored_dtype, "U8");
  EXPECT_TRUE(file->find_tensor("c")->view.empty());  // listed, not readable
}

TEST(Safetensors, EveryTruncationIsAnErrorAndNoBitFlipCrashes) {
  const std::string bytes = file_of(kGood, 16);
  for (size_t n = 0; n < bytes.size(); ++n) {
    const std::string part(bytes, 0, n);
    EXPECT_FALSE(parse(part).ok()) << n;
  }
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string flipped = bytes;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    (void)parse(flipped).ok();
  }
}

TEST(Safetensors, RefusesHostileFiles) {
  expect_refused(std::string(8, '\0'), "not JSON");
  std::string huge = file_of(kGood, 16);
  huge[7] = '\x80';
  expect_refused(huge, "promised");
  expect_refused(file_of("[]", 0), "not a JSON object");
  expect_refused(file_of(std::string(100, '['), 0), "not JSON");
  expect_refused(one("F32", "[4]", "[0,17]"), "0 to 17 of 16");
  expect_refused(one("F32", "[4]", "[8,0]"), "8 to 0");
  expect_refused(one("F32", "[4]", "[-1,15]"), "data_offsets[0]");
  expect_refused(one("F32", "[4]", "[0,16,16]"), "3 data_offsets");
  expect_refused(one("F32", "[5]", "[0,16]"), "needs 20 bytes");
  expect_refused(one("F32", "[4294967296,4294967296]", "[0,16]"), "overflows");
  expect_refused(one("F32", "[1e3]", "[0,16]"), "shape[0]");
  expect_refused(one("Q7", "[4]", "[0,16]"), "dtype 'Q7'");
  expect_refused(one("F32", "[2]", "[0,8]"), "end at 8 of 16");
  expect_refused(file_of(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
                         R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
                         16),
                 "inside tensor 'b'");
  expect_refused(file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                         R"("b":{"dtype":"F32","shape":[3],"data_offsets":[2,14]}})",
                         14),
                 "not aligned");
}

class Shards : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/rk_shards_XXXXXX";
    dir_ = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_ + "/" + name, std::ios::binary) << bytes;
  }
  void index(const std::string& map) {
    write("model.safetensors.index.json", R"({"weight_map":)" + map + "}");
  }
  std::string dir_;
};

TEST_F(Shards, AreFoundThroughTheIndex) {
  EXPECT_EQ(Safetensors::open(dir_).code(), Code::kNotFound);
  write("m1.safetensors", one("F32", "[4]", "[0,16]"));
  write("m2.safetensors",
        file_of(R"({"b":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}})", 16));
  index(R"({"a":"m1.safetensors","b":"m2.safetensors"})");
  const auto files = Safetensors::open(dir_);
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_EQ(files->paths().size(), 2U);
  EXPECT_EQ(files->find_tensor("b")->view.describe(), "f16 [8]");
  files->forget(files->find_tensor("b")->view);
}

TEST_F(Shards, MissingOrOutsideAreRefused) {
  write("m1.safetensors", one("F32", "[4]", "[0,16]"));
  index(R"({"a":"m1.safetensors","b":"m3.safetensors"})");
  EXPECT_EQ(Safetensors::open(dir_).code(), Code::kNotFound);
  index(R"({"a":"m1.safetensors","b":"m1.safetensors"})");
  EXPECT_THAT(Safetensors::open(dir_).status().message(), HasSubstr("tensor 'b' is not in"));
  for (const char* bad : {"../m1.safetensors", "/etc/passwd", "", "m1.bin", "x/m1.safetensors"}) {
    index(cat(R"({"a":")", bad, R"("})"));
    EXPECT_EQ(Safetensors::open(dir_).code(), Code::kInvalidArgument) << bad;
  }
  write("m2.safetensors", one("F32", "[4]", "[0,16]"));
  index(R"({"a":"m1.safetensors","b":"m2.safetensors"})");
  EXPECT_THAT(Safetensors::open(dir_).status().message(), HasSubstr("in two shards"));
}

}  // namespace
}  // namespace rk
