#include "pack.h"

#include <algorithm>
#include <map>
#include <set>

#include "error.h"

namespace espnetv2 {

namespace {

constexpr Index kAlignment = 16;         // floats
constexpr Index kMost = Index{1} << 27;  // floats of all steps
constexpr double kAlone = 1.1;           // a tile of one block is so much less efficient

// The value of a lane's channel, for all lanes of a tensor.
Index per_lane(const Array* array, const std::vector<int>& channels, float otherwise,
               Weights& weights) {
  if (!array) return -1;
  Index place = 0;
  float* values = weights.add(static_cast<Index>(channels.size()), &place);
  for (size_t i = 0; i < channels.size(); ++i) {
    values[i] = channels[i] < 0 ? otherwise : array->data[channels[i]];
  }
  return place;
}

// A convolution's weights: where those of an output begin, and where a tap of an input follows.
struct Kernel {
  const Step& step;
  int size;             // of a side
  int inputs, outputs;  // of a group
  int corner;           // of an enlargement; -1 for a convolution

  const float* start(int out) const {
    if (corner >= 0) return step.weight->data + out * 4 + corner;
    return step.weight->data + static_cast<Index>(out) * inputs * size * size;
  }
  Index place(int in, int tap) const {
    return corner >= 0 ? static_cast<Index>(in) * outputs * 4
                       : static_cast<Index>(in) * size * size + tap;
  }
};

using Groups = std::set<int>;

class ConvPacker {
 public:
  ConvPacker(const Kernel& kernel, const Place& in, const std::vector<int>& channels, int lanes,
             Weights& weights, Packed& packed)
      : kernel_(kernel),
        in_(in),
        channels_(channels),
        lanes_(lanes),
        weights_(weights),
        packed_(packed) {}

  void run() {
    const int blocks = static_cast<int>(channels_.size()) / lanes_;
    for (int block = 0; block < blocks;) {
      const int together = block + 1 < blocks && worth_joining(block) ? 2 : 1;
      plan(block, together);
      block += together;
    }
    Index total = 0;
    for (Tile& tile : packed_.tiles) {
      tile.weight = total;
      total += static_cast<Index>(tile.depth) * tile.blocks * lanes_;
    }
    float* data = weights_.add(total, &packed_.weights);
    for (const Tile& tile : packed_.tiles) fill(tile, data + tile.weight);
  }

 private:
  Groups groups(int block, int count) const {
    Groups found;
    for (int lane = block * lanes_; lane < (block + count) * lanes_; ++lane) {
      const int channel = channels_[static_cast<size_t>(lane)];
      if (channel >= 0) found.insert(channel / kernel_.outputs);
    }
    return found;
  }

  // Blocks that read different groups would multiply zeros of each other's.
  bool worth_joining(int block) const {
    const auto alone = groups(block, 1).size() + groups(block + 1, 1).size();
    return 2.0 * static_cast<double>(groups(block, 2).size()) <=
           kAlone * static_cast<double>(alone);
  }

  void plan(int block, int count) {
    const Groups groups = this->groups(block, count);
    const int taps = kernel_.size * kernel_.size;
    const int depth = static_cast<int>(groups.size()) * kernel_.inputs * taps;
    total_ += static_cast<Index>(depth) * count * lanes_;
    require(total_ <= kMost, "the network has too many weights");
    const auto [known, is_new] = entries_.emplace(groups, static_cast<int>(packed_.reach.size()));
    if (is_new) {
      for (const int group : groups) {
        for (int tap = 0; tap < taps; ++tap) reach(group, tap);
      }
    }
    packed_.tiles.push_back({block, count, depth, known->second, 0});
  }

  void reach(int group, int tap) {
    const int middle = kernel_.size / 2, dilation = kernel_.step.dilation;
    for (int i = 0; i < kernel_.inputs; ++i) {
      const int lane = in_.lane[static_cast<size_t>(group * kernel_.inputs + i)];
      packed_.reach.push_back({lane, static_cast<int16_t>((tap / kernel_.size - middle) * dilation),
                               static_cast<int16_t>((tap % kernel_.size - middle) * dilation)});
    }
  }

  // Zeros where an output does not belong to the group of an input.
  void fill(const Tile& tile, float* data) const {
    const int taps = kernel_.size * kernel_.size, width = tile.blocks * lanes_;
    for (const int group : groups(tile.block, tile.blocks)) {
      std::vector<std::pair<int, const float*>> own;  // lanes and their weights
      for (int lane = 0; lane < width; ++lane) {
        const int out = channels_[static_cast<size_t>(tile.block * lanes_ + lane)];
        if (out >= 0 && out / kernel_.outputs == group) own.emplace_back(lane, kernel_.start(out));
      }
      for (int tap = 0; tap < taps; ++tap) {
        for (int i = 0; i < kernel_.inputs; ++i, data += width) {
          const Index place = kernel_.place(i, tap);
          for (const auto& [lane, weights] : own) data[lane] = weights[place];
        }
      }
    }
  }

