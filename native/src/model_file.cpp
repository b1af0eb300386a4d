#include "model_file.h"

#include <cstdio>
#include <cstring>
#include <memory>

#include "error.h"
#include "half.h"
#include "json.h"
#include "memory.h"

namespace espnetv2 {

namespace {

constexpr size_t kLength = 8;                  // bytes that say how long the header is
constexpr uint64_t kLongestHeader = 4u << 20;  // bytes
constexpr size_t kLargestFile = size_t{1} << 31;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

// Memory on a border of floats.
std::shared_ptr<char> bytes_of(size_t size) {
  const auto memory = std::make_shared<Floats>(size / sizeof(float) + 1);
  return {memory, reinterpret_cast<char*>(memory->data())};
}

}  // namespace

ModelFile ModelFile::read(const std::string& path) {
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  require(file != nullptr, path + " cannot be opened");
  const bool sought = std::fseek(file.get(), 0, SEEK_END) == 0;
  const long length = sought ? std::ftell(file.get()) : -1;
  require(length >= 0 && static_cast<size_t>(length) < kLargestFile,
          path + " is no regular file, or too large");
  std::rewind(file.get());
  ModelFile model;
  model.size_ = static_cast<size_t>(length);
  const auto bytes = bytes_of(model.size_);
  const size_t got = std::fread(bytes.get(), 1, model.size_, file.get());
  require(got == model.size_, path + " cannot be read");
  model.bytes_ = bytes;
  try {
    model.parse();
  } catch (const Error& error) {
    throw Error(path + ": " + error.what());
  }
  return model;
}

ModelFile ModelFile::of(const void* bytes, size_t size) {
  require(size < kLargestFile, "the model is too large");
  ModelFile model;
  model.size_ = size;
  const auto copy = bytes_of(size);
  if (size) std::memcpy(copy.get(), bytes, size);
  model.bytes_ = copy;
  model.parse();
  return model;
}

void ModelFile::parse() {
  const char* bytes = bytes_.get();
  require(size_ >= kLength, "not a model file: it is shorter than its header");
  uint64_t header = 0;
  for (size_t i = 0; i < kLength; ++i) {
    header |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  require(header <= kLongestHeader && header <= size_ - kLength,
          "truncated, or not a model file: its header is longer than the file");
  const Json document = Json::parse({bytes + kLength, static_cast<size_t>(header)});
  require(document.has("__metadata__") && document.at("__metadata__").has("format"),
          "not a model file of this engine, though maybe one of weights; make one with "
          "`espnetv2 export --to native`");
  const size_t start = kLength + static_cast<size_t>(header);
  const size_t room = size_ - start;
  require(start % sizeof(float) == 0, "the arrays are not aligned; export again");
  std::vector<std::pair<Array*, size_t>> narrow;
  for (const auto& [name, value] : document.object()) {
    if (name == "__metadata__") {
      for (const auto& [key, text] : value.object()) metadata_[key] = text.text();
      continue;
    }
    const std::string& type = value.at("dtype").text();
    const size_t own = type == "F32" ? 4 : type == "BF16" ? 2 : type == "I8" ? 1 : 0;
    require(own > 0, "array '" + name + "' is neither of float32, bfloat16 nor int8");
    Array array;
    uint64_t count = 1;
    for (const Json& side : value.at("shape").list()) {
      array.shape.push_back(side.integer(1, 1 << 24));
      count *= static_cast<uint64_t>(array.shape.back());
      require(count <= kLargestFile, "array '" + name + "' is too large");
    }
    const auto& range = value.at("data_offsets").list();
    require(range.size() == 2, "array '" + name + "' has no range");
    const auto from = static_cast<uint64_t>(range[0].integer(0, int64_t{1} << 40));
    const auto end = static_cast<uint64_t>(range[1].integer(0, int64_t{1} << 40));
    require(from <= end && end <= room && end - from == count * own && from % own == 0,
            "truncated or damaged: array '" + name + "' does not lie inside the file");
    array.data = reinterpret_cast<const float*>(bytes + start + from);
    arrays_[name] = array;
    if (own < sizeof(float)) narrow.emplace_back(&arrays_[name], own);
  }
  widen(narrow);
}

// Replaces bfloat16s and bytes.
void ModelFile::widen(const std::vector<std::pair<Array*, size_t>>& narrow) {
  size_t total = 0;
  for (const auto& [array, bytes] : narrow) {
    total += static_cast<size_t>(array->size());
    require(total <= kLargestFile / sizeof(float), "the arrays are too large together");
  }
  widened_ = std::make_shared<Floats>(total);
  float* to = widened_->data();
  for (const auto& [array, bytes] : narrow) {
    const char* from = reinterpret_cast<const char*>(array->data);
    array->data = to;
    const int64_t size = array->size();
    for (int64_t i = 0; i < size && bytes == 1; ++i) {
      to[i] = static_cast<float>(static_cast<signed char>(from[i]));
    }
    for (int64_t i = 0; i < size && bytes == 2; ++i) {
      uint16_t half = 0;
      std::memcpy(&half, from + 2 * i, sizeof half);
      to[i] = float_of(half);
    }
    to += size;
  }
}

const Array& ModelFile::array(const std::string& name) const {
  const auto found = arrays_.find(name);
  require(found != arrays_.end(), "the file lacks the array '" + name + "'");
  return found->second;
}

void ModelFile::forget_arrays() {
  for (auto& [name, array] : arrays_) array.data = nullptr;
  bytes_ = nullptr;
  widened_ = nullptr;
}

const std::string& ModelFile::metadata(const std::string& key) const {
  const auto found = metadata_.find(key);
  require(found != metadata_.end(),
          "not a model file of this engine: its header has no '" + key + "'");
  return found->second;
}

}  // namespace espnetv2
