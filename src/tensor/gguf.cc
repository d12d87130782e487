#include "tensor/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <span>

namespace rk {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int64_t kMaxArray = int64_t{1} << 24;
constexpr int64_t kMaxKeyBytes = 65535;
constexpr int64_t kMaxStringBytes = int64_t{1} << 30;
constexpr int64_t kMaxDim = int64_t{1} << 40;
constexpr int64_t kMaxAlignment = int64_t{1} << 20;
constexpr int64_t kDefaultAlignment = 32;
// Smallest records: key length + type + one byte; name length + rank + one dim + type + offset.
constexpr int64_t kMinKvBytes = 8 + 4 + 1;
constexpr int64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
  kNumTypes,
};
constexpr int kWidth[kNumTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
bool is_float(uint32_t type) { return type == kFloat32 || type == kFloat64; }

struct StoredType {
  uint32_t id;
  DType dtype;
};
constexpr StoredType kStoredTypes[] = {
    {0, DType::kF32},   {1, DType::kF16},   {2, DType::kQ4_0}, {3, DType::kQ4_1},
    {6, DType::kQ5_0},  {7, DType::kQ5_1},  {8, DType::kQ8_0}, {12, DType::kQ4_K},
    {13, DType::kQ5_K}, {14, DType::kQ6_K}, {24, DType::kI8},  {26, DType::kI32},
    {30, DType::kBf16},
};

/// A cursor that checks every read against the end. `where` names the field in messages.
class Reader {
 public:
  Reader(const std::byte* bytes, int64_t num_bytes, const std::string& file)
      : bytes_(bytes), end_(num_bytes), file_(file) {}

  int64_t position() const { return at_; }
  int64_t left() const { return end_ - at_; }

  template <class T>
  Status read(T& out, const std::string& where) {
    if (left() < static_cast<int64_t>(sizeof(T))) return truncated(sizeof(T), where);
    std::memcpy(&out, bytes_ + at_, sizeof(T));
    at_ += sizeof(T);
    return {};
  }
  template <class T>
  T take() {  // the caller has checked left()
    T out;
    std::memcpy(&out, bytes_ + at_, sizeof(T));
    at_ += sizeof(T);
    return out;
  }
  /// A count of things that need at least `each` bytes.
  Status read_count(int64_t& out, int64_t each, int64_t limit, const std::string& where) {
    uint64_t count = 0;
    RK_RETURN_IF_ERROR(read(count, where));
    const auto most = static_cast<uint64_t>(left() / each);
    if (count > most) {
      return data_loss(file_, ": ", where, ": ", count, " promised, the ", left(),
                       " bytes left hold at most ", most);
    }
    if (count > static_cast<uint64_t>(limit)) {
      return invalid_argument(file_, ": ", where, ": ", count, " is over the limit of ", limit);
    }
    out = static_cast<int64_t>(count);
    return {};
  }
  /// `out` views into the file.
  Status read_view(std::string_view& out, int64_t limit, const std::string& where) {
    int64_t length = 0;
    RK_RETURN_IF_ERROR(read_count(length, 1, limit, where + " length"));
    out = {reinterpret_cast<const char*>(bytes_ + at_), static_cast<size_t>(length)};
    at_ += length;
    return {};
  }
  Status read_string(std::string& out, int64_t limit, const std::string& where) {
    std::string_view view;
    RK_RETURN_IF_ERROR(read_view(view, limit, where));
    out = view;
    return {};
  }
  Status truncated(int64_t wanted, const std::string& where) const {
    return data_loss(file_, ": ends inside ", where, ": ", wanted, " bytes wanted at ", at_, ", ",
                     left(), " left");
  }
  const std::string& file() const { return file_; }

 private:
  const std::byte* bytes_;
  int64_t at_ = 0;
  int64_t end_;
  const std::string& file_;
};

/// One integer or bool of `type`, whose bytes are known to be there.
Result<int64_t> take_int(Reader& in, uint32_t type, const std::string& where) {
  switch (type) {
    case kUint8:
      return int64_t{in.take<uint8_t>()};
    case kInt8:
      return int64_t{in.take<int8_t>()};
    case kUint16:
      return int64_t{in.take<uint16_t>()};
    case kInt16:
      return int64_t{in.take<int16_t>()};
    case kUint32:
      return int64_t{in.take<uint32_t>()};
    case kInt32:
      return int64_t{in.take<int32_t>()};
    case kInt64:
      return in.take<int64_t>();
    case kUint64: {
      const auto value = in.take<uint64_t>();
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return invalid_argument(in.file(), ": ", where, ": ", value, " is above 2^63-1");
      }
      return static_cast<int64_t>(value);
    }
    default:
      break;
  }
  const auto flag = in.take<uint8_t>();
  if (flag > 1) return data_loss(in.file(), ": ", where, ": bool is ", int{flag}, ", not 0 or 1");
  return int64_t{flag};
}

