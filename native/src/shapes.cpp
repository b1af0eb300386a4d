#include "shapes.h"

#include <algorithm>

#include "error.h"

namespace espnetv2 {

namespace {

constexpr int kLongest = 1 << 15;  // pixels of a side

int made(int side, int like, const Step& step) {
  switch (step.kind) {
    case Step::Kind::conv:
    case Step::Kind::pyramid:
    case Step::Kind::shrink:
    case Step::Kind::maximum: {
      const bool pools = step.kind == Step::Kind::maximum || step.kind == Step::Kind::shrink;
      const int stride = pools ? 2 : step.stride;
      return (side - 1) / stride + 1;
    }
    case Step::Kind::mean:
      return 1;
    case Step::Kind::adapt:
    case Step::Kind::resize:
      return scaled(like, step.size);
    case Step::Kind::enlarge:
      require((like + 1) / 2 == side, "a map is enlarged to a size that is not its double");
      return like;
    default:
      return side;
  }
}

}  // namespace

int scaled(int side, const Size& size) {
  const int64_t whole = static_cast<int64_t>(side) * size.numerator;
  const int64_t up = (whole + size.denominator - 1) / size.denominator;
  return static_cast<int>(std::max<int64_t>(up, size.least));
}

std::pair<std::vector<int>, std::vector<int>> shapes(const Program& program, int height,
                                                     int width) {
  std::vector<int> heights(program.tensors.size()), widths(program.tensors.size());
  heights[kImage] = height;
  widths[kImage] = width;
  for (const Step& step : program.steps) {
    const auto in = static_cast<size_t>(step.inputs[0]), out = static_cast<size_t>(step.out);
    const auto like = static_cast<size_t>(step.size.like == kNone ? kImage : step.size.like);
    heights[out] = made(heights[in], heights[like], step);
    widths[out] = step.kind == Step::Kind::row_mean ? 1 : made(widths[in], widths[like], step);
    require(std::max(heights[out], widths[out]) <= kLongest, "the picture is too large");
    for (const Name name : step.inputs) {
      const auto other = static_cast<size_t>(name);
      require(heights[other] == heights[in] && widths[other] == widths[in],
              "maps of unlike sizes are concatenated");
    }
    for (const Name name : {step.residual, step.other, step.also}) {
      const auto other = static_cast<size_t>(name == kNone ? step.out : name);
      require(heights[other] == heights[out] && widths[other] == widths[out],
              "maps of unlike sizes are added");
    }
    if (step.gate != kNone) {
      const auto gate = static_cast<size_t>(step.gate);
      require(heights[gate] == 1 && widths[gate] == 1, "a gate is larger than one pixel");
    }
  }
  return {heights, widths};
}

int reach(const Step& step) {
  if (step.kind == Step::Kind::rescale) return 0;  // its windows end at the borders
  int farthest = step.kind == Step::Kind::shrink;
  if (step.kind == Step::Kind::conv) {
    farthest = step.dilation * static_cast<int>(step.weight->shape[2] / 2);
  }
  for (const Branch& branch : step.branches) {
    farthest = std::max(farthest, branch.dilation * static_cast<int>(branch.weight->shape[2] / 2));
  }
  return farthest;
}

std::vector<Name> reads(const Step& step) {
  std::vector<Name> names = step.inputs;
  for (const Name name : {step.residual, step.gate, step.other, step.also}) {
    if (name != kNone) names.push_back(name);
  }
  return names;
}

bool reads_its_row_only(const Step& step, Name name) {
  if (name == step.gate) return false;
  switch (step.kind) {
    case Step::Kind::conv:
      return name == step.residual ? name != step.inputs[0] || reach(step) == 0
                                   : reach(step) == 0 && step.stride == 1;
    case Step::Kind::combine:
    case Step::Kind::logistic:
    case Step::Kind::gather:
    case Step::Kind::shuffle:
    case Step::Kind::concat:
    case Step::Kind::row_mean:
    case Step::Kind::copy:
      return true;
    default:
      return false;
  }
}

}  // namespace espnetv2
