#include "pack.h"

#include <algorithm>

#include "error.h"
#include "pack_conv.h"

namespace espnetv2 {

namespace {

constexpr Index kAlignment = 16;         // floats
constexpr Index kMost = Index{1} << 27;  // floats of all steps

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

// The same channels, plane by plane.
Place planes_of(const Place& place) {
  Place planes;
  planes.planar = true;
  planes.blocks = static_cast<int>(place.lane.size());
  for (int c = 0; c < planes.blocks; ++c) planes.lane.push_back(c);
  return planes;
}

void pack_pyramid(const Step& step, const Place& in, const Place& out, int whole, Weights& weights,
                  Packed& packed) {
  const int lanes = in.lanes(whole);
  const auto branches = static_cast<int>(step.branches.size());
  const int blocks = out.blocks / branches;
  const auto sources = static_cast<int>(step.branches[0].weight->shape[1]);
  const std::vector<int> channels = in.channels(whole);
  Index total = 0;
  for (const Branch& branch : step.branches) {
    const auto side = static_cast<int>(branch.weight->shape[2]);
    packed.taps.push_back(sources * side * side);
    total += packed.taps.back();
    const bool plain = side == 3 && branch.dilation <= kMostDilation;
    packed.dilations.push_back(plain ? branch.dilation : 0);
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
  const std::vector<int> made = out.channels(whole);
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
  if (step.kind == Step::Kind::pyramid || step.kind == Step::Kind::rescale) {
    pack_pyramid(step, in, in.planar ? planes_of(out) : out, lanes, weights, packed[0]);
    return packed;
  }
  static const float kZero = 0.0f;
  for (size_t i = 0; i < packed.size(); ++i) {
    Packed& one = packed[i];
    if (step.kind == Step::Kind::conv || step.kind == Step::Kind::enlarge) {
      const bool plain = step.kind == Step::Kind::conv;
      const Place* also = step.also == kNone ? nullptr : &places[static_cast<size_t>(step.also)];
      if (out.planar) {
        pack_planar(program, step, also, weights, one);
      } else {
        pack_conv(program, step, in, also, channels, plain ? -1 : static_cast<int>(i), kernels,
                  weights, one);
      }
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
