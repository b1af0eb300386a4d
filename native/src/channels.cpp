#include "channels.h"

#include <algorithm>
#include <set>

#include "error.h"
#include "planar.h"

namespace espnetv2 {

namespace {

constexpr size_t kMostTensors = 4000;  // copies included

int channels_of(const Program& program, Name name) {
  return program.tensors[static_cast<size_t>(name)].channels;
}

Name fresh(Program& program, const std::string& name, int channels) {
  require(program.tensors.size() < kMostTensors, "the program has too many maps");
  program.tensors.push_back({name, channels});
  return static_cast<Name>(program.tensors.size()) - 1;
}

// Concatenates tensors, of which each may lie in one concatenation only.
class Joiner {
 public:
  explicit Joiner(Program& program) : program_(program) { taken_.insert(kImage); }

  void copy_where_needed(std::vector<Name>& parts, std::vector<Step>& steps) {
    for (Name& part : parts) {
      if (taken_.insert(part).second) continue;
      Step copy;
      copy.kind = Step::Kind::combine;
      copy.inputs = {part};
      const Tensor whole = program_.tensors[static_cast<size_t>(part)];
      copy.out = part = fresh(program_, whole.name + ".copy", whole.channels);
      taken_.insert(part);
      steps.push_back(copy);
    }
  }

  void take(Name name) { taken_.insert(name); }

 private:
  Program& program_;
  std::set<Name> taken_;
};

}  // namespace

std::vector<int> Place::channels(int whole) const {
  std::vector<int> found(static_cast<size_t>(blocks * lanes(whole)), -1);
  for (size_t c = 0; c < lane.size(); ++c)
    found[static_cast<size_t>(lane[c])] = static_cast<int>(c);
  return found;
}

void arrange(Program& program) {
  std::vector<Step> steps;
  Joiner joiner(program);
  for (Step& step : program.steps) {
    if (step.kind == Step::Kind::pyramid && step.inputs.size() > 1) {
      Step joined;
      joined.kind = Step::Kind::concat;
      joined.inputs = step.inputs;
      joiner.copy_where_needed(joined.inputs, steps);
      const int channels = channels_of(program, step.inputs[0]);
      require(joined.inputs.size() * static_cast<size_t>(channels) <= kMostChannels,
              "a pyramid's sources have too many channels");
      joined.out = fresh(program, program.tensors[static_cast<size_t>(step.out)].name + ".sources",
                         channels * static_cast<int>(step.inputs.size()));
      step.inputs = {joined.out};
      steps.push_back(joined);
    } else if (step.kind == Step::Kind::concat) {
      joiner.copy_where_needed(step.inputs, steps);
    } else if (step.kind == Step::Kind::shuffle) {
      joiner.take(step.out);  // it is a view already
      joiner.take(step.inputs[0]);
    }
    steps.push_back(step);
  }
  program.steps = std::move(steps);
}

std::vector<Place> place_channels(const Program& program, int lanes) {
  std::vector<Place> places(program.tensors.size());
  const auto at = [&](Name name) -> Place& { return places[static_cast<size_t>(name)]; };
  const auto plain = [&](Name name) {
    Place& place = at(name);
    const int channels = channels_of(program, name), own = place.lanes(lanes);
    place.blocks = (channels + own - 1) / own;
    for (int c = 0; c < channels; ++c) place.lane.push_back(c);
  };
  for (size_t name = 0; name < places.size(); ++name)
    places[name].storage = static_cast<Name>(name);
  const PlanarMaps planes = find_planar_maps(program, lanes);
  for (size_t name = 0; name < places.size(); ++name) {
    places[name].planar = planes.planar[name];
    places[name].parted = planes.parted[name];
  }
  plain(kImage);
  for (const Step& step : program.steps) {
    const Place& first = at(step.inputs[0]);
    Place& out = at(step.out);
    const bool turns =
        step.kind == Step::Kind::conv || planes.turned[static_cast<size_t>(step.out)];
    const bool by_planes = step.kind == Step::Kind::shrink;
    require(by_planes ? first.planar : first.planar == out.planar || (first.planar && turns),
            "a step reads a map that lies otherwise than it expects");
    std::vector<Name> others(step.inputs.begin() + 1, step.inputs.end());
    others.insert(others.end(), {step.residual, step.gate, step.other, step.also});
    for (const Name name : others) {
      require(name == kNone || at(name).planar == out.planar, "a step reads a map plane by plane");
    }
    switch (step.kind) {
      case Step::Kind::conv:
        if (const Name like = step.residual != kNone ? step.residual : step.lanes_of;
            like == kNone || at(like).planar != out.planar) {
          plain(step.out);
        } else {
          out.blocks = at(like).blocks;
          out.lane = at(like).lane;
        }
        break;
      case Step::Kind::enlarge:
      case Step::Kind::gather:
        plain(step.out);
        break;
      case Step::Kind::pyramid: {
        // of several sources the first one's lanes are everyone's
        const auto own = static_cast<size_t>(channels_of(program, step.out)) / step.branches.size();
        const auto sources = static_cast<int>(first.lane.size() / own);
        int blocks = first.blocks / sources;
        for (size_t i = 0; i < first.lane.size(); ++i) {
          const auto source = static_cast<int>(i / own);
          require(first.lane[i] == first.lane[i % own] + source * blocks * first.lanes(lanes),
                  "a step adds maps whose channels lie at different lanes");
        }
        const int each = out.lanes(lanes);
        if (first.planar) blocks = (static_cast<int>(own) + each - 1) / each;
        out.blocks = blocks * static_cast<int>(step.branches.size());
        for (size_t branch = 0; branch < step.branches.size(); ++branch) {
          for (size_t c = 0; c < own; ++c) {
            out.lane.push_back(first.lane[c] + static_cast<int>(branch) * blocks * each);
          }
        }
        break;
      }
      case Step::Kind::concat:
        for (const Name name : step.inputs) {
          Place& part = at(name);
          for (const int32_t lane : part.lane) {
            out.lane.push_back(lane + out.blocks * out.lanes(lanes));
          }
          part.storage = step.out;
          part.block = out.blocks;
          out.blocks += part.blocks;
        }
        break;
      case Step::Kind::shuffle: {
        const auto each = static_cast<int>(first.lane.size()) / step.groups;
        for (size_t c = 0; c < first.lane.size(); ++c) {
          const int group = static_cast<int>(c) % step.groups;
          out.lane.push_back(
              first.lane[static_cast<size_t>(group * each + static_cast<int>(c) / step.groups)]);
        }
        out.blocks = first.blocks;
        out.storage = step.inputs[0];
        break;
      }
      default:
        out.blocks = first.blocks;
        out.lane = first.lane;
    }
    for (const Name name : {step.residual, step.gate, step.other}) {
      require(name == kNone || at(name).lane == out.lane,
              "a step adds maps whose channels lie at different lanes");
    }
  }
  for (const Output& output : program.outputs) {
    require(!output.enlarged || !at(output.tensors[0]).planar,
            "a map that lies plane by plane is enlarged");
  }
  // storages of storages: follow them to the last
  for (Place& place : places) {
    while (at(place.storage).storage != place.storage) {
      place.block += at(place.storage).block;
      place.storage = at(place.storage).storage;
    }
  }
  return places;
}

}  // namespace espnetv2
