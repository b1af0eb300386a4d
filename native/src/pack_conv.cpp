#include "pack_conv.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "error.h"
#include "half.h"

namespace espnetv2 {

namespace {

constexpr Index kMost = Index{1} << 27;  // floats of a step
constexpr double kAlone = 1.1;           // a tile of one block is so much less efficient

// A weight of a file, which is a whole number there.
int8_t byte_of(float number) {
  const float within = std::max(-127.0f, std::min(number, 127.0f));  // -127 if it is no number
  return static_cast<int8_t>(static_cast<int>(within + 512.5f) - 512);
}

// A tap of a convolution that has `size` taps a side.
Reach reach_of(const Step& step, int lane, int tap, int size) {
  const int middle = size / 2, dilation = step.dilation;
  return {lane, static_cast<int16_t>((tap / size - middle) * dilation),
          static_cast<int16_t>((tap % size - middle) * dilation)};
}

// A convolution's weights: where those of an output begin, and where a tap of an input follows.
struct Kernel {
  const Step& step;
  int size;             // of a side
  int inputs, outputs;  // of a group
  int also;             // inputs of the second map, behind those of the group
  int corner;           // of an enlargement; -1 for a convolution

  // Of the file's numbers.
  float scale(int out) const { return step.weight_scale ? step.weight_scale->data[out] : 1.0f; }

  const float* start(int out) const {
    if (corner >= 0) return step.weight->data + out * 4 + corner;
    return step.weight->data + static_cast<Index>(out) * (inputs + also) * size * size;
  }
  Index place(int in, int tap) const {
    return corner >= 0 ? static_cast<Index>(in) * outputs * 4
                       : static_cast<Index>(in) * size * size + tap;
  }
};

using Groups = std::set<int>;

class ConvPacker {
 public:
  // `together` input channels are multiplied at once: 1, a pair, a block, or a granule of bytes.
  ConvPacker(const Kernels& kernels, const Kernel& kernel, const Place& in, const Place* also,
             const std::vector<int>& channels, int together, bool bytes, Weights& weights,
             Packed& packed)
      : kernels_(kernels),
        kernel_(kernel),
        in_(in),
        also_(also),
        channels_(channels),
        lanes_(kernels.lanes),
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
    if (also_) reach_also();
    Index total = 0;
    for (Tile& tile : packed_.tiles) {
      tile.weight = total;
      total +=
          static_cast<Index>(tile.depth + packed_.also_depth) * tile.blocks * floats_of_entry();
    }
    float* data = weights_.add(total, &packed_.weights);
    for (const Tile& tile : packed_.tiles) {
      float* own = data + tile.weight;
      if (packed_.bytes) {
        fill_together(tile, 4, reinterpret_cast<int8_t*>(own),
                      [](float number, float) { return byte_of(number); });
      } else if (packed_.blocks) {
        const bool pairs = kernels_.each == 2;
        fill_together(tile, kernels_.each, reinterpret_cast<uint16_t*>(own),
                      [&](float number, float scale) {
                        return pairs ? half_of(number * scale) : kernels_.half(number * scale);
                      });
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

  // Pairs, blocks or granules of input channels that hold these groups.
  const std::set<int>& sources(const Groups& groups) const {
    const auto [known, is_new] = sources_.try_emplace(groups);
    std::set<int>& found = known->second;
    if (!is_new) return found;
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
        if (packed_.blocks) reach_lane(source * together_, tap);
      }
    }
    for (const int group : together_ > 1 ? Groups() : groups) {
      for (int tap = 0; tap < taps; ++tap) reach(group, tap);
    }
  }

  void reach_also() {
    const size_t before = packed_.reach.size();
    if (together_ > 1) {
      for (const int source : also_sources()) reach_lane(source * together_, 0);
    } else {
      for (const int lane : also_->lane) reach_lane(lane, 0);
    }
    packed_.also_depth = static_cast<int>(packed_.reach.size() - before);
  }

