#include "pack.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "error.h"
#include "half.h"

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

  // Of the file's numbers.
  float scale(int out) const { return step.weight_scale ? step.weight_scale->data[out] : 1.0f; }

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
  // `together` input channels are multiplied at once: 1, a block, or a granule of bytes.
  ConvPacker(const Kernel& kernel, const Place& in, const std::vector<int>& channels, int lanes,
             int together, bool bytes, Weights& weights, Packed& packed)
      : kernel_(kernel),
        in_(in),
        channels_(channels),
        lanes_(lanes),
        together_(together),
        weights_(weights),
        packed_(packed) {
    packed.bytes = bytes;
    packed.blocks = !bytes && together > 1;
  }

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
      total += static_cast<Index>(tile.depth) * tile.blocks * floats_of_entry();
    }
    float* data = weights_.add(total, &packed_.weights);
    for (const Tile& tile : packed_.tiles) {
      float* own = data + tile.weight;
      if (packed_.bytes) {
        fill_together<4>(tile, reinterpret_cast<int8_t*>(own), [](float number, float) {
          return static_cast<int8_t>(std::clamp(std::lrint(number), -127L, 127L));
        });
      } else if (packed_.blocks) {
        fill_together<2>(tile, reinterpret_cast<uint16_t*>(own),
                         [](float number, float scale) { return half_of(number * scale); });
      } else {
        fill(tile, own);
      }
    }
    if (packed_.bytes) reach_all();
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
    const auto cost = [&](int first, int count) {
      const Groups found = groups(first, count);
      return static_cast<double>(together_ > 1 ? sources(found).size() : found.size());
    };
    return 2.0 * cost(block, 2) <= kAlone * (cost(block, 1) + cost(block + 1, 1));
  }

  // Blocks or granules of input channels that hold these groups.
  std::set<int> sources(const Groups& groups) const {
    std::set<int> found;
    for (const int group : groups) {
      for (int i = 0; i < kernel_.inputs; ++i) {
        found.insert(in_.lane[static_cast<size_t>(group * kernel_.inputs + i)] / together_);
      }
    }
    return found;
  }

  // Of one output block: a vector of floats, halves or bytes of some inputs.
  Index floats_of_entry() const {
    return lanes_ * together_ / (packed_.bytes ? 4 : packed_.blocks ? 2 : 1);
  }

  void plan(int block, int count) {
    const Groups groups = this->groups(block, count);
    const int taps = kernel_.size * kernel_.size;
    const std::set<int> sources = together_ > 1 ? this->sources(groups) : std::set<int>();
    const int one = static_cast<int>(together_ > 1 ? sources.size() : groups.size());
    const int depth = one * (together_ > 1 ? 1 : kernel_.inputs) * taps;
    total_ += static_cast<Index>(depth) * count * floats_of_entry();
    require(total_ <= kMost, "the network has too many weights");
    const size_t entries = packed_.bytes ? packed_.granules.size() : packed_.reach.size();
    const auto [known, is_new] = entries_.emplace(groups, static_cast<int>(entries));
    packed_.tiles.push_back({block, count, depth, known->second, 0});
    if (!is_new) return;
    for (int tap = 0; tap < taps; ++tap) {
      for (const int source : sources) {
        if (packed_.bytes) packed_.granules.push_back(source * together_);
        if (packed_.blocks) reach_lane(source * lanes_, tap);
      }
    }
    for (const int group : together_ > 1 ? Groups() : groups) {
      for (int tap = 0; tap < taps; ++tap) reach(group, tap);
    }
  }

  // Bytes are made of all input blocks.
  void reach_all() {
    for (int block = 0; block < in_.blocks; ++block) reach_lane(block * lanes_, 0);
  }

  void reach(int group, int tap) {
    for (int i = 0; i < kernel_.inputs; ++i) {
      reach_lane(in_.lane[static_cast<size_t>(group * kernel_.inputs + i)], tap);
    }
  }

  void reach_lane(int lane, int tap) {
    const int middle = kernel_.size / 2, dilation = kernel_.step.dilation;
    packed_.reach.push_back({lane, static_cast<int16_t>((tap / kernel_.size - middle) * dilation),
                             static_cast<int16_t>((tap % kernel_.size - middle) * dilation)});
  }

  // [tap and source][output block][pairs or quads of inputs][16 lanes][their inputs].
  template <int kEach, class Value, class Round>
  void fill_together(const Tile& tile, Value* data, Round rounded) const {
    const std::set<int> sources = this->sources(groups(tile.block, tile.blocks));
    const std::vector<int> inputs = in_.channels(lanes_);
    const int taps = kernel_.size * kernel_.size, one = lanes_ * together_;
    for (int tap = 0; tap < taps; ++tap) {
      for (const int source : sources) {
        for (int lane = 0; lane < tile.blocks * lanes_; ++lane) {
          const int out = channels_[static_cast<size_t>(tile.block * lanes_ + lane)];
          if (out < 0) continue;
          Value* own = data + lane / lanes_ * one + lane % lanes_ * kEach;
          for (int i = 0; i < together_; ++i) {
            const auto place = static_cast<size_t>(source * together_ + i);
            const int in = place < inputs.size() ? inputs[place] : -1;
            if (in < 0 || in / kernel_.inputs != out / kernel_.outputs) continue;
            const float number = kernel_.start(out)[kernel_.place(in % kernel_.inputs, tap)];
            own[i / kEach * kEach * lanes_ + i % kEach] = rounded(number, kernel_.scale(out));
          }
        }
        data += tile.blocks * one;
      }
    }
  }

  // Zeros where an output does not belong to the group of an input.
  void fill(const Tile& tile, float* data) const {
    const int taps = kernel_.size * kernel_.size, width = tile.blocks * lanes_;
    for (const int group : groups(tile.block, tile.blocks)) {
      std::vector<std::tuple<int, const float*, float>> own;  // lanes, their weights and scale
      for (int lane = 0; lane < width; ++lane) {
        const int out = channels_[static_cast<size_t>(tile.block * lanes_ + lane)];
        if (out >= 0 && out / kernel_.outputs == group) {
          own.emplace_back(lane, kernel_.start(out), kernel_.scale(out));
        }
      }
      for (int tap = 0; tap < taps; ++tap) {
        for (int i = 0; i < kernel_.inputs; ++i, data += width) {
          const Index place = kernel_.place(i, tap);
          for (const auto& [lane, weights, scale] : own) data[lane] = weights[place] * scale;
        }
      }
    }
  }

  const Kernel& kernel_;
  const Place& in_;
  const std::vector<int>& channels_;
  const int lanes_, together_;
  Weights& weights_;
  Packed& packed_;
  std::map<Groups, int> entries_;
  Index total_ = 0;
};

