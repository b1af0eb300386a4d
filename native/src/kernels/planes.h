// The end of a segmenter: a map of logits, enlarged to the size of the image. Channels are turned
// into planes first, so that a vector holds neighbouring pixels of one class, and the largest class
// of many pixels is found by comparing vectors.
#pragma once
#include "kernels/vector.h"

namespace espnetv2 {
namespace {

// One row of a map as planes, with its last value once more behind the end.
template <typename Input>
INLINE void turn_row(const PlanesArgs& a, int y, float* planes) {
  const Input* row = static_cast<const Input*>(a.x) + y * a.x_row;
  for (int c = 0; c < a.classes; ++c) {
    const Input* from = row + a.lanes[c] / kLanes * a.x_block + a.lanes[c] % kLanes;
    float* to = planes + c * a.scratch_row;
    for (int x = 0; x < a.x_width; ++x) to[x] = number(from[x * kLanes]);
    for (int x = a.x_width; x < a.scratch_row; ++x) to[x] = to[a.x_width - 1];
  }
}

INLINE void turn(const PlanesArgs& a, int y, float* planes) {
  a.x_wide ? turn_row<float>(a, y, planes) : turn_row<Value>(a, y, planes);
}

// Neighbouring columns of one enlarged row, of which `line` is the one between above and below.
INLINE Vector enlarged(const PlanesArgs& a, const float* line, int x) {
  const float* from = line + a.firsts[x / kLanes];
  const Vector right = load_unaligned(a.column_weights + x);
  const Integers pick = load_integers(a.picks + x);
  const Vector left_value = shuffle(load_unaligned(from), pick);
  const Vector right_value = shuffle(load_unaligned(from + 1), pick);
  return left_value * (1.0f - right) + right_value * right;
}

INLINE void between_rows(const float* above, const float* below, float down, float* line,
                         Index count) {
  for (Index x = 0; x < count; x += kLanes) {
    store(line + x, load(above + x) * (1.0f - down) + load(below + x) * down);
  }
}

void planes(const PlanesArgs& a) {
  float* turned[2] = {a.scratch, a.scratch + a.classes * a.scratch_row};
  float* lines = turned[1] + a.classes * a.scratch_row;
  int held[2] = {-1, -1};  // rows of the map in `turned`
  for (int y = a.row; y < a.row_end; ++y) {
    const int above = a.rows[2 * y], below = a.rows[2 * y + 1];
    if (held[1] == above) {  // what was below is above now
      float* other = turned[0];
      turned[0] = turned[1];
      turned[1] = other;
      held[0] = held[1];
      held[1] = -1;
    }
    if (held[0] != above) turn(a, held[0] = above, turned[0]);
    if (held[1] != below) turn(a, held[1] = below, turned[1]);
    for (int c = 0; c < a.classes; ++c) {
      const Index plane = c * a.scratch_row;
      between_rows(turned[0] + plane, turned[1] + plane, a.row_weights[y], lines + plane,
                   a.scratch_row);
    }
    for (int x = 0; x < a.width; x += kLanes) {
      const int count = a.width - x < kLanes ? a.width - x : kLanes;
      Vector best = enlarged(a, lines, x);
      if (a.planes) store_some(a.planes + static_cast<Index>(y) * a.width + x, best, count);
      Integers found = Integers{};
      for (int c = 1; c < a.classes; ++c) {
        const Vector value = enlarged(a, lines + c * a.scratch_row, x);
        if (a.planes) {
          store_some(a.planes + c * a.plane + static_cast<Index>(y) * a.width + x, value, count);
          continue;
        }
        const Integers larger = value > best;
        best = larger ? value : best;
        found = larger ? Integers{} + c : found;
      }
      for (int l = 0; a.largest && l < count; ++l) {
        a.largest[static_cast<Index>(y) * a.width + x + l] = static_cast<uint8_t>(found[l]);
      }
    }
  }
}

}  // namespace
}  // namespace espnetv2
