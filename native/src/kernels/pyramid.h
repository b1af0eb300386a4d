// The pyramid: depth-wise convolutions of growing dilation over one map. One set of accumulators
// runs on through the branches, so hierarchical feature fusion costs nothing; the norm and the
// slopes of a branch are applied while it is stored.
#pragma once
#include "kernels/vector.h"

namespace espnetv2 {
namespace {

constexpr int kWide = kTilePixels > 7 ? 14 : 7, kNarrow = 7;  // pixels at a time

// A step's numbers of all lanes from `own` on, or the same one in each where it has none: chosen by
// address, since a branch among the sums would push them out of their registers.
struct alignas(64) Same {
  float lane[kLanes];
  constexpr explicit Same(float value) : lane() {
    for (float& l : lane) l = value;
  }
};
constexpr Same kOnes(1), kZeros(0);

INLINE Vector load_or(const float* numbers, Index own, const Same& otherwise) {
  return load(numbers ? numbers + own : otherwise.lane);
}

// What the sums are at the end of a branch; they run on.
template <class Out, int kPixels>
INLINE void store_sums(const PyramidArgs& a, Index own, const Vector (&sum)[kPixels], Out* to) {
  const Vector scale = load_or(a.scale, own, kOnes), shift = load_or(a.shift, own, kZeros);
  const Vector rise = load_or(a.rise, own, kOnes), fall = load_or(a.fall, own, kOnes);
  UNROLL for (int p = 0; p < kPixels; ++p) {
    const Vector made = slopes(sum[p] * scale + shift, rise, fall);
    store(to + p * kLanes, sizeof(Out) > 1 ? made : made * all(a.inverse) + all(a.zero));
  }
}

// Three neighbouring taps at all pixels. Each input is loaded once, although up to three pixels
// look at it.
template <int kStride, int kDilation, int kPixels>
INLINE void add_row(const float* middle, const float* w, Vector (&sum)[kPixels]) {
  const Vector weight[3] = {load(w), load(w + kLanes), load(w + 2 * kLanes)};
  constexpr int kLast = (kPixels - 1) * kStride + kDilation;
  UNROLL for (int column = -kDilation; column <= kLast; ++column) {
    const Vector value = in_register(load(middle + column * kLanes));
    UNROLL for (int tap = 0; tap < 3; ++tap) {
      const int pixel = column - (tap - 1) * kDilation;  // times the stride
      if (pixel < 0 || pixel % kStride != 0 || pixel / kStride >= kPixels) continue;
      sum[pixel / kStride] += weight[tap] * value;
    }
  }
}

// The dilations of these networks' units, since registers are chosen when this is compiled.
template <int kStride, int kDilation, int kPixels>
INLINE void add_window(int dilation, const float* x, const int32_t* offset, const float* w,
                       Vector (&sum)[kPixels]) {
  if (dilation != kDilation) {
    if constexpr (kDilation < kMostDilation) {
      add_window<kStride, kDilation + 1, kPixels>(dilation, x, offset, w, sum);
    }
    return;
  }
  UNROLL for (int row = 0; row < 3; ++row) {
    add_row<kStride, kDilation>(x + offset[3 * row + 1], w + 3 * row * kLanes, sum);
  }
}

template <class In, int kPixels, int kStride>
void pyramid_part(const PyramidArgs& a, const void* start, void* out, int block, const float* w) {
  const In* x = static_cast<const In*>(start);
  const int32_t* offset = a.offsets;
  const Index lane = static_cast<Index>(block) * a.branches * kLanes;
  Vector sum[kPixels];
  UNROLL for (int p = 0; p < kPixels; ++p) sum[p] = zero();
  for (int b = 0; b < a.branches; offset += a.taps[b], w += a.taps[b] * kLanes, ++b) {
    const Index own = lane + b * kLanes;
    const Vector bias = load(a.bias + own);
    UNROLL for (int p = 0; p < kPixels; ++p) sum[p] = a.running ? sum[p] + bias : bias;
    bool added = false;
    if constexpr (sizeof(In) == sizeof(float) && kPixels >= kNarrow) {
      added = a.dilations[b] > 0;
      for (int i = 0; added && i < a.taps[b]; i += 9) {
        add_window<kStride, 1>(a.dilations[b], x, offset + i, w + i * kLanes, sum);
      }
    }
    for (int i = 0; !added && i < a.taps[b]; ++i) {
      const Vector weight = load(w + i * kLanes);
      const In* from = x + offset[i];
      UNROLL for (int p = 0; p < kPixels; ++p) sum[p] += weight * load(from + p * kStride * kLanes);
    }
    const Index place = static_cast<Index>(b) * a.blocks * a.out_block;
#if defined(__AVX512F__) && LANES == 16 && !defined(AMX)
    if constexpr (sizeof(In) == sizeof(float)) {
      if (a.out_bytes) {
        store_sums(a, own, sum, static_cast<uint8_t*>(out) + place);
        continue;
      }
    }
#endif
    if (sizeof(Value) == sizeof(float) || a.out_wide) {
      store_sums(a, own, sum, static_cast<float*>(out) + place);
    } else {
      store_sums(a, own, sum, map(out) + place);
    }
  }
}

struct PyramidPart {
  int pixels;
  void (*run)(const PyramidArgs&, const void*, void*, int, const float*);
};

// The last part of a row overlaps the one before: what is computed twice is twice the same.
template <class In, int kStride>
INLINE PyramidPart part_of(int width) {
  static constexpr PyramidPart parts[] = {{kWide, pyramid_part<In, kWide, kStride>},
                                          {kNarrow, pyramid_part<In, kNarrow, kStride>},
                                          {3, pyramid_part<In, 3, kStride>},
                                          {1, pyramid_part<In, 1, kStride>}};
  const auto cost = [&](int pixels) { return (width + pixels - 1) / pixels * (pixels + 2); };
  PyramidPart best = parts[3];
  for (const PyramidPart& part : parts) {
    if (part.pixels <= width && cost(part.pixels) < cost(best.pixels)) best = part;
  }
  return best;
}

template <class In>
INLINE void pyramid_of(const PyramidArgs& a) {
  const bool near = a.x_step == kLanes;
  const PyramidPart part = near ? part_of<In, 1>(a.width) : part_of<In, 2>(a.width);
  Index taps = 0;
  for (int b = 0; b < a.branches; ++b) taps += a.taps[b];
  for (int block = a.block; block < a.block_end; ++block) {
    const float* w = a.weights + block * taps * kLanes;
    // all rows of a part before the next one: the rows that they share stay in the nearest cache
    for (int first = 0; first < a.width; first += part.pixels) {
      if (first + part.pixels > a.width) first = a.width - part.pixels;
      for (int y = a.row; y < a.row_end; ++y) {
        const Index from = y * a.x_row + block * a.x_block + first * a.x_step;
        const Index to = y * a.out_row + block * a.out_block + first * kLanes;
        void* out = a.out_bytes ? static_cast<uint8_t*>(a.out) + to : moved(a.out, a.out_wide, to);
        part.run(a, static_cast<const In*>(a.x) + from, out, block, w);
      }
    }
  }
}

void pyramid(const PyramidArgs& a) { a.x_wide ? pyramid_of<float>(a) : pyramid_of<Value>(a); }

}  // namespace
}  // namespace espnetv2
