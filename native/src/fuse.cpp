#include "fuse.h"

#include <algorithm>
#include <map>
#include <set>

#include "shapes.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

bool plain(const Step& step) { return !step.scale && !step.rise; }

bool same_size(const Size& size, Name like) {
  return size.like == like && size.numerator == size.denominator && size.least <= 1;
}

// Of each tensor; those that only want its lanes count where channels have no places yet.
std::vector<int> readers(const Program& program, bool of_lanes = true) {
  std::vector<int> count(program.tensors.size(), 0);
  for (const Step& step : program.steps) {
    for (const Name name : reads(step)) ++count[static_cast<size_t>(name)];
    for (const Name name : {step.size.like, of_lanes ? step.lanes_of : kNone}) {
      if (name != kNone) ++count[static_cast<size_t>(name)];
    }
  }
  for (const Output& output : program.outputs) {
    for (const Name name : output.tensors) ++count[static_cast<size_t>(name)];
  }
  return count;
}

class Fuser {
 public:
  explicit Fuser(Program& program) : program_(program), readers_(readers(program)) {}

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

// A tensor with the channels of another one.
Name add_like(Program& program, Name other, const char* suffix) {
  Tensor tensor = program.tensors[static_cast<size_t>(other)];
  tensor.name += suffix;
  program.tensors.push_back(std::move(tensor));
  return static_cast<Name>(program.tensors.size()) - 1;
}

constexpr int kFew = 8;  // channels of a second map

// A 1x1 convolution of floats, and nothing more.
bool mixes_only(const Step& step) {
  return step.kind == Kind::conv && step.weight->shape[2] == 1 && step.stride == 1 &&
         !step.weight_scale && !step.scale;
}

const Array* keep(Program& program, std::vector<int64_t> shape, std::vector<float> data) {
  auto own = std::make_unique<OwnArray>();
  own->data = std::move(data);
  own->array.shape = std::move(shape);
  own->array.data = own->data.data();
  program.own_arrays.push_back(std::move(own));
  return &program.own_arrays.back()->array;
}

// `step` with the inputs of `shortcut` as well.
Step joined(Program& program, Step step, const Step& shortcut) {
  const int64_t outputs = step.weight->shape[0];
  const int64_t own = step.weight->shape[1], others = shortcut.weight->shape[1];
  std::vector<float> weight, bias;
  for (int64_t out = 0; out < outputs; ++out) {
    const float* first = step.weight->data + out * own;
    const float* second = shortcut.weight->data + out * others;
    weight.insert(weight.end(), first, first + own);
    weight.insert(weight.end(), second, second + others);
    bias.push_back((step.bias ? step.bias->data[out] : 0.0f) +
                   (shortcut.bias ? shortcut.bias->data[out] : 0.0f));
  }
  step.weight = keep(program, {outputs, own + others, 1, 1}, std::move(weight));
  step.bias = keep(program, {outputs}, std::move(bias));
  step.also = shortcut.inputs[0];
  step.out = shortcut.out;
  step.rise = shortcut.rise;
  step.fall = shortcut.fall;
  return step;
}

}  // namespace

void fuse_rescaling(Program& program) { Fuser(program).run(); }

void fuse_shortcuts(Program& program) {
  const std::vector<int> count = readers(program);
  std::set<Name> planar = {kImage};
  std::vector<Step> steps;
  for (Step& step : program.steps) {
    if (step.kind == Kind::shrink) planar.insert(step.out);
    const auto fits = [&](const Step& one) {
      return mixes_only(one) && !planar.count(one.inputs[0]);
    };
    const auto added = std::find_if(steps.begin(), steps.end(), [&](const Step& one) {
      return one.out == step.residual && fits(one) && !one.rise && one.residual == kNone;
    });
    const bool few = program.tensors[static_cast<size_t>(step.inputs[0])].channels <= kFew;
    if (added != steps.end() && fits(step) && step.groups == 1 && few &&
        count[static_cast<size_t>(step.residual)] == 1) {
      step = joined(program, std::move(*added), step);
      steps.erase(added);
    }
    steps.push_back(std::move(step));
  }
  program.steps = std::move(steps);
}

