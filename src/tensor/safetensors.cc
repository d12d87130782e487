#include "tensor/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <limits>
#include <set>

namespace rk {
namespace {

namespace json = boost::json;

constexpr uint64_t kMaxHeaderBytes = uint64_t{32} << 20;
constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

struct StoredType {
  const char* name;
  int bytes;
  bool readable;
  DType dtype;
};
constexpr StoredType kStoredTypes[] = {
    {"F32", 4, true, DType::kF32},      {"F16", 2, true, DType::kF16},
    {"BF16", 2, true, DType::kBf16},    {"F64", 8, false, DType::kF32},
    {"I64", 8, false, DType::kF32},     {"U64", 8, false, DType::kF32},
    {"I32", 4, false, DType::kF32},     {"U32", 4, false, DType::kF32},
    {"I16", 2, false, DType::kF32},     {"U16", 2, false, DType::kF32},
    {"I8", 1, false, DType::kF32},      {"U8", 1, false, DType::kF32},
    {"BOOL", 1, false, DType::kF32},    {"F8_E4M3", 1, true, DType::kE4m3},
    {"F8_E5M2", 1, false, DType::kF32},
};

Result<json::value> parse_json(const std::byte* bytes, int64_t num, const std::string& where) {
  json::error_code error;
  json::parse_options options;
  options.max_depth = 8;
  json::value out =
      json::parse(json::string_view(reinterpret_cast<const char*>(bytes), static_cast<size_t>(num)),
                  error, {}, options);
  if (error) return data_loss(where, ": not JSON: ", error.message());
  if (!out.is_object()) return data_loss(where, ": not a JSON object");
  return out;
}

/// Non-negative integers of a JSON array.
Result<std::vector<int64_t>> read_integers(const json::object& entry, const char* field,
                                           const std::string& where) {
  const json::value* list = entry.if_contains(field);
  if (list == nullptr || !list->is_array()) {
    return data_loss(where, ": ", field, " is missing or not an array");
  }
  std::vector<int64_t> out;
  for (const json::value& item : list->get_array()) {
    const int64_t* number = item.if_int64();
    if (number == nullptr || *number < 0) {
      return data_loss(where, ": ", field, "[", out.size(), "] is not an integer of 0 to 2^63-1");
    }
    out.push_back(*number);
  }
  return out;
}

struct Entry {
  Safetensors::Tensor tensor;
  int64_t begin = 0;
  int64_t end = 0;
};

void set_view(const std::vector<int64_t>& shape, Entry& entry) {
  View& view = entry.tensor.view;
  if (shape.empty()) {  // a scalar reads as one row of one
    view.rank = 1;
    view.dim[0] = view.stride[0] = 1;
    return;
  }
  view.rank = static_cast<int>(shape.size());
  int64_t step = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.dim[i] = shape[i];
    view.stride[i] = step;
    step *= shape[i];
  }
}

/// `data` is what follows the header.
Result<Entry> read_entry(std::string_view name, const json::value& value, const std::byte* data,
                         int64_t data_bytes, const std::string& file) {
  const std::string where = cat(file, ": tensor '", name, "'");
  if (!value.is_object()) return data_loss(where, ": not an object");
  const json::object& object = value.get_object();
  const json::value* dtype = object.if_contains("dtype");
  if (dtype == nullptr || !dtype->is_string()) return data_loss(where, ": no dtype");
  const std::string_view type_name(dtype->get_string().data(), dtype->get_string().size());
  const auto* type = std::find_if(std::begin(kStoredTypes), std::end(kStoredTypes),
                                  [&](const StoredType& t) { return type_name == t.name; });
  if (type == std::end(kStoredTypes)) {
    return unimplemented(where, ": dtype '", type_name, "' is not known");
  }
  RK_TRY(const std::vector<int64_t> shape, read_integers(object, "shape", where));
  RK_TRY(const std::vector<int64_t> offsets, read_integers(object, "data_offsets", where));
  if (offsets.size() != 2) {
    return data_loss(where, ": ", offsets.size(), " data_offsets, 2 wanted");
  }
  Entry out;
  out.begin = offsets[0];
  out.end = offsets[1];
  if (out.begin > out.end || out.end > data_bytes) {
    return data_loss(where, ": data_offsets ", out.begin, " to ", out.end, " of ", data_bytes,
                     " bytes");
  }
  int64_t bytes = type->bytes;
  bool overflow = false;
  for (const int64_t d : shape) overflow = overflow || __builtin_mul_overflow(bytes, d, &bytes);
  if (overflow) return invalid_argument(where, ": its size overflows 64 bits");
  if (bytes != out.end - out.begin) {
    return data_loss(where, ": its shape needs ", bytes, " bytes, data_offsets hold ",
                     out.end - out.begin);
  }
  out.tensor.name = name;
  out.tensor.stored_dtype = type->name;
  if (shape.size() <= 4) set_view(shape, out);
  out.tensor.view.dtype = type->dtype;
  if (!type->readable || shape.size() > 4) return out;
  const std::byte* first = data + out.begin;
  if (reinterpret_cast<uintptr_t>(first) % static_cast<size_t>(type->bytes) != 0) {
    return data_loss(where, ": its data are not aligned to ", type->bytes, " bytes");
  }
  out.tensor.view.data = const_cast<std::byte*>(first);
  return out;
}

Status check_overlaps(std::vector<Entry>& entries, const std::string& file) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  for (size_t i = 1; i < entries.size(); ++i) {
    const Entry& a = entries[i - 1];
    const Entry& b = entries[i];
    if (a.end > b.begin) {
      return data_loss(file, ": tensor '", a.tensor.name, "' ends at ", a.end, ", inside tensor '",
                       b.tensor.name, "', which starts at ", b.begin);
    }
  }
  return {};
}

