#include "program.h"

#include <map>

#include "detections.h"
#include "error.h"
#include "json.h"

namespace espnetv2 {

namespace {

constexpr int kMost = kMostChannels;  // and groups, dilations, classes
constexpr size_t kMostSteps = 2000, kMostInputs = 64, kMostOutputs = 16;
constexpr int64_t kMostInAll = 1 << 22;  // channels of all maps

// Reads the program's JSON and counts the channels of every tensor.
class Writer {
 public:
  Writer(const ModelFile& file, const Json& document) : file_(file), document_(document) {}

  Program program() {
    declare("image", static_cast<int>(document_.at("channels").integer(1, kMost)));
    const auto& steps = document_.at("steps").list();
    require(!steps.empty() && steps.size() <= kMostSteps, "the program has no or too many steps");
    for (const Json& value : steps) add(value);
    for (const Json& value : document_.at("outputs").list()) output(value);
    require(!program_.outputs.empty(), "the program gives nothing");
    require(program_.outputs.size() <= kMostOutputs, "the program gives too much");
    return std::move(program_);
  }

 private:
  static Step::Kind kind_of(const std::string& name) {
    static const std::map<std::string, Step::Kind> kinds = {
        {"conv", Step::Kind::conv},         {"pyramid", Step::Kind::pyramid},
        {"shrink", Step::Kind::shrink},     {"maximum", Step::Kind::maximum},
        {"mean", Step::Kind::mean},         {"adapt", Step::Kind::adapt},
        {"resize", Step::Kind::resize},     {"combine", Step::Kind::combine},
        {"logistic", Step::Kind::logistic}, {"gather", Step::Kind::gather},
        {"shuffle", Step::Kind::shuffle},   {"concat", Step::Kind::concat},
        {"enlarge", Step::Kind::enlarge},
    };
    const auto found = kinds.find(name);
    require(found != kinds.end(), "the program has a step '" + name +
                                      "' that is unknown here; "
                                      "export again with this version");
    return found->second;
  }

  Name declare(const std::string& name, int channels) {
    require(names_.emplace(name, static_cast<Name>(program_.tensors.size())).second,
            "the program makes '" + name + "' twice");
    require(channels > 0 && channels <= kMost, "'" + name + "' has no or too many channels");
    in_all_ += channels;
    require(in_all_ <= kMostInAll, "the program's maps have too many channels");
    program_.tensors.push_back({name, channels});
    return names_.at(name);
  }

  Name named(const std::string& name) const {
    const auto found = names_.find(name);
    require(found != names_.end(), "the program reads '" + name + "' before it is made");
    return found->second;
  }

  Name named_or_none(const Json& value, const std::string& key) const {
    return value.has(key) ? named(value.at(key).text()) : kNone;
  }

  int channels(Name name) const { return program_.tensors[static_cast<size_t>(name)].channels; }

  // An array of the file, of a shape that is known but for sides of 0.
  const Array* array(const Json& value, const std::string& key,
                     const std::vector<int64_t>& shape) const {
    if (!value.has(key)) return nullptr;
    const Array& found = file_.array(value.at(key).text());
    bool fits = found.shape.size() == shape.size();
    for (size_t i = 0; fits && i < shape.size(); ++i) {
      fits = shape[i] == 0 || found.shape[i] == shape[i];
    }
    require(fits, "array '" + value.at(key).text() + "' has another shape than its step needs");
    return &found;
  }

  Size size(const Json& value) const {
    Size size;
    size.like = named(value.at("like").text());
    size.numerator = static_cast<int>(value.integer_or("numerator", 1, 1, 1000));
    size.denominator = static_cast<int>(value.integer_or("denominator", 1, 1, 1000));
    size.least = static_cast<int>(value.integer_or("least", 1, 1, 1000));
    return size;
  }