double take_float(Reader& in, uint32_t type) {
  return type == kFloat32 ? double{in.take<float>()} : in.take<double>();
}

Result<GgufValue> read_array(Reader& in, const std::string& where) {
  uint32_t type = 0;
  RK_RETURN_IF_ERROR(in.read(type, where + " element type"));
  if (type == kArray) return invalid_argument(in.file(), ": ", where, ": an array of arrays");
  if (type >= kNumTypes) {
    return data_loss(in.file(), ": ", where, ": element type ", type, " is none of 0..12");
  }
  int64_t count = 0;
  RK_RETURN_IF_ERROR(in.read_count(count, kWidth[type], kMaxArray, where + " count"));
  const auto n = static_cast<size_t>(count);
  if (type == kString) {
    std::vector<std::string_view> out(n);
    for (std::string_view& text : out) {
      RK_RETURN_IF_ERROR(in.read_view(text, kMaxStringBytes, where));
    }
    return GgufValue(std::move(out));
  }
  if (is_float(type)) {
    std::vector<double> out(n);
    for (double& value : out) value = take_float(in, type);
    return GgufValue(std::move(out));
  }
  std::vector<int64_t> out(n);
  for (int64_t& value : out) {
    RK_TRY(value, take_int(in, type, where));
  }
  if (type == kBool) return GgufValue(std::vector<bool>(out.begin(), out.end()));
  return GgufValue(std::move(out));
}

Result<GgufValue> read_value(Reader& in, const std::string& where) {
  uint32_t type = 0;
  RK_RETURN_IF_ERROR(in.read(type, where + " type"));
  if (type >= kNumTypes) {
    return data_loss(in.file(), ": ", where, ": type ", type, " is none of 0..12");
  }
  if (type == kArray) return read_array(in, where);
  if (type == kString) {
    std::string text;
    RK_RETURN_IF_ERROR(in.read_string(text, kMaxStringBytes, where));
    return GgufValue(std::move(text));
  }
  if (in.left() < kWidth[type]) return in.truncated(kWidth[type], where);
  if (is_float(type)) return GgufValue(take_float(in, type));
  RK_TRY(const int64_t value, take_int(in, type, where));
  if (type == kBool) return GgufValue(value != 0);
  return GgufValue(value);
}

struct Entry {
  std::string name;
  View view;
  int64_t offset = 0;
  int64_t num_bytes = 0;
};

Status set_shape(std::span<const int64_t> dims, View& view) {
  view.rank = static_cast<int>(dims.size());
  int64_t step = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.dim[i] = dims[i];
    view.stride[i] = step;
    if (__builtin_mul_overflow(step, dims[i], &step)) return invalid_argument("overflow");
  }
  return {};
}

Result<DType> stored_dtype(uint32_t id, const std::string& where) {
  std::string known;
  for (const StoredType& t : kStoredTypes) {
    if (t.id == id) return t.dtype;
    known += cat(known.empty() ? "" : ", ", t.id, "=", dtype_name(t.dtype));
  }
  return unimplemented(where, ": stored as type ", id,
                       ", which is not supported; supported: ", known);
}

