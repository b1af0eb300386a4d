// The network as a list of steps, as the model file states it. Channels are counted as the
// network's own; how they lie in memory is for `channels.h` and `plan.h`.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model_file.h"

namespace espnetv2 {

using Name = int;  // of a tensor: its place in Program::tensors
constexpr Name kNone = -1;
constexpr int kMostChannels = 1 << 16;  // of a map

// Height and width of a step's result, where the step does not say it itself.
struct Size {
  Name like = kNone;                   // as large as this tensor
  int numerator = 1, denominator = 1;  // times this, rounded up
  int least = 1;                       // but not smaller
};

// One depth-wise convolution of a pyramid.
struct Branch {
  const Array* weight = nullptr;  // (C, sources, k, k)
  const Array* bias = nullptr;    // (C,)
  int dilation = 1;
};

struct Step {
  enum class Kind {
    conv,     // any convolution that mixes channels; padded by half of its reach
    pyramid,  // depth-wise convolutions
    shrink,   // average pooling 3x3, stride 2, of the image: plane by plane
    maximum,  // max pooling 3x3, stride 2
    mean,     // over the whole map
    adapt,    // adaptive average pooling to a size
    resize,   // bilinear, corners aligned
    combine,  // slopes((x * gate + other) * scale + shift)
    logistic,
    gather,    // channels picked one by one
    shuffle,   // channels dealt like cards; costs nothing
    concat,    // maps side by side; costs nothing
    enlarge,   // transposed convolution 2x2, stride 2, cut to a size
    rescale,   // resize, then a depth-wise 3x3, then adapt to the size before: never in a file
    row_mean,  // of each row: never in a file
    copy,      // or another name of the same map, as the plan decides: never in a file
  };
  Kind kind = Kind::conv;
  std::vector<Name> inputs;
  Name out = kNone;
  const Array* weight = nullptr;
  const Array* bias = nullptr;
  const Array* scale = nullptr;
  const Array* shift = nullptr;
  const Array* rise = nullptr;
  const Array* fall = nullptr;
  Name residual = kNone, gate = kNone, other = kNone;
  Name lanes_of = kNone;  // a map that the result will be added to
  int stride = 1, dilation = 1, groups = 1;
  bool running = false;  // branches of a pyramid add up
  std::vector<Branch> branches;
  std::vector<int> picked;  // channels of a gather
  Size size;

  // A second map, of few channels, which all groups of a 1x1 convolution see too: the last columns
  // of `weight` are its own. Never in a file.
  Name also = kNone;

  // A map that this step makes once more, unless the plan finds that a copy is better. Never in a
  // file.
  Name again = kNone;

  // Of a convolution in bytes: weights are `weight` times this for each output; inputs are rounded
  // to round(x / input_scale) + input_zero, from 0 to 255.
  const Array* weight_scale = nullptr;
  float input_scale = 0;
  int input_zero = 0;
};

// How boxes are chosen among the many that a detector gives.
struct Suppression {
  double smallest = 0;         // side of the smallest prior, a share of the picture's shorter side
  double score_threshold = 0;  // a share of the softmax
  double overlap = 0;          // above which the lesser of two boxes of a class is dropped
  int per_class = 0;           // boxes of a class that take part
  int most = 0;                // boxes of a picture
};

// What the network gives.
struct Output {
  enum class Form {
    map,            // float (B, C, H, W)
    vector,         // float (B, C)
    probabilities,  // float (B, C): softmax, or sigmoid
    places,         // float (B, sum of H W A, values): boxes of several maps, one after the other
    classes,        // uint8 (B, H, W): the largest of a map's logits at every pixel of the image
    boxes,          // of six maps of scores and six of offsets: corners, scores and labels
  };
  std::string name;
  Form form = Form::map;
  std::vector<Name> tensors;
  int values = 1;            // of one box
  bool multi_label = false;  // probabilities are each for itself: sigmoid
  bool enlarged = false;     // to the size of the image, bilinear with aligned corners
  Suppression suppression;   // of boxes

  // Groups that give it, one after the other: its tensors, and for boxes two that choose.
  size_t parts() const { return form == Form::boxes ? tensors.size() / 2 + 2 : tensors.size(); }
};

struct Tensor {
  std::string name;
  int channels = 0;
};

// An array that is not in the file.
struct OwnArray {
  Array array;
  std::vector<float> data;
};

struct Program {
  std::vector<Tensor> tensors;  // the first is the image
  std::vector<Step> steps;      // each reads only what steps before it made
  std::vector<Output> outputs;
  std::vector<std::unique_ptr<OwnArray>> own_arrays;

  // Raises Error where the file states no sound program. The file must outlive it.
  static Program of(const ModelFile& file);
};

constexpr Name kImage = 0;

}  // namespace espnetv2
