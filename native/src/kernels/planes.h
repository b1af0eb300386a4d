// The end of a segmenter: a map of logits, enlarged to the size of the image. Channels are turned
// into planes, so that a vector holds neighbouring pixels of one class, and the largest class of
// many pixels is found by comparing vectors. Strips of columns keep all of it in the nearest cache.
#pragma once
#include "kernels/vector.h"

namespace espnetv2 {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(LANES), may_alias));

// Between two rows of the map: `count` pixels from `first` on, as planes of all lanes, with the
// row's last value once more behind its end.
template <typename Input>
INLINE void turn(const PlanesArgs& a, int y, int first, int count) {
  const Input* row = static_cast<const Input*>(a.x);
  const float down = a.row_weights[y];
  const int own = a.x_width - first < count ? a.x_width - first : count;
  for (int block = 0; block < a.x_blocks; ++block) {
    const Index start = block * a.x_block + static_cast<Index>(first) * kLanes;
    const Input* above = row + a.rows[2 * y] * a.x_row + start;
    const Input* below = row + a.rows[2 * y + 1] * a.x_row + start;
    float* planes = a.scratch + block * kLanes * kPlane;
    for (int x = 0; x < own; x += kLanes) {
      Vector turned[kLanes];
      UNROLL for (int p = 0; p < kLanes; ++p) {
        const Index place = static_cast<Index>(x + p) * kLanes;
        turned[p] = load(above + place) * (1.0f - down) + load(below + place) * down;
      }
      transpose(turned);
      UNROLL for (int l = 0; l < kLanes; ++l) store(planes + l * kPlane + x, turned[l]);
    }
    for (int l = 0; own < count && l < kLanes; ++l)
      planes[l * kPlane + own] = planes[l * kPlane + own - 1];
  }
}

void planes(const PlanesArgs& a) {
  for (int y = a.row; y < a.row_end; ++y) {
    for (int x = 0; x < a.width; x += kLanes) {
      const int32_t* firsts = a.firsts + x / kLanes;
      const int start = a.firsts[x / kStrip * kStrip / kLanes];
      if (x % kStrip == 0) {
        const int last = x + kStrip < a.width ? x + kStrip : a.width;
        const int count = a.firsts[(last - 1) / kLanes] + kLanes + 1 - start;
        a.x_wide ? turn<float>(a, y, start, count) : turn<Value>(a, y, start, count);
      }
      const int count = a.width - x < kLanes ? a.width - x : kLanes;
      const Index place = static_cast<Index>(y) * a.width + x;
      const Vector right = load_unaligned(a.column_weights + x), left = 1.0f - right;
      const Integers pick = load_integers(a.picks + x);
      const bool within = a.picks[x + kLanes - 1] + 1 < kLanes;  // one vector holds them all
      Vector best = Vector{} - __builtin_inff();
      Integers found{}, label{};
      for (int c = 0; c < a.classes; ++c, label += 1) {
        const float* from = a.scratch + a.lanes[c] * kPlane + (*firsts - start);
        const Vector near = load_unaligned(from);
        const Vector next =
            within ? shuffle(near, pick + 1) : shuffle(load_unaligned(from + 1), pick);
        const Vector value = shuffle(near, pick) * left + next * right;
        if (a.planes) store_some(a.planes + c * a.plane + place, value, count);
        const Integers larger = value > best;
        best = larger ? value : best;
        found = larger ? label : found;
      }
      if (!a.largest) continue;
      const Bytes labels = __builtin_convertvector(found, Bytes);
      memcpy(a.largest + place, &labels, static_cast<size_t>(count));
    }
  }
}

}  // namespace
}  // namespace espnetv2
