#include "fuse.h"

#include <algorithm>

#include "shapes.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

bool plain(const Step& step) { return !step.scale && !step.rise; }

bool same_size(const Size& size, Name like) {
  return size.like == like && size.numerator == size.denominator && size.least <= 1;
}

class Fuser {
 public:
  explicit Fuser(Program& program) : program_(program), readers_(program.tensors.size(), 0) {
    for (const Step& step : program.steps) {
      for (const Name name : reads(step)) ++readers_[static_cast<size_t>(name)];
      for (const Name name : {step.size.like, step.lanes_of}) {
        if (name != kNone) ++readers_[static_cast<size_t>(name)];
      }
    }
    for (const Output& output : program.outputs) {
      for (const Name name : output.tensors) ++readers_[static_cast<size_t>(name)];
    }
  }

  void run() {
    std::vector<Step> steps;
    for (Step& step : program_.steps) {
      const auto count = static_cast<std::ptrdiff_t>(steps.size());
      if (count >= 2 && rescales(steps[at(count - 2)], steps[at(count - 1)], step)) {
        step.kind = Kind::rescale;
        step.inputs = steps[at(count - 2)].inputs;
        step.size = steps[at(count - 2)].size;
        step.branches = steps[at(count - 1)].branches;
        steps.resize(at(count - 2));
      }
      steps.push_back(std::move(step));
    }
    program_.steps = std::move(steps);
  }

 private:
  static size_t at(std::ptrdiff_t place) { return static_cast<size_t>(place); }

  bool rescales(const Step& larger, const Step& seen, const Step& pooled) const {
    if (larger.kind != Kind::resize || seen.kind != Kind::pyramid || pooled.kind != Kind::adapt) {
      return false;
    }
    if (seen.inputs != std::vector<Name>{larger.out} || pooled.inputs[0] != seen.out) return false;
    if (readers_[static_cast<size_t>(larger.out)] > 1) return false;
    if (readers_[static_cast<size_t>(seen.out)] > 1) return false;
    const Size& size = larger.size;
    if (size.like != larger.inputs[0] || size.numerator < size.denominator) return false;
    if (size.numerator > kMostEnlarged * size.denominator || size.least > kMostEnlarged) {
      return false;
    }
    if (!same_size(pooled.size, larger.inputs[0]) || !plain(larger) || !plain(seen)) return false;
    const Branch& branch = seen.branches[0];
    return seen.branches.size() == 1 && seen.stride == 1 && branch.dilation == 1 &&
           branch.weight->shape[1] == 1 && branch.weight->shape[2] == 3;
  }

  static constexpr int kMostEnlarged = 8;

  Program& program_;
  std::vector<int> readers_;  // of each tensor
};

}  // namespace

void fuse_rescaling(Program& program) { Fuser(program).run(); }

}  // namespace espnetv2
