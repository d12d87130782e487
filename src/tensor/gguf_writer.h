// Writes small GGUF files into memory, for tests and fuzzing seeds only. It writes what it is told:
// nothing is checked, so that broken files can be made too. Plain value.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace rk {

class GgufWriter {
 public:
  explicit GgufWriter(uint32_t version = 3, int64_t alignment = 32)
      : version_(version), alignment_(static_cast<size_t>(alignment)) {}

  GgufWriter& add(std::string_view key, std::string_view value) {
    begin(key, 8);
    put_string(keys_, value);
    return *this;
  }
  GgufWriter& add(std::string_view key, const char* value) {
    return add(key, std::string_view(value));
  }
  GgufWriter& add(std::string_view key, uint32_t value) { return scalar(key, 4, value); }
  GgufWriter& add(std::string_view key, int32_t value) { return scalar(key, 5, value); }
  GgufWriter& add(std::string_view key, float value) { return scalar(key, 6, value); }
  GgufWriter& add(std::string_view key, bool value) {
    return scalar(key, 7, static_cast<uint8_t>(value));
  }
  GgufWriter& add(std::string_view key, uint64_t value) { return scalar(key, 10, value); }
  GgufWriter& add(std::string_view key, int64_t value) { return scalar(key, 11, value); }
  GgufWriter& add(std::string_view key, double value) { return scalar(key, 12, value); }
  GgufWriter& add(std::string_view key, const std::vector<std::string>& values) {
    begin_array(key, 8, values.size());
    for (const std::string& v : values) put_string(keys_, v);
    return *this;
  }
  GgufWriter& add(std::string_view key, const std::vector<float>& values) {
    return array(key, 6, values);
  }
  GgufWriter& add(std::string_view key, const std::vector<int32_t>& values) {
    return array(key, 5, values);
  }
  /// A value of any type, its bytes as given.
  GgufWriter& add_raw(std::string_view key, uint32_t type, std::string_view bytes) {
    begin(key, type);
    keys_ += bytes;
    return *this;
  }
  /// `dims` outermost first, as View has them; `type` is GGUF's number (0 = f32).
  GgufWriter& tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& dims,
                     std::string_view bytes) {
    data_.resize((data_.size() + alignment_ - 1) / alignment_ * alignment_);
    tensor_at(name, type, dims, data_.size());
    data_ += bytes;
    return *this;
  }
  GgufWriter& tensor(std::string_view name, const std::vector<uint64_t>& dims,
                     const std::vector<float>& values) {
    return tensor(name, 0, dims,
                  {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  /// An entry without data, at an offset of one's choice.
  GgufWriter& tensor_at(std::string_view name, uint32_t type, const std::vector<uint64_t>& dims,
                        uint64_t offset) {
    ++num_tensors_;
    put_string(tensors_, name);
    put(tensors_, static_cast<uint32_t>(dims.size()));
    for (size_t i = dims.size(); i-- > 0;) put(tensors_, dims[i]);
    put(tensors_, type);
    put(tensors_, offset);
    return *this;
  }

  std::string finish() const {
    std::string out = "GGUF";
    put(out, version_);
    put(out, num_tensors_);
    put(out, num_keys_);
    out += keys_ + tensors_;
    out.resize((out.size() + alignment_ - 1) / alignment_ * alignment_);
    return out + data_;
  }

 private:
  template <class T>
  static void put(std::string& out, T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
  }
  static void put_string(std::string& out, std::string_view text) {
    put(out, static_cast<uint64_t>(text.size()));
    out += text;
  }
  void begin(std::string_view key, uint32_t type) {
    ++num_keys_;
    put_string(keys_, key);
    put(keys_, type);
  }
  void begin_array(std::string_view key, uint32_t element_type, size_t count) {
    begin(key, 9);
    put(keys_, element_type);
    put(keys_, static_cast<uint64_t>(count));
  }
  template <class T>
  GgufWriter& scalar(std::string_view key, uint32_t type, T value) {
    begin(key, type);
    put(keys_, value);
    return *this;
  }
  template <class T>
  GgufWriter& array(std::string_view key, uint32_t type, const std::vector<T>& values) {
    begin_array(key, type, values.size());
    for (const T v : values) put(keys_, v);
    return *this;
  }

  uint32_t version_;
  size_t alignment_;
  uint64_t num_tensors_ = 0, num_keys_ = 0;
  std::string keys_, tensors_, data_;
};

}  // namespace rk