Result<Entry> read_entry(Reader& in, int64_t alignment) {
  Entry out;
  RK_RETURN_IF_ERROR(in.read_string(out.name, kMaxKeyBytes, "tensor name"));
  const std::string where = cat("tensor '", out.name, "'");
  uint32_t rank = 0;
  RK_RETURN_IF_ERROR(in.read(rank, where + " rank"));
  if (rank < 1 || rank > 4) {
    return invalid_argument(in.file(), ": ", where, ": ", rank, " dimensions, not 1 to 4");
  }
  std::array<int64_t, 4> dims{};
  for (uint32_t i = 0; i < rank; ++i) {  // innermost first in the file
    RK_RETURN_IF_ERROR(in.read(dims[rank - 1 - i], where + " dimensions"));
    const int64_t d = dims[rank - 1 - i];
    if (d < 1 || d > kMaxDim) {
      return invalid_argument(in.file(), ": ", where, ": dimension ", i, " is ", d, ", not in 1..",
                              kMaxDim);
    }
  }
  uint32_t type = 0;
  uint64_t offset = 0;
  RK_RETURN_IF_ERROR(in.read(type, where + " type"));
  RK_RETURN_IF_ERROR(in.read(offset, where + " offset"));
  RK_TRY(out.view.dtype, stored_dtype(type, cat(in.file(), ": ", where)));
  const DTypeInfo& info = dtype_info(out.view.dtype);
  if (dims[rank - 1] % info.block_elems != 0) {
    return invalid_argument(in.file(), ": ", where, ": rows of ", dims[rank - 1],
                            " elements are no multiple of ", info.name, "'s block of ",
                            info.block_elems);
  }
  int64_t blocks = 0;
  if (!set_shape({dims.data(), rank}, out.view).ok() ||
      __builtin_mul_overflow(out.view.num_elements() / info.block_elems, int64_t{info.block_bytes},
                             &blocks)) {
    return invalid_argument(in.file(), ": ", where, ": its size overflows 64 bits");
  }
  out.num_bytes = blocks;
  if (offset % static_cast<uint64_t>(alignment) != 0) {
    return data_loss(in.file(), ": ", where, ": offset ", offset,
                     " is no multiple of the alignment ", alignment);
  }
  if (offset > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / 2)) {
    return data_loss(in.file(), ": ", where, ": offset ", offset, " is beyond any file");
  }
  out.offset = static_cast<int64_t>(offset);
  return out;
}

/// Every tensor inside [0, data_bytes), none over another.
Status check_extents(const std::vector<Entry>& entries, int64_t data_bytes,
                     const std::string& file) {
  std::vector<const Entry*> sorted;
  for (const Entry& e : entries) {
    if (e.num_bytes > data_bytes || e.offset > data_bytes - e.num_bytes) {
      return data_loss(file, ": tensor '", e.name, "': ", e.num_bytes, " bytes at ", e.offset,
                       " reach past the data's ", data_bytes, " bytes");
    }
    sorted.push_back(&e);
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const Entry* a, const Entry* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const Entry& a = *sorted[i - 1];
    const Entry& b = *sorted[i];
    if (a.offset + a.num_bytes > b.offset) {
      return data_loss(file, ": tensor '", a.name, "' ends at ", a.offset + a.num_bytes,
                       ", inside tensor '", b.name, "', which starts at ", b.offset);
    }
  }
  return {};
}

Status read_header(Reader& in, int64_t& num_tensors, int64_t& num_keys) {
  uint32_t magic = 0;
  uint32_t version = 0;
  RK_RETURN_IF_ERROR(in.read(magic, "magic"));
  if (magic != kMagic) return invalid_argument(in.file(), ": does not start with 'GGUF'");
  RK_RETURN_IF_ERROR(in.read(version, "version"));
  if (version != 0 && (version & 0xffff) == 0) {
    return unimplemented(in.file(), ": a big-endian GGUF file");
  }
  if (version != 2 && version != 3) {
    return unimplemented(in.file(), ": GGUF version ", version, "; versions 2 and 3 are read");
  }
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  RK_RETURN_IF_ERROR(in.read_count(num_tensors, kMinTensorBytes, kAny, "tensor count"));
  return in.read_count(num_keys, kMinKvBytes, kAny, "metadata count");
}

}  // namespace