void split_means(Program& program) {
  const std::vector<int> count = readers(program);
  std::vector<Step> steps;
  for (Step& step : program.steps) {
    const Name in = step.inputs[0];
    if (step.kind == Kind::mean && in != kImage && count[static_cast<size_t>(in)] > 1) {
      Step rows;
      rows.kind = Kind::row_mean;
      rows.inputs = {in};
      rows.out = step.inputs[0] = add_like(program, in, "_rows");
      const auto maker =
          std::find_if(steps.begin(), steps.end(), [&](const Step& one) { return one.out == in; });
      steps.insert(maker + 1, std::move(rows));
    }
    steps.push_back(std::move(step));
  }
  program.steps = std::move(steps);
}

void copy_for_later(Program& program) {
  const size_t count = program.tensors.size();
  std::vector<int> made(count, 0);  // behind so many means
  std::vector<bool> around(count, false), later(count, false);
  int means = 0;
  for (const Step& step : program.steps) {
    means += step.kind == Kind::mean;
    for (const Name name : reads(step)) {
      const auto read = static_cast<size_t>(name);
      if (made[read] < means) {
        later[read] = true;
      } else if (!reads_its_row_only(step, name)) {
        around[read] = true;
      }
    }
    made[static_cast<size_t>(step.out)] = means;
  }
  std::vector<Name> copies(count, kNone);
  const std::vector<Name> only_image = {kImage};
  std::map<Name, Step> again;  // before the first step that reads them
  std::vector<Step> steps;
  means = 0;
  for (Step& step : program.steps) {
    means += step.kind == Kind::mean;
    const auto rename = [&](Name& name) {
      if (name == kNone || made[static_cast<size_t>(name)] == means) return;
      const Name copy = copies[static_cast<size_t>(name)];
      if (copy != kNone) name = copy;
    };
    for (Name& name : step.inputs) rename(name);
    for (Name* name : {&step.residual, &step.gate, &step.other, &step.also}) rename(*name);
    for (const Name name : reads(step)) {
      if (const auto found = again.find(name); found != again.end()) {
        steps.push_back(std::move(found->second));
        again.erase(found);
      }
    }
    const Name out = step.out;
    const bool lies_apart = step.kind != Kind::shrink && step.kind != Kind::shuffle;
    steps.push_back(std::move(step));
    if (!lies_apart || !around[static_cast<size_t>(out)] || !later[static_cast<size_t>(out)]) {
      continue;
    }
    Step copy;
    copy.kind = Kind::copy;
    copy.inputs = {out};
    copy.out = copies[static_cast<size_t>(out)] = add_like(program, out, "_copy");
    if (const Step& maker = steps.back(); maker.kind == Kind::conv && reads(maker) == only_image) {
      Step other = maker;
      other.again = out;
      other.out = copies[static_cast<size_t>(out)] = add_like(program, out, "_again");
      again.emplace(other.out, std::move(other));
    }
    steps.push_back(std::move(copy));
  }
  program.steps = std::move(steps);
}

void defer_gated(Program& program) {
  const std::vector<int> count = readers(program, false);
  std::vector<Name> gated_by(program.tensors.size(), kNone);  // the result that waits for a map
  for (auto step = program.steps.rbegin(); step != program.steps.rend(); ++step) {
    const bool gates = step->kind == Kind::combine && step->gate != kNone;
    Name& own = gated_by[static_cast<size_t>(step->out)];
    if (step->kind == Kind::copy) own = kNone;  // it is made with its map
    const Name waits = gates ? step->out : own;
    if (waits == kNone) continue;
    for (const Name name : gates ? step->inputs : reads(*step)) {
      if (count[static_cast<size_t>(name)] == 1) gated_by[static_cast<size_t>(name)] = waits;
    }
  }
  std::map<Name, std::vector<Step>> deferred;
  std::vector<Step> steps;
  for (Step& step : program.steps) {
    const Name waits = gated_by[static_cast<size_t>(step.out)];
    std::vector<Step>& to = waits == kNone ? steps : deferred[waits];
    for (Step& before : deferred[step.out]) to.push_back(std::move(before));
    to.push_back(std::move(step));
  }
  program.steps = std::move(steps);
}

}  // namespace espnetv2