  const Kernel& kernel_;
  const Place& in_;
  const std::vector<int>& channels_;
  const int lanes_;
  Weights& weights_;
  Packed& packed_;
  std::map<Groups, int> entries_;
  Index total_ = 0;
};

void pack_pyramid(const Step& step, const Place& in, const Place& out, int lanes, Weights& weights,
                  Packed& packed) {
  const auto branches = static_cast<int>(step.branches.size());
  const int blocks = out.blocks / branches;
  const auto sources = static_cast<int>(step.branches[0].weight->shape[1]);
  const std::vector<int> channels = in.channels(lanes);
  Index total = 0;
  for (const Branch& branch : step.branches) {
    const auto side = static_cast<int>(branch.weight->shape[2]);
    packed.taps.push_back(sources * side * side);
    total += packed.taps.back();
    for (int source = 0; source < sources; ++source) {
      for (int tap = 0; tap < side * side; ++tap) {
        packed.reach.push_back({source * blocks * lanes,
                                static_cast<int16_t>((tap / side - side / 2) * branch.dilation),
                                static_cast<int16_t>((tap % side - side / 2) * branch.dilation)});
      }
    }
  }
  float* data = weights.add(total * blocks * lanes, &packed.weights);
  for (int block = 0; block < blocks; ++block) {
    for (size_t b = 0; b < step.branches.size(); ++b) {
      for (int tap = 0; tap < packed.taps[b]; ++tap) {
        for (int lane = 0; lane < lanes; ++lane, ++data) {
          const int channel = channels[static_cast<size_t>(block * lanes + lane)];
          *data =
              channel < 0 ? 0.0f : step.branches[b].weight->data[channel * packed.taps[b] + tap];
        }
      }
    }
  }
  // the branches of a block stand together
  const std::vector<int> made = out.channels(lanes);
  std::vector<int> order;
  for (int block = 0; block < blocks; ++block) {
    for (int b = 0; b < branches; ++b) {
      for (int lane = 0; lane < lanes; ++lane) {
        order.push_back(made[static_cast<size_t>((b * blocks + block) * lanes + lane)]);
      }
    }
  }
  float* bias = weights.add(static_cast<Index>(order.size()), &packed.bias);
  for (size_t i = 0; i < order.size(); ++i) {
    const int own = static_cast<int>(channels.size()) ? order[i] : -1;
    const int count = static_cast<int>(made.empty() ? 1 : out.lane.size()) / branches;
    const Array* array = own < 0 ? nullptr : step.branches[static_cast<size_t>(own / count)].bias;
    bias[i] = array ? array->data[own % count] : 0.0f;
  }
  packed.scale = per_lane(step.scale, order, 1.0f, weights);
  packed.shift = per_lane(step.shift, order, 0.0f, weights);
  packed.rise = per_lane(step.rise, order, 1.0f, weights);
  packed.fall = per_lane(step.fall, order, 1.0f, weights);
}

}  // namespace

float* Weights::add(Index count, Index* place) {
  *place = (used_ + kAlignment - 1) / kAlignment * kAlignment;
  used_ = *place + count;
  require(used_ <= kMost, "the network has too many weights");
  if (static_cast<size_t>(used_) > data_.size()) {
    Floats larger(static_cast<size_t>(used_) * 2);
    std::copy(data_.data(), data_.data() + *place, larger.data());
    data_ = std::move(larger);
  }
  return data_.data() + *place;
}

std::vector<Packed> pack(const Program& program, const std::vector<Place>& places, const Step& step,
                         int lanes, Weights& weights) {
  const Place& in = places[static_cast<size_t>(step.inputs[0])];
  const Place& out = places[static_cast<size_t>(step.out)];
  const std::vector<int> channels = out.channels(lanes);
  std::vector<Packed> packed(step.kind == Step::Kind::enlarge ? 4 : 1);
  if (step.kind == Step::Kind::pyramid) {
    pack_pyramid(step, in, out, lanes, weights, packed[0]);
    return packed;
  }
  static const float kZero = 0.0f;
  for (size_t i = 0; i < packed.size(); ++i) {
    Packed& one = packed[i];
    if (step.kind == Step::Kind::conv || step.kind == Step::Kind::enlarge) {
      const int total = program.tensors[static_cast<size_t>(step.inputs[0])].channels;
      const bool plain = step.kind == Step::Kind::conv;
      const auto outs = program.tensors[static_cast<size_t>(step.out)].channels;
      const Kernel kernel{step, plain ? static_cast<int>(step.weight->shape[2]) : 1,
                          total / step.groups, outs / step.groups,
                          plain ? -1 : static_cast<int>(i)};
      ConvPacker(kernel, in, channels, lanes, weights, one).run();
      one.bias = per_lane(step.bias, channels, 0.0f, weights);
      if (one.bias < 0) {
        Array none;
        none.data = &kZero;
        one.bias = per_lane(&none, std::vector<int>(channels.size(), -1), 0.0f, weights);
      }
    }
    one.scale = per_lane(step.scale, channels, 1.0f, weights);
    one.shift = per_lane(step.shift, channels, 0.0f, weights);
    one.rise = per_lane(step.rise, channels, 1.0f, weights);
    one.fall = per_lane(step.fall, channels, 1.0f, weights);
  }
  return packed;
}

}  // namespace espnetv2