// Sums of bytes become floats: each times its factor, less what the inputs' zero adds to it.
void pack_factors(const Step& step, const std::vector<int>& channels, Weights& weights,
                  Packed& packed) {
  Index place = 0;
  const auto count = static_cast<Index>(channels.size());
  float* factor = weights.add(count, &packed.factor);
  for (Index i = 0; i < count; ++i) {
    const int out = channels[static_cast<size_t>(i)];
    factor[i] = out < 0 ? 0.0f : step.input_scale * step.weight_scale->data[out];
  }
  const std::vector<float> factors(factor, factor + count);
  float* bias = weights.add(count, &place);
  const auto inputs = static_cast<int>(step.weight->shape[1]);
  for (Index i = 0; i < count; ++i) {
    const int out = channels[static_cast<size_t>(i)];
    if (out < 0) continue;
    double total = 0;
    const float* own = step.weight->data + static_cast<Index>(out) * inputs;
    for (int in = 0; in < inputs; ++in) total += std::clamp(std::lrint(own[in]), -127L, 127L);
    const double before = step.bias ? step.bias->data[out] : 0.0;
    bias[i] =
        static_cast<float>(before - step.input_zero * total * factors[static_cast<size_t>(i)]);
  }
  packed.bias = place;
}

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
                         const Kernels& kernels, Weights& weights) {
  const int lanes = kernels.lanes;
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
      const bool bytes = kernels.conv_bytes && step.weight_scale && !in.planar;
      const bool blocks = kernels.conv_blocks && !in.planar;
      const int together = bytes ? kernels.granule : blocks ? lanes : 1;
      ConvPacker(kernel, in, channels, lanes, together, bytes, weights, one).run();
      if (bytes) pack_factors(step, channels, weights, one);
      if (one.bias < 0) one.bias = per_lane(step.bias, channels, 0.0f, weights);
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
