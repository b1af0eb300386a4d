#include "engine.h"

#include <algorithm>
#include <cstring>

#include "bands.h"
#include "error.h"
#include "instruction_sets.h"

namespace espnetv2 {

Model::Model(ModelFile file) : file_(std::move(file)), kernels_(&best_kernels()) {
  network_.program = Program::of(file_);
  arrange(network_.program);
  network_.lanes = kernels_->lanes;
  network_.places = place_channels(network_.program, network_.lanes);
  network_.weights = Weights(file_.floats() + file_.floats() / 2);
  for (const Step& step : network_.program.steps) {
    network_.packed.push_back(
        pack(network_.program, network_.places, step, network_.lanes, network_.weights));
  }
  file_.forget_arrays();
}

Context::Context(std::shared_ptr<const Model> model, Plan plan, int threads, void* arena)
    : model_(std::move(model)), plan_(std::move(plan)), threads_(threads) {
  if (arena) {
    require(reinterpret_cast<uintptr_t>(arena) % kCacheLine == 0,
            "the arena does not begin on a border of 64 bytes");
    arena_ = static_cast<float*>(arena);
    std::memset(arena, 0, plan_.bytes(threads));
  } else {
    own_arena_ = Floats(plan_.bytes(threads) / sizeof(float));
    arena_ = own_arena_.data();
  }
  lay_out_results();
  work_ = [this](int thread) {
    const Memory memory{arena_, image_, &results_, result_memory_.data()};
    run_groups(*model_, plan_, threads_, thread, memory, milliseconds_);
  };
}

void Context::run(const float* image) {
  image_ = image;
  threads_.run(work_);
}

int Context::profile(const float* image, const char** names, double* milliseconds) {
  const size_t count = plan_.groups.size();
  for (size_t i = 0; names && i < count; ++i) names[i] = plan_.groups[i].name.c_str();
  if (milliseconds) {
    milliseconds_ = milliseconds;
    run(image);
    milliseconds_ = nullptr;
  }
  return static_cast<int>(count);
}

void Context::lay_out_results() {
  Index end = 0;
  for (const Output& output : model_->network().program.outputs) {
    Result result;
    result.name = output.name;
    result.start = end;
    const auto first = static_cast<size_t>(output.tensors[0]);
    const int channels = model_->network().program.tensors[first].channels;
    result.shape = {plan_.batch};
    switch (output.form) {
      case Output::Form::map:
        result.shape.push_back(channels);
        result.shape.push_back(output.enlarged ? plan_.height : plan_.heights[first]);
        result.shape.push_back(output.enlarged ? plan_.width : plan_.widths[first]);
        break;
      case Output::Form::vector:
        result.shape.push_back(channels);
        break;
      case Output::Form::classes:
        result.bytes = true;
        result.shape.insert(result.shape.end(), {plan_.height, plan_.width});
        break;
      case Output::Form::places: {
        int64_t count = 0;
        for (const Name name : output.tensors) {
          const auto i = static_cast<size_t>(name);
          count += static_cast<int64_t>(plan_.heights[i]) * plan_.widths[i] *
                   (model_->network().program.tensors[i].channels / output.values);
        }
        result.shape.insert(result.shape.end(), {count, output.values});
      }
    }
    result.size = result.bytes ? 1 : static_cast<Index>(sizeof(float));
    for (const int64_t side : result.shape) result.size *= side;
    end += (result.size + 63) / 64 * 64;
    results_.push_back(std::move(result));
  }
  result_memory_.resize(static_cast<size_t>(end));
}

}  // namespace espnetv2
