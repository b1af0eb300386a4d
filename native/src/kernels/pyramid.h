// The pyramid: depth-wise convolutions of growing dilation over one map. One set of accumulators
// runs on through the branches, so hierarchical feature fusion costs nothing; the norm and the
// slopes of a branch are applied while it is stored.
#pragma once
#include <utility>

#include "kernels/vector.h"

namespace espnetv2 {
namespace {

// What the sums are at the end of a branch; they run on. Rounding takes much code, so in halves
// there is one function for all widths.
#if defined(HALF)
__attribute__((noinline)) void store_sums(const PyramidArgs& a, Index own, const Vector* sum,
                                          void* to, int pixels) {
  const Vector scale = a.scale ? load(a.scale + own) : all(1.0f);
  const Vector shift = a.scale ? load(a.shift + own) : zero();
  const Vector rise = a.rise ? load(a.rise + own) : all(1.0f);
  const Vector fall = a.rise ? load(a.fall + own) : all(1.0f);
  for (int p = 0; p < pixels; ++p) {
    put(to, a.out_wide, p * kLanes, slopes(sum[p] * scale + shift, rise, fall));
  }
}
#endif

template <int kPixels>
INLINE void store_branch(const PyramidArgs& a, Index own, const Vector (&sum)[kPixels], void* to) {
#if defined(HALF)
  Vector kept[kPixels];
  UNROLL for (int p = 0; p < kPixels; ++p) kept[p] = sum[p];
  store_sums(a, own, kept, to, kPixels);
#else
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
  UNROLL for (int p = 0; p < kPixels; ++p) store(map(to) + p * kLanes, value[p]);
#endif
}

template <class In, int kPixels, int kStep>
void pyramid_part(const PyramidArgs& a, const void* start, void* out, int block) {
  const In* x = static_cast<const In*>(start);
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
      const In* from = x + *offset;
      UNROLL for (int p = 0; p < kPixels; ++p) sum[p] += weight * load(from + p * step);
    }
    const Index place = static_cast<Index>(b) * a.blocks * a.out_block;
    store_branch<kPixels>(a, own, sum, moved(out, a.out_wide, place));
  }
}

using PyramidFunction = void (*)(const PyramidArgs&, const void*, void*, int);

constexpr int kPyramidPixels = kTilePixels < 12 ? kTilePixels : 12;

template <class In, int kStep, class = std::make_integer_sequence<int, kPyramidPixels>>
struct Pyramids;

template <class In, int kStep, int... kBefore>
struct Pyramids<In, kStep, std::integer_sequence<int, kBefore...>> {
  static constexpr PyramidFunction of_width[] = {nullptr, pyramid_part<In, kBefore + 1, kStep>...};
};

template <class In>
INLINE const PyramidFunction* pyramids_for(Index step) {
  if constexpr (sizeof(In) == sizeof(float)) {  // what reads halves is no unit's pyramid, and rare
    return step == kLanes ? Pyramids<In, kLanes>::of_width : Pyramids<In, 2 * kLanes>::of_width;
  } else {
    return Pyramids<In, 0>::of_width;
  }
}

template <class In>
INLINE void pyramid_of(const PyramidArgs& a) {
  const Parts parts(a.width, kPyramidPixels);
  const PyramidFunction* of_width = pyramids_for<In>(a.x_step);
  for (int block = a.block; block < a.block_end; ++block) {
    for (int y = a.row; y < a.row_end; ++y) {
      const In* x = static_cast<const In*>(a.x) + y * a.x_row + block * a.x_block;
      void* out = moved(a.out, a.out_wide, y * a.out_row + block * a.out_block);
      for (int first = 0, part = 0; first < a.width; ++part) {
        const int pixels = parts.size + (part < parts.wider);
        of_width[pixels](a, x + first * a.x_step, moved(out, a.out_wide, first * kLanes), block);
        first += pixels;
      }
    }
  }
}

void pyramid(const PyramidArgs& a) { a.x_wide ? pyramid_of<float>(a) : pyramid_of<Value>(a); }

}  // namespace
}  // namespace espnetv2