  void add(const Json& value) {
    Step step;
    step.kind = kind_of(value.at("op").text());
    for (const Json& name : value.at("in").list()) step.inputs.push_back(named(name.text()));
    require(!step.inputs.empty() && step.inputs.size() <= kMostInputs,
            "a step reads nothing or too much");
    step.stride = static_cast<int>(value.integer_or("stride", 1, 1, 2));
    step.dilation = static_cast<int>(value.integer_or("dilation", 1, 1, 64));
    step.groups = static_cast<int>(value.integer_or("groups", 1, 1, kMost));
    step.running = value.boolean_or("running", false);
    step.residual = named_or_none(value, "residual");
    step.gate = named_or_none(value, "gate");
    step.other = named_or_none(value, "other");
    step.lanes_of = named_or_none(value, "lanes_of");
    if (value.has("size")) step.size = size(value.at("size"));
    check_options(step);
    const int made = made_by(step, value);
    per_channel(step, value, made);
    for (const Name name : {step.residual, step.gate, step.other, step.lanes_of}) {
      require(name == kNone || channels(name) == made, "a step adds maps of unlike channels");
    }
    step.out = declare(value.at("out").text(), made);
    program_.steps.push_back(std::move(step));
  }

  // What a kind of step does not know must not be there: nothing behind here would look at it.
  static void check_options(const Step& step) {
    using Kind = Step::Kind;
    const bool mixes = step.kind == Kind::conv, combines = step.kind == Kind::combine;
    require((mixes || (step.residual == kNone && step.lanes_of == kNone)) &&
                (combines || (step.gate == kNone && step.other == kNone)) &&
                (mixes || step.dilation == 1) &&
                (mixes || step.kind == Kind::pyramid || step.stride == 1) &&
                (mixes || step.kind == Kind::shuffle || step.groups == 1),
            "a step has an option that its kind does not know");
  }

  void per_channel(Step& step, const Json& value, int made) const {
    step.bias = array(value, "bias", {made});
    step.scale = array(value, "scale", {made});
    step.shift = array(value, "shift", {made});
    step.rise = array(value, "rise", {made});
    step.fall = array(value, "fall", {made});
    require(!step.rise == !step.fall && !step.scale == !step.shift,
            "a step has one slope, or a scale without a shift");
  }

  // Reads what only this kind of step has; gives the channels of its result.
  int made_by(Step& step, const Json& value) const {
    const int first = channels(step.inputs[0]);
    using Kind = Step::Kind;
    if (step.kind != Kind::concat && step.kind != Kind::pyramid) {
      require(step.inputs.size() == 1, "a step reads several maps, but takes one");
    }
    switch (step.kind) {
      case Kind::conv:
        return conv(step, value, first);
      case Kind::pyramid:
        return pyramid(step, value, first);
      case Kind::enlarge: {
        step.weight = array(value, "weight", {first, 0, 2, 2});
        require(step.weight && step.size.like != kNone, "an enlargement lacks weights or size");
        return static_cast<int>(step.weight->shape[1]);
      }
      case Kind::concat: {
        int total = 0;
        for (const Name name : step.inputs) total += channels(name);
        require(total <= kMost, "a concatenation has too many channels");
        return total;
      }
      case Kind::gather: {
        for (const Json& one : value.at("channels").list()) {
          step.picked.push_back(static_cast<int>(one.integer(0, first - 1)));
        }
        return static_cast<int>(step.picked.size());
      }
      case Kind::shuffle:
        require(first % step.groups == 0, "a shuffle does not divide");
        break;
      case Kind::adapt:
      case Kind::resize:
        require(step.size.like != kNone, "a resized map has no size");
        break;
      default:
        break;
    }
    return first;
  }

  int conv(Step& step, const Json& value, int first) const {
    require(first % step.groups == 0, "a convolution's groups do not divide its input");
    step.weight = array(value, "weight", {0, first / step.groups, 0, 0});
    require(step.weight != nullptr, "a convolution lacks its weights");
    const auto& shape = step.weight->shape;
    require(shape[0] <= kMost && shape[0] % step.groups == 0 && shape[2] == shape[3] &&
                shape[2] % 2 == 1 && shape[2] <= 7,
            "a convolution's weights have an odd shape");
    step.weight_scale = array(value, "weight_scale", {shape[0]});
    require(!step.weight_scale == !value.has("input_scale"),
            "a convolution of bytes lacks one of its scales");
    if (step.weight_scale) {
      const double scale = value.at("input_scale").number();
      require(shape[2] == 1 && step.stride == 1 && scale > 1e-30 && scale < 1e30,
              "a convolution of bytes is larger than 1x1, or its scale is no such number");
      step.input_scale = static_cast<float>(scale);
      step.input_zero = static_cast<int>(value.at("input_zero").integer(0, 255));
    }
    return static_cast<int>(shape[0]);
  }

