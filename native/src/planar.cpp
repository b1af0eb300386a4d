#include "planar.h"

#include <algorithm>

#include "kernels/arguments.h"
#include "shapes.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

constexpr int kFewInputs = 8;

size_t at(Name name) { return static_cast<size_t>(name); }

// A convolution that would multiply many zeros in blocks of lanes, or has few inputs anyway.
bool narrow(const Program& program, const Step& step, int lanes) {
  const int inputs = program.tensors[at(step.inputs[0])].channels / step.groups;
  const int outputs = program.tensors[at(step.out)].channels / step.groups;
  return !step.weight_scale && (outputs < lanes || inputs <= kFewInputs);
}

// Whether a step can read planes, and make planes of them if all that it reads lies so.
bool reads_planes(const Program& program, const Step& step, int lanes) {
  if (step.kind == Kind::conv) return narrow(program, step, lanes);
  if (step.kind == Kind::concat) return true;
  return step.kind == Kind::pyramid && step.inputs[0] != kImage &&
         step.branches.size() <= kMostPlanarBranches &&
         std::all_of(step.branches.begin(), step.branches.end(), [](const Branch& branch) {
           return branch.weight->shape[1] == 1 && branch.weight->shape[2] == 3;
         });
}

class PlanarFinder {
 public:
  PlanarFinder(const Program& program, int lanes)
      : program_(program), storages_(program.tensors.size()) {
    for (size_t i = 0; i < storages_.size(); ++i) storages_[i] = static_cast<Name>(i);
    for (auto step = program.steps.rbegin(); step != program.steps.rend(); ++step) {
      if (step->kind != Kind::concat) continue;
      for (const Name name : step->inputs) storages_[at(name)] = storages_[at(step->out)];
    }
    fits_.assign(storages_.size(), false);
    for (const Step& step : program.steps) {
      fits_[at(step.out)] = step.again == kNone && reads_planes(program, step, lanes);
    }
  }

  PlanarMaps run() {
    do {
      find_planar();
      find_parted();
    } while (refuse_strided());
    found_.turned.assign(fits_.size(), false);
    for (const Step& step : program_.steps) found_.turned[at(step.out)] = turns(step);
    return std::move(found_);
  }

 private:
  void find_planar() {
    std::vector<bool>& planar = found_.planar;
    planar = fits_;
    fixed_.assign(planar.size(), false);
    planar[kImage] = fixed_[kImage] = true;
    for (const Step& step : program_.steps) {
      if (step.kind == Kind::shrink) planar[at(step.out)] = fixed_[at(step.out)] = true;
    }
    for (const Output& output : program_.outputs) {
      for (const Name name : output.tensors) planar[at(name)] = fixed_[at(name)];
    }
    while (drop_unfit()) {
    }
    // to turn planes into blocks within the first unit costs what they saved
    const bool worthwhile = std::any_of(
        program_.steps.begin(), program_.steps.end(),
        [&](const Step& step) { return step.kind == Kind::concat && planar[at(step.out)]; });
    if (!worthwhile) planar = fixed_;
  }

  bool turns(const Step& step) const { return step.kind == Kind::pyramid && fits_[at(step.out)]; }

  // What is made of other maps, and what is read as if it were another one.
  bool drop_unfit() {
    std::vector<bool>& planar = found_.planar;
    const std::vector<bool> before = planar;
    for (const Step& step : program_.steps) {
      const std::vector<Name> names = reads(step);
      if (!std::all_of(names.begin(), names.end(), [&](Name name) { return planar[at(name)]; })) {
        planar[at(step.out)] = fixed_[at(step.out)];
      }
      if (turns(step) || planar[at(step.out)]) continue;
      for (const Name name : names) planar[at(name)] = fixed_[at(name)];
    }
    return planar != before;
  }

  bool skips(const Step& step) const {
    const bool strided =
        step.kind == Kind::pyramid || (step.kind == Kind::conv && found_.planar[at(step.out)]);
    return step.kind == Kind::shrink || (strided && step.stride == 2);
  }

  // Those that only such steps read as skip pixels, or that do not mind the order.
  void find_parted() {
    std::vector<bool>& parted = found_.parted;
    parted.assign(storages_.size(), false);
    for (const Step& step : program_.steps) {
      const Name in = step.inputs[0];
      if (skips(step) && found_.planar[at(in)]) parted[at(storages_[at(in)])] = true;
    }
    const auto drop = [&](Name name) {
      if (name != kNone) parted[at(storages_[at(name)])] = false;
    };
    for (std::vector<bool> before; before != parted;) {
      before = parted;
      for (const Step& step : program_.steps) {
        if (step.kind == Kind::concat) continue;
        const bool alone = step.residual == kNone && step.also == kNone;
        const bool mixes = step.kind == Kind::conv && step.weight->shape[2] == 1 &&
                           step.stride == 1 && alone && parted[at(storages_[at(step.out)])];
        if (!skips(step) && !mixes) drop(step.inputs[0]);
        if (step.kind != Kind::conv) drop(step.out);
        drop(step.residual);
        drop(step.also);
      }
    }
    for (size_t i = 0; i < parted.size(); ++i) parted[i] = parted[at(storages_[i])];
  }

  // Every other pixel is read of parted maps only.
  bool refuse_strided() {
    bool refused = false;
    for (const Step& step : program_.steps) {
      const bool strided = step.kind == Kind::conv || step.kind == Kind::pyramid;
      const Name in = step.inputs[0];
      if (!strided || step.stride == 1 || !found_.planar[at(in)] || found_.parted[at(in)]) continue;
      if (step.kind == Kind::conv && !found_.planar[at(step.out)]) continue;
      refused |= fits_[at(step.out)];
      fits_[at(step.out)] = false;
    }
    return refused;
  }

  const Program& program_;
  std::vector<Name> storages_;
  std::vector<bool> fits_, fixed_;  // may lie so; do, whoever reads them
  PlanarMaps found_;
};

}  // namespace

PlanarMaps find_planar_maps(const Program& program, int lanes) {
  return PlanarFinder(program, lanes).run();
}

}  // namespace espnetv2