Result<GgufFile> GgufFile::open(const std::string& path) {
  RK_TRY(MappedFile file, MappedFile::open(path));
  auto shared = std::make_shared<MappedFile>(std::move(file));
  RK_TRY(GgufFile out, parse(shared->data(), shared->num_bytes(), path));
  out.file_ = std::move(shared);
  return out;
}

Result<GgufFile> GgufFile::parse(const std::byte* bytes, int64_t num_bytes,
                                 const std::string& name) {
  GgufFile out;
  out.name_ = name;
  out.bytes_ = bytes;
  out.num_bytes_ = num_bytes;
  Reader in(bytes, num_bytes, name);
  int64_t num_tensors = 0;
  int64_t num_keys = 0;
  RK_RETURN_IF_ERROR(read_header(in, num_tensors, num_keys));
  for (int64_t i = 0; i < num_keys; ++i) {
    std::string key;
    RK_RETURN_IF_ERROR(in.read_string(key, kMaxKeyBytes, cat("metadata key ", i)));
    RK_TRY(GgufValue value, read_value(in, cat("key '", key, "'")));
    if (!out.metadata_.emplace(key, std::move(value)).second) {
      return data_loss(name, ": key '", key, "' appears twice");
    }
  }
  int64_t alignment = kDefaultAlignment;
  if (out.find("general.alignment") != nullptr) {
    RK_TRY(alignment, out.get_int("general.alignment"));
  }
  if (alignment < 8 || alignment > kMaxAlignment || (alignment & (alignment - 1)) != 0) {
    return invalid_argument(name, ": general.alignment is ", alignment,
                            ", not a power of two in 8..", kMaxAlignment);
  }
  std::vector<Entry> entries;
  for (int64_t i = 0; i < num_tensors; ++i) {
    RK_TRY(Entry entry, read_entry(in, alignment));
    if (!out.index_.emplace(entry.name, entries.size()).second) {
      return data_loss(name, ": tensor '", entry.name, "' appears twice");
    }
    entries.push_back(std::move(entry));
  }
  const int64_t data_begin = (in.position() + alignment - 1) / alignment * alignment;
  RK_RETURN_IF_ERROR(check_extents(entries, std::max<int64_t>(num_bytes - data_begin, 0), name));
  for (Entry& e : entries) {
    e.view.data = const_cast<std::byte*>(bytes) + data_begin + e.offset;
    out.tensors_.push_back({std::move(e.name), e.view});
  }
  return out;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

namespace {

template <class T>
Result<T> get_as(const GgufFile& file, std::string_view key, const char* kind) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return not_found(file.name(), ": no key '", key, "'");
  if (const T* held = std::get_if<T>(value)) return *held;
  return invalid_argument(file.name(), ": key '", key, "' is not ", kind);
}

}  // namespace

Result<int64_t> GgufFile::get_int(std::string_view key) const {
  return get_as<int64_t>(*this, key, "an integer");
}
Result<double> GgufFile::get_double(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value != nullptr && std::holds_alternative<int64_t>(*value)) {
    return static_cast<double>(std::get<int64_t>(*value));
  }
  return get_as<double>(*this, key, "a number");
}
Result<std::string> GgufFile::get_string(std::string_view key) const {
  return get_as<std::string>(*this, key, "a string");
}
Result<bool> GgufFile::get_bool(std::string_view key) const {
  return get_as<bool>(*this, key, "a bool");
}

const GgufFile::Tensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

void GgufFile::forget(const View& tensor) const {
  if (file_ == nullptr || tensor.empty()) return;
  file_->forget(static_cast<const std::byte*>(tensor.data) - bytes_, tensor.num_bytes());
}

}  // namespace rk