  int pyramid(Step& step, const Json& value, int first) const {
    for (const Name name : step.inputs) {
      require(channels(name) == first, "a pyramid reads maps of unlike channels");
    }
    for (const Json& one : value.at("branches").list()) {
      Branch branch;
      const auto sources = static_cast<int64_t>(step.inputs.size());
      branch.weight = array(one, "weight", {first, sources, 0, 0});
      branch.bias = array(one, "bias", {first});
      branch.dilation = static_cast<int>(one.integer_or("dilation", 1, 1, 64));
      require(branch.weight && branch.weight->shape[2] == branch.weight->shape[3] &&
                  branch.weight->shape[2] % 2 == 1 && branch.weight->shape[2] <= 7,
              "a pyramid's branch lacks its weights, or they have an odd shape");
      step.branches.push_back(branch);
    }
    require(!step.branches.empty() && step.branches.size() <= 64, "a pyramid has no branches");
    return first * static_cast<int>(step.branches.size());
  }

  void output(const Json& value) {
    static const std::map<std::string, Output::Form> forms = {
        {"map", Output::Form::map},
        {"vector", Output::Form::vector},
        {"probabilities", Output::Form::probabilities},
        {"places", Output::Form::places},
        {"classes", Output::Form::classes},
        {"boxes", Output::Form::boxes},
    };
    const auto form = forms.find(value.at("form").text());
    require(form != forms.end(), "the program gives a form that is unknown here");
    Output output;
    output.name = value.at("name").text();
    output.form = form->second;
    output.values = static_cast<int>(value.integer_or("values", 1, 1, kMost));
    output.multi_label = value.boolean_or("multi_label", false);
    output.enlarged = value.boolean_or("enlarged", false) || form->second == Output::Form::classes;
    for (const Json& name : value.at("in").list()) {
      output.tensors.push_back(named(name.text()));
      require(output.tensors.back() != kImage, "the program gives the image back");
      require(output.form == Output::Form::boxes ||
                  channels(output.tensors.back()) % output.values == 0,
              "an output does not divide");
    }
    if (output.form == Output::Form::boxes) read_boxes(output, value);
    const bool several = output.form == Output::Form::places || output.form == Output::Form::boxes;
    require(!output.tensors.empty() && (several || output.tensors.size() == 1),
            "an output is made of no or of several maps");
    require(!output.enlarged || output.form == Output::Form::map ||
                output.form == Output::Form::classes,
            "an output is enlarged that is no map");
    require(output.form != Output::Form::classes || channels(output.tensors[0]) <= 256,
            "a class map has more than 256 classes");
    program_.outputs.push_back(std::move(output));
  }

  void read_boxes(Output& output, const Json& value) const {
    require(output.values >= 2 && output.tensors.size() == 2 * kLevels,
            "boxes are not made of six maps of scores and six of offsets");
    for (size_t level = 0; level < kLevels; ++level) {
      require(channels(output.tensors[level]) == kPriorsOfCell * output.values &&
                  channels(output.tensors[level + kLevels]) == kPriorsOfCell * 4,
              "a map of boxes has not six priors a cell");
    }
    const auto share = [&](const char* key) {
      const double found = value.at(key).number();
      require(found > 0 && found < 1, std::string("boxes have no sound '") + key + "'");
      return found;
    };
    Suppression& settings = output.suppression;
    settings.smallest = share("smallest");
    settings.score_threshold = share("score_threshold");
    settings.overlap = share("overlap");
    settings.per_class = static_cast<int>(value.at("per_class").integer(1, 10000));
    settings.most = static_cast<int>(value.at("most").integer(1, 10000));
  }

  const ModelFile& file_;
  const Json& document_;
  Program program_;
  int64_t in_all_ = 0;
  std::map<std::string, Name> names_;
};

}  // namespace

Program Program::of(const ModelFile& file) {
  const std::string& format = file.metadata("format");
  require(format == "espnetv2-native/1",
          "the file is of version '" + format + "', not 'espnetv2-native/1'; export again");
  const Json document = Json::parse(file.metadata("program"));
  return Writer(file, document).program();
}

}  // namespace espnetv2
