#include "values.h"

#include <algorithm>

#include "shapes.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

size_t at(Name name) { return static_cast<size_t>(name); }

class Finder {
 public:
  Finder(const Network& network, const Plan& plan)
      : network_(network), program_(network.program), plan_(plan) {}

  // What depth-wise convolutions read, and the image with its small copies, stays a float, since
  // each value is read many times. What the network says does so for the sake of near ties.
  bool wide(Name name) const {
    if (network_.places[at(name)].planar) return true;
    bool pyramids = false, others = false;
    for (const Step& step : program_.steps) {
      if (costs_nothing(plan_, step)) continue;
      for (const Name one : reads(step)) {
        const bool pyramid = step.kind == Kind::pyramid && step.inputs[0] == one;
        if (storage(one) == name) (pyramid ? pyramids : others) = true;
      }
    }
    return !others && pyramids != given(name);
  }

  // What a unit's pyramid makes for a convolution of bytes alone becomes bytes at once.
  const Step* reader_of_bytes(Name name) const {
    const Step* reader = nullptr;
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      if (storage(step.out) == name && (step.out != name || !makes_bytes(step))) return nullptr;
      for (const Name read : reads(step)) {
        if (storage(read) != name) continue;
        const bool fits = step.kind == Kind::conv && network_.packed[i].at(0).whole_blocks;
        if (!fits || reader || read != name || step.residual == read) return nullptr;
        reader = &step;
      }
    }
    return given(name) ? nullptr : reader;
  }

 private:
  Name storage(Name name) const { return plan_.storage_of[at(name)]; }

  bool makes_bytes(const Step& step) const {
    return step.kind == Kind::pyramid && !network_.places[at(step.inputs[0])].planar &&
           wide(storage(step.inputs[0]));
  }

  // Whether an output reads it.
  bool given(Name name) const {
    const auto mine = [&](Name one) { return storage(one) == name; };
    return std::any_of(program_.outputs.begin(), program_.outputs.end(), [&](const Output& output) {
      return std::any_of(output.tensors.begin(), output.tensors.end(), mine);
    });
  }

  const Network& network_;
  const Program& program_;
  const Plan& plan_;
};

}  // namespace

std::pair<int, const Step*> find_values(const Network& network, const Plan& plan, Name storage) {
  const Finder finder(network, plan);
  const Step* reader = finder.reader_of_bytes(storage);
  return {reader ? 1 : finder.wide(storage) ? 4 : plan.value, reader};
}

}  // namespace espnetv2
