// The pyramid: depth-wise convolutions of growing dilation over one map. One set of accumulators
// runs on through the branches, so hierarchical feature fusion costs nothing; the norm and the
// slopes of a branch are applied while it is stored.
#pragma once
#include <utility>

#include "kernels/vector.h"

namespace espnetv2 {
namespace {

template <int kPixels, int kStep>
void pyramid_part(const PyramidArgs& a, const float* x, float* out, int block) {
  const int32_t* offset = a.offsets;
  int taps = 0;
  for (int b = 0; b < a.branches; ++b) taps += a.taps[b];
  const float* w = a.weights + static_cast<Index>(block) * taps * kLanes;
  const Index lane = static_cast<Index>(block) * a.branches * kLanes;
  const Index step = kStep ? kStep : a.x_step;
  Vector sum[kPixels];
  UNROLL for (int p = 0; p < kPixels; ++p) sum[p] = zero();
  for (int b = 0; b < a.branches; ++b) {
    const Index own = lane + b * kLanes;
    const Vector bias = load(a.bias + own);
    UNROLL for (int p = 0; p < kPixels; ++p) sum[p] = a.running ? sum[p] + bias : bias;
#pragma GCC unroll 1
    for (int i = 0; i < a.taps[b]; ++i, ++offset, w += kLanes) {
      const Vector weight = load(w);
      const float* from = x + *offset;
      UNROLL for (int p = 0; p < kPixels; ++p) sum[p] += weight * load(from + p * step);
    }
    Vector value[kPixels];
    UNROLL for (int p = 0; p < kPixels; ++p) value[p] = sum[p];
    if (a.scale) {
      const Vector scale = load(a.scale + own), shift = load(a.shift + own);
      UNROLL for (int p = 0; p < kPixels; ++p) value[p] = value[p] * scale + shift;
    }
    if (a.rise) {
      const Vector rise = load(a.rise + own), fall = load(a.fall + own);
      UNROLL for (int p = 0; p < kPixels; ++p) value[p] = slopes(value[p], rise, fall);
    }
    float* to = out + static_cast<Index>(b) * a.blocks * a.out_block;
    UNROLL for (int p = 0; p < kPixels; ++p) store(to + p * kLanes, value[p]);
  }
}

using PyramidFunction = void (*)(const PyramidArgs&, const float*, float*, int);

constexpr int kPyramidPixels = kTilePixels < 12 ? kTilePixels : 12;

template <int kStep, class = std::make_integer_sequence<int, kPyramidPixels>>
struct Pyramids;

template <int kStep, int... kBefore>
struct Pyramids<kStep, std::integer_sequence<int, kBefore...>> {
  static constexpr PyramidFunction of_width[] = {nullptr, pyramid_part<kBefore + 1, kStep>...};
};

INLINE const PyramidFunction* pyramids_for(Index step) {
  if (step == kLanes) return Pyramids<kLanes>::of_width;
  if (step == 2 * kLanes) return Pyramids<2 * kLanes>::of_width;
  return Pyramids<0>::of_width;
}

void pyramid(const PyramidArgs& a) {
  const Parts parts(a.width, kPyramidPixels);
  const PyramidFunction* of_width = pyramids_for(a.x_step);
  for (int block = a.block; block < a.block_end; ++block) {
    for (int y = a.row; y < a.row_end; ++y) {
      const float* x = a.x + y * a.x_row + block * a.x_block;
      float* out = a.out + y * a.out_row + block * a.out_block;
      for (int first = 0, part = 0; first < a.width; ++part) {
        const int pixels = parts.size + (part < parts.wider);
        of_width[pixels](a, x + first * a.x_step, out + first * kLanes, block);
        first += pixels;
      }
    }
  }
}

}  // namespace
}  // namespace espnetv2
