#include "tensor/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tensor/gguf_writer.h"

namespace rk {
namespace {

using testing::HasSubstr;

Result<GgufFile> parse(const std::string& bytes) {
  return GgufFile::parse(reinterpret_cast<const std::byte*>(bytes.data()),
                         static_cast<int64_t>(bytes.size()), "x.gguf");
}

GgufWriter sample() {
  GgufWriter w;
  w.add("general.architecture", "llama")
      .add("n", 7U)
      .add("big", int64_t{1} << 40)
      .add("eps", 1e-5F);
  w.add("flag", true).add("names", std::vector<std::string>{"a", "", "ccc"});
  w.add("scores", std::vector<float>{1.5F, -2.0F});
  w.tensor("a", {2, 3}, {1, 2, 3, 4, 5, 6}).tensor("b", 2, {1, 32}, std::string(18, '\1'));
  return w;
}

/// Expects `bytes` to be refused with `code` and a message that has `text`.
void expect_refused(const std::string& bytes, Code code, const std::string& text) {
  const auto file = parse(bytes);
  ASSERT_FALSE(file.ok()) << "accepted; wanted: " << text;
  EXPECT_EQ(file.code(), code) << file.status().message();
  EXPECT_THAT(file.status().message(), HasSubstr(text));
}

std::string le(uint64_t value, int bytes = 8) {
  return {reinterpret_cast<const char*>(&value), static_cast<size_t>(bytes)};
}

TEST(Gguf, ReadsMetadataAndTensors) {
  const std::string bytes = sample().finish();
  const auto file = parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(*file->get_string("general.architecture"), "llama");
  EXPECT_EQ(*file->get_int("n"), 7);
  EXPECT_EQ(*file->get_int("big"), int64_t{1} << 40);
  EXPECT_EQ(*file->get_double("n"), 7.0);
  EXPECT_FLOAT_EQ(static_cast<float>(*file->get_double("eps")), 1e-5F);
  EXPECT_TRUE(*file->get_bool("flag"));
  EXPECT_EQ(std::get<std::vector<std::string_view>>(*file->find("names"))[2], "ccc");
  EXPECT_EQ(std::get<std::vector<double>>(*file->find("scores"))[1], -2.0);
  EXPECT_EQ(file->get_int("none").code(), Code::kNotFound);
  EXPECT_EQ(file->get_int("flag").code(), Code::kInvalidArgument);
  const auto* a = file->find_tensor("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->view.describe(), "f32 [2, 3]");
  EXPECT_EQ(a->view.at(1, 0), 4.0);
  EXPECT_EQ(file->find_tensor("b")->view.describe(), "q4_0 [1, 32]");
  EXPECT_EQ(file->find_tensor("c"), nullptr);
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string bytes = sample().finish();
  for (size_t n = 0; n < bytes.size(); ++n) {
    const std::string part(bytes, 0, n);
    EXPECT_FALSE(parse(part).ok()) << n << " of " << bytes.size() << " bytes were accepted";
  }
}

TEST(Gguf, NoBitFlipCrashes) {
  const std::string bytes = sample().finish();
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string flipped = bytes;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    const auto file = parse(flipped);
    if (!file.ok()) continue;
    for (const auto& t : file->tensors()) {  // whatever was believed lies inside the file
      const auto* first = static_cast<const char*>(t.view.data);
      EXPECT_GE(first, flipped.data());
      EXPECT_LE(first + t.view.num_bytes(), flipped.data() + flipped.size());
    }
  }
}

TEST(Gguf, RefusesHostileHeaders) {
  expect_refused("GGML" + le(3, 4) + le(0) + le(0), Code::kInvalidArgument, "'GGUF'");
  expect_refused("GGUF" + le(1, 4) + le(0) + le(0), Code::kUnimplemented, "version 1");
  expect_refused(std::string("GGUF") + std::string("\0\0\0\3", 4), Code::kUnimplemented,
                 "big-endian");
  expect_refused("GGUF" + le(3, 4) + le(0) + le(uint64_t{1} << 63), Code::kDataLoss,
                 "9223372036854775808 promised");
  expect_refused("GGUF" + le(3, 4) + le(uint64_t{1} << 63) + le(0), Code::kDataLoss,
                 "tensor count");
  expect_refused("GGUF" + le(3, 4) + le(0) + le(1) + le(~uint64_t{0}) + std::string(64, 'a'),
                 Code::kDataLoss, "18446744073709551615 promised");
}

TEST(Gguf, RefusesHostileValues) {
  const auto raw = [](uint32_t type, const std::string& bytes) {
    return GgufWriter().add_raw("k", type, bytes).finish();
  };
  expect_refused(raw(9, le(9, 4) + le(1) + le(4, 4) + le(0)), Code::kInvalidArgument,
                 "array of arrays");
  expect_refused(raw(9, le(4, 4) + le(uint64_t{1} << 62)), Code::kDataLoss, "'k' count");
  expect_refused(raw(9, le(99, 4) + le(0)), Code::kDataLoss, "type 99");
  expect_refused(raw(13, le(0)), Code::kDataLoss, "type 13");
  expect_refused(raw(7, "\2"), Code::kDataLoss, "bool is 2");
  expect_refused(raw(10, le(~uint64_t{0})), Code::kInvalidArgument, "above 2^63-1");
  expect_refused(GgufWriter().add("k", 1U).add("k", 2U).finish(), Code::kDataLoss, "twice");
  for (const uint32_t alignment : {0U, 1U, 24U, 1U << 30}) {
    expect_refused(GgufWriter().add("general.alignment", alignment).finish(),
                   Code::kInvalidArgument, cat("general.alignment is ", alignment));
  }
}

TEST(Gguf, RefusesHostileTensors) {
  const auto one = [](uint32_t type, const std::vector<uint64_t>& dims, uint64_t offset) {
    return GgufWriter().tensor_at("t", type, dims, offset).finish() + std::string(256, 'x');
  };
  ASSERT_TRUE(parse(one(0, {8, 8}, 0)).ok());
  expect_refused(one(0, {0, 8}, 0), Code::kInvalidArgument, "dimension 1 is 0");
  expect_refused(one(0, {~uint64_t{0}}, 0), Code::kInvalidArgument, "dimension 0 is -1");
  expect_refused(one(0, {1, 1, 1, 1, 1}, 0), Code::kInvalidArgument, "5 dimensions");
  expect_refused(one(0, {}, 0), Code::kInvalidArgument, "0 dimensions");
  const uint64_t big = uint64_t{1} << 31;
  expect_refused(one(0, {big, big}, 0), Code::kInvalidArgument, "overflows");
  expect_refused(one(0, {big, big, 4}, 0), Code::kInvalidArgument, "overflows");
  expect_refused(one(0, {65}, 0), Code::kDataLoss, "260 bytes at 0 reach past the data's 256");
  expect_refused(one(0, {8}, 256), Code::kDataLoss, "at 256");
  expect_refused(one(0, {8}, 16), Code::kDataLoss, "no multiple of the alignment 32");
  expect_refused(one(0, {8}, ~uint64_t{31}), Code::kDataLoss, "beyond any file");
  expect_refused(one(2, {8, 33}, 0), Code::kInvalidArgument, "block of 32");
  expect_refused(one(16, {256}, 0), Code::kUnimplemented, "tensor 't': stored as type 16");
  const std::string tail(256, 'x');
  expect_refused(GgufWriter().tensor_at("s", 0, {16}, 0).tensor_at("t", 0, {8}, 32).finish() + tail,
                 Code::kDataLoss, "inside tensor 't', which starts at 32");
  expect_refused(GgufWriter().tensor_at("t", 0, {8}, 0).tensor_at("t", 0, {8}, 32).finish() + tail,
                 Code::kDataLoss, "twice");
}

TEST(Gguf, OpensFilesAndForgets) {
  char name[] = "/tmp/rk_gguf_XXXXXX";
  const std::string dir = mkdtemp(name);
  std::string bytes = sample().finish();
  std::ofstream(dir + "/x.gguf", std::ios::binary) << bytes;
  const auto file = GgufFile::open(dir + "/x.gguf");
  ASSERT_TRUE(file.ok()) << file.status().message();
  file->forget(file->find_tensor("a")->view);
  EXPECT_EQ(file->find_tensor("a")->view.at(1, 2), 6.0);
  EXPECT_EQ(GgufFile::open(dir + "/none").code(), Code::kNotFound);
  EXPECT_EQ(GgufFile::open(dir).code(), Code::kInvalidArgument);
  std::ofstream(dir + "/empty").flush();
  EXPECT_EQ(GgufFile::open(dir + "/empty").code(), Code::kDataLoss);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace rk
