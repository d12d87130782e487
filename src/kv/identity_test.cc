#include "kv/identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>

namespace rk::kv {
namespace {

namespace fs = std::filesystem;

TEST(Identity, LabelsOrderTypesAndBordersCount) {
  const int32_t ids[] = {1, 2};
  std::set<std::string> seen;
  const auto add = [&](const auto& fill) {
    IdentityBuilder id("test");
    fill(id);
    EXPECT_TRUE(seen.insert(id.finish().hex()).second) << "identity number " << seen.size();
  };
  add([](IdentityBuilder&) {});
  add([](IdentityBuilder& b) { b.add("a", "xy"); });
  add([](IdentityBuilder& b) { b.add("a", "x").add("a", "y"); });
  add([](IdentityBuilder& b) { b.add("a", "x").add("", "y"); });
  add([](IdentityBuilder& b) { b.add("ax", "y"); });
  add([](IdentityBuilder& b) { b.add("a", "").add("xy", ""); });
  add([](IdentityBuilder& b) { b.add("xy", "").add("a", ""); });
  add([](IdentityBuilder& b) { b.add("a", 1); });
  add([](IdentityBuilder& b) { b.add("a", 1.0); });
  add([](IdentityBuilder& b) { b.add("a", std::string_view("\1\0\0\0\0\0\0\0", 8)); });
  add([&](IdentityBuilder& b) { b.add("a", std::span<const int32_t>(ids)); });
  add([&](IdentityBuilder& b) { b.add("a", std::span<const int32_t>(ids, 1)); });
  add([](IdentityBuilder& b) { b.add("a", Digest{}); });
  EXPECT_NE(IdentityBuilder("other").finish(), IdentityBuilder("test").finish());
  EXPECT_EQ(IdentityBuilder("k").add("a", 7).finish(), IdentityBuilder("k").add("a", 7).finish());
}

TEST(Identity, HexRoundTrips) {
  const Digest digest = IdentityBuilder("hex").finish();
  EXPECT_EQ(Digest::from_hex(digest.hex()).value(), digest);
  EXPECT_EQ(Digest::from_hex("ab").code(), Code::kInvalidArgument);
  EXPECT_EQ(Digest::from_hex(std::string(63, '0') + "g").code(), Code::kInvalidArgument);
  EXPECT_EQ(Digest::from_hex(std::string(62, '0') + "0F")->bytes[31], 15);
}

class WeightsDigest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "rk_identity_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  /// Writes a file whose last change lies an hour back: a younger one is not remembered.
  void write(const std::string& name, const std::string& text, int seconds_ago = 3600) const {
    std::ofstream(path(name), std::ios::binary) << text;
    fs::last_write_time(path(name),
                        fs::file_time_type::clock::now() - std::chrono::seconds(seconds_ago));
  }
  std::string cache_text() const {
    std::ifstream in(dir_ / "cache" / "weights_digests.json");
    return {std::istreambuf_iterator<char>(in), {}};
  }
  Digest digest(const std::string& name) const {
    const auto d = weights_digest(path(name), path("cache"));
    EXPECT_TRUE(d.ok()) << d.status().message();
    return *d;
  }
  fs::path dir_;
};

TEST_F(WeightsDigest, IsTheFilesSha256) {
  write("abc", "abc");
  const std::string want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(file_digest(path("abc"))->hex(), want);
  EXPECT_EQ(digest("abc").hex(), want);
  EXPECT_EQ(weights_digest(path("abc"), "")->hex(), want);
  write("large", std::string(5 << 20, 'x'));
  EXPECT_NE(file_digest(path("large"))->hex(), want);
}

TEST_F(WeightsDigest, IsRememberedUntilTheFileChanges) {
  write("m.gguf", "weights");
  const Digest first = digest("m.gguf");
  ASSERT_THAT(cache_text(), testing::HasSubstr(first.hex()));
  // A cache that lies is believed while the stamp is equal: so the file was not read again.
  std::string text = cache_text();
  text.replace(text.find(first.hex()), 64, std::string(64, '1'));
  std::ofstream(dir_ / "cache" / "weights_digests.json") << text;
  EXPECT_EQ(digest("m.gguf").hex(), std::string(64, '1'));
  write("m.gguf", "weighty");  // same size, another hour of change
  fs::last_write_time(path("m.gguf"), fs::file_time_type::clock::now() - std::chrono::hours(2));
  EXPECT_NE(digest("m.gguf").hex(), std::string(64, '1'));
  EXPECT_NE(digest("m.gguf"), first);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_ / "cache"), {}), 1);  // nothing left beside
}

TEST_F(WeightsDigest, AJustWrittenFileIsNotRemembered) {
  write("m.gguf", "weights", -3600);  // clocks that disagree: a change in the future
  (void)digest("m.gguf");
  EXPECT_EQ(cache_text(), "");
}

TEST_F(WeightsDigest, ADamagedOrUselessCacheCostsOnlyTime) {
  write("m.gguf", "weights");
  const Digest want = file_digest(path("m.gguf")).value();
  fs::create_directory(path("cache"));
  for (const char* text : {"", "{", "[]", "{\"files\":3}", "{\"files\":[3,{\"path\":1}]}",
                           "{\"files\":[{\"path\":\"x\",\"sha256\":\"zz\"}]}"}) {
    std::ofstream(dir_ / "cache" / "weights_digests.json") << text;
    EXPECT_EQ(digest("m.gguf"), want);
  }
  std::ofstream(path("file")) << "in the folder's place";
  EXPECT_EQ(weights_digest(path("m.gguf"), path("file")).value(), want);
  EXPECT_EQ(weights_digest(path("m.gguf"), "/proc/no/such/place").value(), want);
}

TEST_F(WeightsDigest, AFolderIsItsWeightsAndConfig) {
  fs::create_directory(path("model"));
  EXPECT_EQ(weights_digest(path("model"), "").code(), Code::kNotFound);
  write("model/b.safetensors", "b");
  write("model/a.safetensors", "a");
  write("model/config.json", "{}");
  const Digest first = digest("model");
  write("model/README.md", "text");
  EXPECT_EQ(digest("model"), first);
  write("model/config.json", "{ }");
  const Digest changed = digest("model");
  EXPECT_NE(changed, first);
  fs::rename(path("model/a.safetensors"), path("model/c.safetensors"));
  EXPECT_NE(digest("model"), changed);
}

TEST_F(WeightsDigest, SaysWhatIsWrong) {
  EXPECT_EQ(file_digest(path("none")).code(), Code::kNotFound);
  EXPECT_EQ(file_digest(dir_.string()).code(), Code::kInvalidArgument);
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(weights_digest(path("fifo"), "").code(), Code::kInvalidArgument);
  write("m.gguf", "weights");
  EXPECT_EQ(weights_digest(path("m.gguf"), "", [] { return true; }).code(), Code::kCancelled);
}

}  // namespace
}  // namespace rk::kv
