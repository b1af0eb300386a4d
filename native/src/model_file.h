// A model file: safetensors, whose metadata hold the program (see docs/native.md).
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "memory.h"

namespace espnetv2 {

// Numbers of the file, which holds them as float32, bfloat16 or int8, as float32.
struct Array {
  std::vector<int64_t> shape;
  const float* data = nullptr;

  int64_t size() const {
    int64_t count = 1;
    for (int64_t side : shape) count *= side;
    return count;
  }
};

// The file's content, checked: every array lies inside of it.
class ModelFile {
 public:
  // Raises Error where the file cannot be read or is not sound.
  static ModelFile read(const std::string& path);
  static ModelFile of(const void* bytes, size_t size);
  ModelFile(ModelFile&&) = default;
  ModelFile& operator=(ModelFile&&) = default;

  // Valid, but for its data, even after `forget_arrays`.
  const Array& array(const std::string& name) const;
  void forget_arrays();
  size_t floats() const { return size_ / sizeof(float); }
  const std::string& metadata(const std::string& key) const;
  const std::map<std::string, std::string>& all_metadata() const { return metadata_; }

 private:
  ModelFile() = default;
  void parse();
  void widen(const std::vector<std::pair<Array*, size_t>>& narrow);

  std::shared_ptr<const char> bytes_;
  std::shared_ptr<Floats> widened_;  // what the file holds in fewer bytes
  size_t size_ = 0;
  std::map<std::string, Array> arrays_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace espnetv2