  std::set<int> also_sources() const {
    std::set<int> found;
    for (const int lane : also_->lane) found.insert(lane / together_);
    return found;
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
    packed_.reach.push_back(reach_of(kernel_.step, lane, tap, kernel_.size));
  }

  // What an input lane weighs: a place behind the weights of an output of its group, or of any.
  struct Input {
    int group = kNone;
    Index place = 0;
  };
  struct Output {
    int lane, group;
    const float* weights;
    float scale;
  };
  static constexpr int kAny = -2;

  // [tap and source][output block][pairs or quads of inputs][lanes][their inputs], or, where each
  // input stands alone, [tap and source][input][output block][lanes]; then the second map's.
  template <class Value, class Round>
  void fill_together(const Tile& tile, int each, Value* data, Round rounded) const {
    std::vector<Output> outputs;
    for (int lane = 0; lane < tile.blocks * lanes_; ++lane) {
      const int out = channels_[static_cast<size_t>(tile.block * lanes_ + lane)];
      if (out < 0) continue;
      outputs.push_back({lane, out / kernel_.outputs, kernel_.start(out), kernel_.scale(out)});
    }
    const std::set<int>& own = sources(groups(tile.block, tile.blocks));
    for (int tap = 0; tap < kernel_.size * kernel_.size; ++tap) {
      const std::vector<Input> inputs = inputs_of(in_, [&](int in) {
        return Input{in / kernel_.inputs, kernel_.place(in % kernel_.inputs, tap)};
      });
      data = fill_entries(tile, each, data, rounded, inputs, outputs, own);
    }
    if (!also_) return;
    const std::vector<Input> others =
        inputs_of(*also_, [&](int in) { return Input{kAny, kernel_.inputs + in}; });
    fill_entries(tile, each, data, rounded, others, outputs, also_sources());
  }

  // Of each lane, up to a whole source.
  template <class Of>
  std::vector<Input> inputs_of(const Place& place, Of of) const {
    std::vector<Input> found;
    for (const int channel : place.channels(lanes_)) {
      found.push_back(channel < 0 ? Input() : of(channel));
    }
    found.resize((found.size() / static_cast<size_t>(together_) + 1) *
                 static_cast<size_t>(together_));
    return found;
  }

  template <class Value, class Round>
  Value* fill_entries(const Tile& tile, int each, Value* data, Round rounded,
                      const std::vector<Input>& inputs, const std::vector<Output>& outputs,
                      const std::set<int>& sources) const {
    const int one = lanes_ * together_, width = each == 1 ? tile.blocks * lanes_ : lanes_;
    const int block = each == 1 ? lanes_ : one;  // from one to the next
    std::vector<int> places(static_cast<size_t>(together_));
    for (int i = 0; i < together_; ++i) {
      places[static_cast<size_t>(i)] = i / each * each * width + i % each;
    }
    for (const int source : sources) {
      const Input* first = inputs.data() + static_cast<Index>(source) * together_;
      for (const Output& out : outputs) {
        Value* own = data + out.lane / lanes_ * block + out.lane % lanes_ * each;
        for (int i = 0; i < together_; ++i) {
          if (first[i].group != out.group && first[i].group != kAny) continue;
          own[places[static_cast<size_t>(i)]] = rounded(out.weights[first[i].place], out.scale);
        }
      }
      data += tile.blocks * one;
    }
    return data;
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
    for (int i = 0; i < kernel_.also; ++i, data += width) {
      for (int lane = 0; lane < width; ++lane) {
        const int out = channels_[static_cast<size_t>(tile.block * lanes_ + lane)];
        if (out >= 0) data[lane] = kernel_.start(out)[kernel_.inputs + i];
      }
    }
  }

