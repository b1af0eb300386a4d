// The end of a segmenter: a map of logits, enlarged to the size of the image. Channels are turned
// into planes, so that a vector holds neighbouring pixels of one class, and the largest class of
// many pixels is found by comparing vectors. Strips of columns keep all of it in the nearest cache.
// A row of the map is widened once for all output rows that lie beside it.
#pragma once
#include "kernels/vector.h"

namespace espnetv2 {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(LANES), may_alias));

// A row of the map: `count` pixels from `first` on, as planes of all lanes, with the row's last
// value once more behind its end.
template <typename Input>
INLINE void turn(const PlanesArgs& a, int row, int first, int count) {
  const int own = a.x_width - first < count ? a.x_width - first : count;
  for (int block = 0; block < a.x_blocks; ++block) {
    const Input* from = static_cast<const Input*>(a.x) + row * a.x_row + block * a.x_block +
                        static_cast<Index>(first) * kLanes;
    float* planes = a.scratch + block * kLanes * kPlane;
    for (int x = 0; x < own; x += kLanes) {
      Vector turned[kLanes];
      UNROLL for (int p = 0; p < kLanes; ++p) turned[p] = load(from + (x + p) * kLanes);
      transpose(turned);
      UNROLL for (int l = 0; l < kLanes; ++l) store(planes + l * kPlane + x, turned[l]);
    }
    for (int l = 0; own < count && l < kLanes; ++l)
      planes[l * kPlane + own] = planes[l * kPlane + own - 1];
  }
}

// A row of the map as wide as the image: a strip of it for each class.
INLINE void widen(const PlanesArgs& a, int row, int strip, int end, float* lines) {
  const int start = a.firsts[strip / kLanes];
  const int count = a.firsts[(end - 1) / kLanes] + kLanes + 1 - start;
  a.x_wide ? turn<float>(a, row, start, count) : turn<Value>(a, row, start, count);
  for (int x = strip; x < end; x += kLanes) {
    const Vector right = load_unaligned(a.column_weights + x), left = 1.0f - right;
    const Integers pick = load_integers(a.picks + x);
    const bool within = a.picks[x + kLanes - 1] + 1 < kLanes;  // one vector holds them all
    const float* planes = a.scratch + (a.firsts[x / kLanes] - start);
    float* line = lines + (x - strip);
    for (int c = 0; c < a.classes; ++c, line += kStrip) {
      const float* from = planes + a.lanes[c] * kPlane;
      const Vector near = load_unaligned(from);
      const Vector next =
          within ? shuffle(near, pick + 1) : shuffle(load_unaligned(from + 1), pick);
      store(line, shuffle(near, pick) * left + next * right);
    }
  }
}

constexpr int kChains = 4;  // vectors at a time, since each class waits for the one before
static_assert(kStrip % (kChains * kLanes) == 0, "a strip is whole");

// Pixels of a vector where so many are left.
INLINE int some(int left) { return left < 0 ? 0 : left < kLanes ? left : kLanes; }

// Strip by strip; of each the two rows that the last output row lies between are kept.
void planes(const PlanesArgs& a) {
  const Index line = static_cast<Index>(a.classes) * kStrip;
  float* const lines = a.scratch + static_cast<Index>(a.x_blocks) * kLanes * kPlane;
  for (int strip = 0; strip < a.width; strip += kStrip) {
    const int end = a.width - strip < kStrip ? a.width : strip + kStrip;
    int held[2] = {-1, -1};
    for (int y = a.row; y < a.row_end; ++y) {
      const float* near[2];
      for (int k = 0; k < 2; ++k) {
        const int row = a.rows[2 * y + k], place = row % 2;
        float* own = lines + place * line;
        if (held[place] != row) widen(a, row, strip, end, own);
        held[place] = row;
        near[k] = own;
      }
      const float down = a.row_weights[y];
      for (int x = strip; x < end; x += kChains * kLanes) {
        const Index place = static_cast<Index>(y) * a.width + x;
        Vector best[kChains];
        Integers found[kChains], label{};
        UNROLL for (int i = 0; i < kChains; ++i) {
          best[i] = Vector{} - __builtin_inff();
          found[i] = Integers{};
        }
        for (int c = 0; c < a.classes; ++c, label += 1) {
          const Index at = c * kStrip + (x - strip);
          UNROLL for (int i = 0; i < kChains; ++i) {
            const Vector upper = load(near[0] + at + i * kLanes);
            const Vector value = upper * (1.0f - down) + load(near[1] + at + i * kLanes) * down;
            const int count = some(end - x - i * kLanes);
            if (a.planes) {
              store_some(a.planes + c * a.plane + place + i * kLanes, value, count);
            }
            const Integers larger = value > best[i];
            best[i] = larger ? value : best[i];
            found[i] = larger ? label : found[i];
          }
        }
        if (!a.largest) continue;
        UNROLL for (int i = 0; i < kChains; ++i) {
          const Bytes labels = __builtin_convertvector(found[i], Bytes);
          const int count = some(end - x - i * kLanes);
          memcpy(a.largest + place + i * kLanes, &labels, static_cast<size_t>(count));
        }
      }
    }
  }
}

}  // namespace
}  // namespace espnetv2