/// A shard is a plain file name in the index's own folder.
Status check_shard_name(std::string_view shard, const std::string& index) {
  if (shard.empty() || shard.find_first_of(std::string_view("/\\\0", 3)) != shard.npos ||
      !shard.ends_with(".safetensors")) {
    return invalid_argument(index, ": shard '", shard,
                            "' is not the name of a .safetensors file in the same folder");
  }
  return {};
}

/// Tensor name -> shard.
Result<std::map<std::string, std::string>> read_index(const std::string& path) {
  RK_TRY(const MappedFile file, MappedFile::open(path));
  if (file.num_bytes() > static_cast<int64_t>(kMaxHeaderBytes)) {
    return invalid_argument(path, ": ", file.num_bytes(), " bytes, at most ", kMaxHeaderBytes);
  }
  RK_TRY(const json::value root, parse_json(file.data(), file.num_bytes(), path));
  const json::value* map = root.get_object().if_contains("weight_map");
  if (map == nullptr || !map->is_object()) return data_loss(path, ": no object 'weight_map'");
  std::map<std::string, std::string> out;
  for (const auto& [name, shard] : map->get_object()) {
    if (!shard.is_string()) {
      return data_loss(path, ": weight_map['", std::string_view(name), "'] is not a string");
    }
    const std::string shard_name(shard.get_string().data(), shard.get_string().size());
    RK_RETURN_IF_ERROR(check_shard_name(shard_name, path));
    out.emplace(std::string(name.data(), name.size()), shard_name);
  }
  if (out.empty()) return data_loss(path, ": 'weight_map' is empty");
  return out;
}

}  // namespace

Result<Safetensors> Safetensors::open(const std::string& path) {
  struct stat info {};
  const bool folder = stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  Safetensors out;
  std::map<std::string, std::string> index;
  const std::string index_path = path + "/" + kIndex;
  if (!folder) {
    out.paths_ = {path};
  } else if (const std::string single = path + "/" + kSingle; stat(single.c_str(), &info) == 0) {
    out.paths_ = {single};
  } else if (stat(index_path.c_str(), &info) == 0) {
    RK_TRY(index, read_index(index_path));
    std::set<std::string> shards;
    for (const auto& [name, shard] : index) shards.insert(shard);
    for (const std::string& shard : shards) out.paths_.push_back(path + "/" + shard);
  } else {
    return not_found(path, ": neither ", kSingle, " nor ", kIndex, " there");
  }
  for (const std::string& file_path : out.paths_) {
    RK_TRY(MappedFile file, MappedFile::open(file_path));
    out.files_.push_back(std::make_shared<MappedFile>(std::move(file)));
    RK_RETURN_IF_ERROR(
        out.add(out.files_.back()->data(), out.files_.back()->num_bytes(), file_path));
  }
  for (const auto& [name, shard] : index) {
    if (out.find_tensor(name) == nullptr) {
      return data_loss(index_path, ": tensor '", name, "' is not in its shard ", shard);
    }
  }
  return out;
}

Result<Safetensors> Safetensors::parse(const std::byte* bytes, int64_t num_bytes,
                                       const std::string& name) {
  Safetensors out;
  out.paths_ = {name};
  RK_RETURN_IF_ERROR(out.add(bytes, num_bytes, name));
  return out;
}

Status Safetensors::add(const std::byte* bytes, int64_t num_bytes, const std::string& name) {
  uint64_t header_bytes = 0;
  if (num_bytes < static_cast<int64_t>(sizeof(header_bytes))) {
    return data_loss(name, ": ", num_bytes, " bytes, the header's length alone needs 8");
  }
  std::memcpy(&header_bytes, bytes, sizeof(header_bytes));
  const auto left = static_cast<uint64_t>(num_bytes) - sizeof(header_bytes);
  if (header_bytes > left || header_bytes > kMaxHeaderBytes) {
    return data_loss(name, ": header of ", header_bytes, " bytes promised, ", left,
                     " left, at most ", kMaxHeaderBytes);
  }
  const auto header = static_cast<int64_t>(header_bytes);
  RK_TRY(const json::value root, parse_json(bytes + 8, header, name + ": header"));
  const std::byte* data = bytes + 8 + header;
  const int64_t data_bytes = num_bytes - 8 - header;
  std::vector<Entry> entries;
  for (const auto& [key, value] : root.get_object()) {
    if (key == "__metadata__") continue;
    RK_TRY(Entry entry, read_entry({key.data(), key.size()}, value, data, data_bytes, name));
    entries.push_back(std::move(entry));
  }
  RK_RETURN_IF_ERROR(check_overlaps(entries, name));
  const int64_t used = entries.empty() ? 0 : entries.back().end;
  if (used != data_bytes) {
    return data_loss(name, ": the tensors end at ", used, " of ", data_bytes, " bytes of data");
  }
  for (Entry& entry : entries) {
    if (!index_.emplace(entry.tensor.name, tensors_.size()).second) {
      return data_loss(name, ": tensor '", entry.tensor.name, "' appears in two shards");
    }
    tensors_.push_back(std::move(entry.tensor));
  }
  num_bytes_ += num_bytes;
  return {};
}

const Safetensors::Tensor* Safetensors::find_tensor(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

void Safetensors::forget(const View& tensor) const {
  if (tensor.empty()) return;
  const auto* first = static_cast<const std::byte*>(tensor.data);
  for (const auto& file : files_) {
    if (first >= file->data() && first < file->data() + file->num_bytes()) {
      file->forget(first - file->data(), tensor.num_bytes());
    }
  }
}

}  // namespace rk