  const Kernels& kernels_;
  const Kernel& kernel_;
  const Place& in_;
  const Place* const also_;  // the second map's
  const std::vector<int>& channels_;
  const int lanes_, together_;
  Weights& weights_;
  Packed& packed_;
  std::map<Groups, int> entries_;
  mutable std::map<Groups, std::set<int>> sources_;  // that were asked for
  Index total_ = 0;
};

// Sums of bytes become floats: each times its factor, less what the inputs' zero adds to it. What a
// kernel takes off its inputs' bytes, it takes off their zero as well.
void pack_factors(const Step& step, const std::vector<int>& channels, int taken_off,
                  Weights& weights, Packed& packed) {
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
    for (int in = 0; in < inputs; ++in) total += byte_of(own[in]);
    const double before = step.bias ? step.bias->data[out] : 0.0;
    const int zero = step.input_zero - taken_off;
    bias[i] = static_cast<float>(before - zero * total * factors[static_cast<size_t>(i)]);
  }
  packed.bias = place;
}

}  // namespace

void pack_conv(const Program& program, const Step& step, const Place& in, const Place* also,
               const std::vector<int>& channels, int corner, const Kernels& kernels,
               Weights& weights, Packed& packed) {
  const int ins = program.tensors[static_cast<size_t>(step.inputs[0])].channels;
  const int outs = program.tensors[static_cast<size_t>(step.out)].channels;
  const int size = corner < 0 ? static_cast<int>(step.weight->shape[2]) : 1;
  const int others = also ? static_cast<int>(also->lane.size()) : 0;
  const Kernel kernel{step, size, ins / step.groups, outs / step.groups, others, corner};
  const bool bytes = kernels.conv_bytes && step.weight_scale && !in.planar;
  const bool blocks = kernels.conv_blocks && !in.planar;
  const int together = bytes ? kernels.granule : blocks ? kernels.together : 1;
  ConvPacker(kernels, kernel, in, also, channels, together, bytes, weights, packed).run();
  packed.whole_blocks = bytes && together == kernels.lanes;
  if (bytes) pack_factors(step, channels, kernels.byte_zero, weights, packed);
}

void pack_planar(const Program& program, const Step& step, const Place* also, Weights& weights,
                 Packed& packed) {
  const int ins = program.tensors[static_cast<size_t>(step.inputs[0])].channels / step.groups;
  const int outs = program.tensors[static_cast<size_t>(step.out)].channels / step.groups;
  const int size = static_cast<int>(step.weight->shape[2]), taps = size * size;
  const int others = also ? static_cast<int>(also->lane.size()) : 0, depth = ins * taps;
  float* data =
      weights.add(static_cast<Index>(depth + others) * outs * step.groups, &packed.weights);
  Index weight = 0;
  for (int group = 0; group < step.groups; ++group) {
    for (int tap = 0; tap < taps; ++tap) {
      for (int in = 0; in < ins; ++in) {
        packed.reach.push_back(reach_of(step, group * ins + in, tap, size));
      }
    }
    const int parts = (outs + kMostOutputs - 1) / kMostOutputs;
    for (int part = 0; part < parts; ++part) {
      const int first = group * outs + outs * part / parts;
      const int count = group * outs + outs * (part + 1) / parts - first;
      packed.tiles.push_back({first, count, depth, group * depth, weight});
      weight += static_cast<Index>(depth + others) * count;
      const auto give = [&](int out, int place) {
        const Index own = static_cast<Index>(first + out) * (depth + others) + place;
        *data++ = step.weight->data[own] *
                  (step.weight_scale ? step.weight_scale->data[first + out] : 1.0f);
      };
      for (int tap = 0; tap < taps; ++tap) {
        for (int in = 0; in < ins; ++in) {
          for (int out = 0; out < count; ++out) give(out, in * taps + tap);
        }
      }
      for (int in = 0; in < others; ++in) {
        for (int out = 0; out < count; ++out) give(out, depth + in);
      }
    }
  }
  for (int in = 0; in < others; ++in) packed.reach.push_back(reach_of(step, in, 0, 1));
  packed.also_depth = others;
}

}  // namespace espnetv2
