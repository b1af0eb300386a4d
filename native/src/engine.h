// A loaded network, and a run of it at one size.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/arguments.h"
#include "memory.h"
#include "model_file.h"
#include "picture.h"
#include "plan.h"
#include "threads.h"

namespace espnetv2 {

// What a file holds, with its weights in the order of one instruction set. Never changes, so any
// number of contexts on any threads may use it at once.
class Model {
 public:
  // Raises Error where the file states no sound network.
  explicit Model(ModelFile file);

  const ModelFile& file() const { return file_; }
  const Network& network() const { return network_; }
  const Kernels& kernels() const { return *kernels_; }

  // What the file's header says of pictures; raises Error where it does not.
  const Preprocessing& preprocessing() const;
  const Preprocessing* states_preprocessing() const {
    return preprocessing_ ? &*preprocessing_ : nullptr;
  }
  const Palette& palette() const;

 private:
  ModelFile file_;
  const Kernels* kernels_;
  Network network_;
  std::optional<Preprocessing> preprocessing_;
  std::optional<Palette> palette_;
};

// An output's values as they lie in memory.
struct Result {
  std::string name;
  enum class Type { floats, bytes, numbers } type = Type::floats;  // numbers are int64
  std::vector<int64_t> shape;
  Index start = 0;  // in bytes, within all results
  Index size = 0;   // in bytes
};

// A model at one size, with memory and threads of its own. One call at a time.
class Context {
 public:
  // `arena` is null, or `plan.bytes(threads)` bytes on a border of 64 that live as long as this.
  Context(std::shared_ptr<const Model> model, Plan plan, int threads, void* arena = nullptr);

  // Image: float (batch, channels, height, width). Allocates nothing.
  void run(const float* image);

  // Prepares one picture and runs. Raises Error where the model does not say how.
  void see(const Picture& picture);

  const std::vector<Result>& results() const { return results_; }
  const void* result(size_t index) const { return result_memory_.data() + results_[index].start; }

  // Runs once and tells how long each group took; see espnetv2.h.
  int profile(const float* image, const char** names, double* milliseconds);

 private:
  void lay_out_results();
  void add_result(const std::string& name, Result::Type type, std::vector<int64_t> shape);

  std::shared_ptr<const Model> model_;
  Plan plan_;
  Threads threads_;
  Floats own_arena_;
  char* arena_ = nullptr;
  std::vector<Result> results_;
  std::vector<uint8_t> result_memory_;
  std::function<void(int)> work_;
  const float* image_ = nullptr;
  double* milliseconds_ = nullptr;  // of each group, where asked for
  std::vector<float> prepared_;     // what was made of the last picture
};

}  // namespace espnetv2
