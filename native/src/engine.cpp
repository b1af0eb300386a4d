#include "engine.h"

#include <algorithm>
#include <cstring>

#include "bands.h"
#include "error.h"
#include "fuse.h"
#include "instruction_sets.h"
#include "json.h"

namespace espnetv2 {

namespace {

constexpr Index kMostResult = Index{1} << 31;  // bytes of one output

constexpr double kSmall = 2048;  // sums of halves may well be larger; 65504 is the end

// Whether the file says that all values of its maps are small.
bool has_small_values(const std::map<std::string, std::string>& texts) {
  const auto found = texts.find("largest");
  if (found == texts.end()) return false;
  const double largest = number_of(found->second);
  return largest > 0 && largest < kSmall;  // neither where it is no number
}

// The header says in which precision the network computes; float32 where it says nothing.
const Kernels& kernels_for(const ModelFile& file) {
  const auto& texts = file.all_metadata();
  const auto found = texts.find("precision");
  const std::string precision = found == texts.end() ? "fp32" : found->second;
  require(precision == "fp32" || precision == "bf16" || precision == "int8",
          "the file is of precision '" + precision + "', which this engine does not have");
  const bool small = has_small_values(texts);
  if (precision == "int8") return best_kernels(Precision::bytes, small);
  return best_kernels(precision == "bf16" ? Precision::halves : Precision::floats, small);
}

}  // namespace

Model::Model(ModelFile file) : file_(std::move(file)), kernels_(&kernels_for(file_)) {
  network_.program = Program::of(file_);
  fuse_rescaling(network_.program);
  split_means(network_.program);
  copy_for_later(network_.program);
  if (kernels_->reads_also) fuse_shortcuts(network_.program);
  arrange(network_.program);
  network_.lanes = kernels_->lanes;
  network_.value = kernels_->bytes;
  network_.places = place_channels(network_.program, network_.lanes);
  defer_gated(network_.program);
  network_.weights = Weights(file_.floats() + file_.floats() / 2);
  for (const Step& step : network_.program.steps) {
    network_.packed.push_back(
        pack(network_.program, network_.places, step, *kernels_, network_.weights));
  }
  file_.forget_arrays();
  const auto& texts = file_.all_metadata();
  if (const auto found = texts.find("preprocessing"); found != texts.end()) {
    preprocessing_ = Preprocessing::of(found->second);
  }
  if (const auto found = texts.find("palette"); found != texts.end()) {
    palette_ = Palette::of(found->second);
  }
}

const Preprocessing& Model::preprocessing() const {
  require(preprocessing_.has_value(),
          "the file does not say how pictures are prepared; export it with `espnetv2 export`");
  require(network_.program.tensors[kImage].channels == 3,
          "the network takes no pictures in colour");
  return *preprocessing_;
}

const Palette& Model::palette() const {
  require(palette_.has_value(), "the file holds no palette; export it with `espnetv2 export`");
  return *palette_;
}

Context::Context(std::shared_ptr<const Model> model, Plan plan, int threads, void* arena)
    : model_(std::move(model)), plan_(std::move(plan)), threads_(threads) {
  if (arena) {
    require(reinterpret_cast<uintptr_t>(arena) % kCacheLine == 0,
            "the arena does not begin on a border of 64 bytes");
    arena_ = static_cast<char*>(arena);
    std::memset(arena, 0, plan_.bytes(threads));
  } else {
    own_arena_ = Floats(plan_.bytes(threads) / sizeof(float) + 1);
    arena_ = reinterpret_cast<char*>(own_arena_.data());
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

void Context::see(const Picture& picture) {
  const Preprocessing& preprocessing = model_->preprocessing();
  require(plan_.batch == 1, "pictures are seen one by one: open the model for a batch of 1");
  prepared_.resize(3 * static_cast<size_t>(plan_.height) * static_cast<size_t>(plan_.width));
  preprocessing.prepare(picture, plan_.height, plan_.width, prepared_.data());
  run(prepared_.data());
}

void Context::lay_out_results() {
  using Form = Output::Form;
  const Program& program = model_->network().program;
  for (size_t i = 0; i < program.outputs.size(); ++i) {
    const Output& output = program.outputs[i];
    const auto first = static_cast<size_t>(output.tensors[0]);
    const int64_t batch = plan_.batch, channels = program.tensors[first].channels;
    const int64_t height = output.enlarged ? plan_.height : plan_.heights[first];
    const int64_t width = output.enlarged ? plan_.width : plan_.widths[first];
    switch (output.form) {
      case Form::map:
        add_result(output.name, Result::Type::floats, {batch, channels, height, width});
        break;
      case Form::vector:
      case Form::probabilities:
        add_result(output.name, Result::Type::floats, {batch, channels});
        break;
      case Form::classes:
        add_result(output.name, Result::Type::bytes, {batch, height, width});
        break;
      case Form::places: {
        int64_t count = 0;
        for (const Name name : output.tensors) {
          const auto at = static_cast<size_t>(name);
          count += static_cast<int64_t>(plan_.heights[at]) * plan_.widths[at] *
                   (program.tensors[at].channels / output.values);
        }
        add_result(output.name, Result::Type::floats, {batch, count, output.values});
        break;
      }
      case Form::boxes: {
        const int64_t count = plan_.detections[i].boxes;
        add_result("boxes", Result::Type::floats, {batch, count, 4});
        add_result("scores", Result::Type::floats, {batch, count});
        add_result("labels", Result::Type::numbers, {batch, count});
      }
    }
  }
  const Result& last = results_.back();
  result_memory_.resize(static_cast<size_t>(last.start + last.size));
}

void Context::add_result(const std::string& name, Result::Type type, std::vector<int64_t> shape) {
  Result result;
  result.name = name;
  result.type = type;
  constexpr size_t sizes[] = {sizeof(float), sizeof(uint8_t), sizeof(int64_t)};
  result.size = static_cast<Index>(sizes[static_cast<size_t>(type)]);
  for (const int64_t side : shape) {
    require(side <= kMostResult / result.size, "what the network gives is too large");
    result.size *= side;
  }
  result.shape = std::move(shape);
  if (!results_.empty()) {
    const Index end = results_.back().start + results_.back().size;
    result.start = (end + 63) / 64 * 64;
  }
  results_.push_back(std::move(result));
}

}  // namespace espnetv2
