// Maps that lie plane by plane: a vector holds neighbouring pixels of one channel. So convolutions
// whose groups are narrower than a block multiply no zeros, and weights are broadcast instead of
// pixels. Rows have room for whole vectors; what is computed behind a row's end is never read.
#pragma once
#include <array>
#include <utility>

#include "kernels/vector.h"

namespace espnetv2 {
namespace {

constexpr int kMostVectors = kTilePixels > 6 ? 4 : 2;  // of a tile, times kMostOutputs in registers

// Vectors that hold so many pixels.
INLINE int vectors_of(int pixels) { return (pixels + kLanes - 1) / kLanes; }

#if !defined(HALF)

// One tile at one place: some vectors of neighbouring pixels of some outputs.
struct PlanarSpot {
  const float* x;
  const int32_t* offsets;
  int depth;
  const float* also;
  const int32_t* also_offsets;
  int also_depth;
  const float* weights;
  const float* bias;
  const float* rise;  // or null, as is `fall`
  const float* fall;
  const float* residual;  // or null
  Index residual_block;
  float* out;
  Index out_block;
  Index odd;    // from the even pixels of the result to the odd ones; 0 where they stay together
  int inside;   // pixels of the last vector that are within the line
  int to_fill;  // vectors behind it that become zeros
};

// A vector of an output's pixels, as they are or even and odd ones apart.
template <bool kOdd>
INLINE void put_pixels(float* out, int vector, Index odd, Vector v) {
  if (!kOdd) return store(out + vector * kLanes, v);
  const Vector even = every_other<0>(v, v), other = every_other<1>(v, v);
  memcpy(out + vector * (kLanes / 2), &even, sizeof v / 2);
  memcpy(out + vector * (kLanes / 2) + odd, &other, sizeof v / 2);
}

template <bool kOdd, int kVectors, int kOutputs>
INLINE void put_tile(const PlanarSpot& s, const Vector (&sum)[kOutputs][kVectors]) {
  UNROLL for (int o = 0; o < kOutputs; ++o) {
    float* out = s.out + o * s.out_block;
    UNROLL for (int v = 0; v < kVectors; ++v) put_pixels<kOdd>(out, v, s.odd, sum[o][v]);
    for (int v = 0; v < s.to_fill; ++v) put_pixels<kOdd>(out, kVectors + v, s.odd, zero());
  }
}

template <int kVectors, int kOutputs>
void planar_tile(const PlanarSpot& s) {
  static constexpr Lanes kNumbers([](int l) { return l; });
  Vector sum[kOutputs][kVectors];
  UNROLL for (int o = 0; o < kOutputs; ++o) {
    UNROLL for (int v = 0; v < kVectors; ++v) sum[o][v] = all(s.bias[o]);
  }
  const float* w = s.weights;
  const float* x = s.x;
  const int32_t* offsets = s.offsets;
  for (int depth = s.depth; depth; depth = x == s.also ? 0 : s.also_depth, x = s.also) {
#pragma GCC unroll 1
    for (int i = 0; i < depth; ++i, w += kOutputs) {
      Vector value[kVectors];
      UNROLL for (int v = 0; v < kVectors; ++v) {
        value[v] = in_register(load_unaligned(x + offsets[i] + v * kLanes));
      }
      UNROLL for (int o = 0; o < kOutputs; ++o) {
        UNROLL for (int v = 0; v < kVectors; ++v) sum[o][v] += value[v] * w[o];
      }
    }
    offsets = s.also_offsets;
  }
  if (s.residual) {
    UNROLL for (int o = 0; o < kOutputs; ++o) {
      UNROLL for (int v = 0; v < kVectors; ++v) {
        sum[o][v] += load_unaligned(s.residual + o * s.residual_block + v * kLanes);
      }
    }
  }
  if (s.rise) {
    UNROLL for (int o = 0; o < kOutputs; ++o) {
      const Vector rise = all(s.rise[o]), fall = all(s.fall[o]);
      UNROLL for (int v = 0; v < kVectors; ++v) sum[o][v] = slopes(sum[o][v], rise, fall);
    }
  }
  if (s.inside < kLanes) {
    const auto within = load_integers(kNumbers.lane) < s.inside;
    UNROLL for (int o = 0; o < kOutputs; ++o) {
      sum[o][kVectors - 1] = within ? sum[o][kVectors - 1] : zero();
    }
  }
  s.odd ? put_tile<true>(s, sum) : put_tile<false>(s, sum);
}

using PlanarFunction = void (*)(const PlanarSpot&);

template <int... kPlace>
constexpr std::array<PlanarFunction, sizeof...(kPlace)> planar_tiles(
    std::integer_sequence<int, kPlace...>) {
  return {planar_tile<kPlace / kMostOutputs + 1, kPlace % kMostOutputs + 1>...};
}

// By vectors, then by outputs.
constexpr auto kPlanarTiles =
    planar_tiles(std::make_integer_sequence<int, kMostVectors * kMostOutputs>());

// Of a row, or of its even or odd pixels, which begin `from` floats behind it. A row of one pixel
// has no odd ones, but the zeros behind them.
INLINE void planar_line(const ConvArgs& a, int y, Index from, float* out, Index odd, int pixels) {
  const Parts parts(pixels > 0 ? vectors_of(pixels) : 1, kMostVectors);
  const auto room = static_cast<int>((odd ? 2 : 1) * a.out_room / kLanes);
  const auto of_row = [y](const void* map, Index row) {
    return static_cast<const float*>(map) + y * row;
  };
  PlanarSpot s{};
  s.also_offsets = a.also_offsets;
  s.also_depth = a.also ? a.also_depth : 0;
  s.residual_block = a.residual_block;
  s.out_block = a.out_block;
  s.odd = odd;
  for (int i = a.tile, end = a.tile_end; i < end; ++i) {
    const Tile& t = a.tiles[i];
    s.offsets = a.offsets + t.entry;
    s.depth = t.depth;
    s.weights = a.weights + t.weight;
    s.bias = a.bias + t.block;
    if (a.rise) {
      s.rise = a.rise + t.block;
      s.fall = a.fall + t.block;
    }
    for (int first = 0, part = 0; part == 0 || first < pixels; ++part) {
      const int vectors = parts.size + (part < parts.wider), last = first + vectors * kLanes;
      s.inside = last > pixels ? kLanes - (last - pixels) : kLanes;
      s.to_fill = last < pixels ? 0 : room - last / kLanes;
      s.x = of_row(a.x, a.x_row) + from + first;
      if (a.also) s.also = of_row(a.also, a.also_row) + first;
      if (a.residual) {
        s.residual = of_row(a.residual, a.residual_row) + t.block * a.residual_block + first;
      }
      s.out = out + t.block * a.out_block + (odd ? first / 2 : first);
      kPlanarTiles[static_cast<size_t>((vectors - 1) * kMostOutputs + t.blocks - 1)](s);
      first = last;
    }
  }
}

void conv_planar(const ConvArgs& a) {
  for (int y = a.row; y < a.row_end; ++y) {
    float* out = static_cast<float*>(a.out) + y * a.out_row;
    if (a.x_odd == 0) {
      planar_line(a, y, 0, out, a.out_odd, a.width);
      continue;
    }
    planar_line(a, y, 0, out, 0, (a.width + 1) / 2);
    planar_line(a, y, a.x_odd, out + a.out_odd, 0, a.width / 2);
  }
}

#else

void conv_planar(const ConvArgs& a) { FLOATS()->conv_planar(a); }

#endif

constexpr int kAtOnce = 2;  // vectors of a channel, before its planes are turned

// The sums of all branches of one channel, [branch][row][vector], of which branches lie `step`
// apart and rows `row_step`.
template <int kRows, int kVectors>
INLINE void planar_sums(const PyramidArgs& a, const float* x, int channel, Vector* sums, Index step,
                        Index row_step) {
  const float* w = a.weights + static_cast<Index>(channel) * a.branches * 9;
  const int32_t* offset = a.offsets;
  Vector sum[kRows][kVectors] = {};
  for (int b = 0; b < a.branches; ++b, w += 9, offset += 9) {
    const int own = channel * a.branches + b;
    Vector line[3][kRows][kVectors];  // three chains, since each sum waits for the one before
    UNROLL for (int i = 0; i < 9; ++i) {
      const float* from = x + offset[i];
      const Vector weight = all(w[i]);
      UNROLL for (int r = 0; r < kRows; ++r) {
        UNROLL for (int v = 0; v < kVectors; ++v) {
          const Vector value = load_unaligned(from + r * a.x_row + v * kLanes);
          Vector& to = line[i / 3][r][v];
          to = i % 3 ? to + value * weight : value * weight;
        }
      }
    }
    const Vector bias = all(a.bias[own]);
    UNROLL for (int r = 0; r < kRows; ++r) {
      UNROLL for (int v = 0; v < kVectors; ++v) {
        const Vector mine = line[0][r][v] + line[1][r][v] + (line[2][r][v] + bias);
        sum[r][v] = a.running ? sum[r][v] + mine : mine;
        line[0][r][v] = sum[r][v];
      }
    }
    if (a.scale) {
      const Vector scale = all(a.scale[own]), shift = all(a.shift[own]);
      UNROLL for (int r = 0; r < kRows; ++r) {
        UNROLL for (int v = 0; v < kVectors; ++v) line[0][r][v] = line[0][r][v] * scale + shift;
      }
    }
    if (a.rise) {
      const Vector rise = all(a.rise[own]), fall = all(a.fall[own]);
      UNROLL for (int r = 0; r < kRows; ++r) {
        UNROLL for (int v = 0; v < kVectors; ++v) {
          line[0][r][v] = slopes(line[0][r][v], rise, fall);
        }
      }
    }
    UNROLL for (int r = 0; r < kRows; ++r) {
      UNROLL for (int v = 0; v < kVectors; ++v) {
        sums[b * step + r * row_step + v] = line[0][r][v];
      }
    }
  }
}

#if !defined(HALF)

// Planes become planes: so many rows of a part of one.
template <int kRows, int kVectors>
void planar_part(const PyramidArgs& a, const float* x, float* out, int channel) {
  planar_sums<kRows, kVectors>(a, x, channel, reinterpret_cast<Vector*>(out),
                               a.channels * a.out_block / kLanes, a.out_row / kLanes);
}

INLINE void pyramid_planes(const PyramidArgs& a, int channel) {
  const int vectors = vectors_of(a.width);
  for (int y = a.row; y < a.row_end;) {
    const float* x = static_cast<const float*>(a.x) + y * a.x_row + channel * a.x_block;
    float* out = static_cast<float*>(a.out) + y * a.out_row + channel * a.out_block;
    const int rows = kMostVectors >= 4 && vectors <= 2 && y + 1 < a.row_end ? 2 : 1;
    for (int v = 0; v < vectors;) {
      const int left = vectors - v, now = left == 1                          ? 1
                                          : rows == 2 || left < kMostVectors ? 2
                                                                             : kMostVectors;
      const auto part = rows == 2             ? (now == 2 ? planar_part<2, 2> : planar_part<2, 1>)
                        : now == kMostVectors ? planar_part<1, kMostVectors>
                        : now == 2            ? planar_part<1, 2>
                                              : planar_part<1, 1>;
      part(a, x + v * kLanes, out + v * kLanes, channel);
      v += now;
    }
    y += rows;
  }
}

#endif

// Planes become blocks.
__attribute__((noinline)) void turned_part(const PyramidArgs& a, int y, int block) {
  const int first = block * kLanes, left = a.channels - first,
            count = left < kLanes ? left : kLanes;
  const float* x = static_cast<const float*>(a.x) + y * a.x_row + first * a.x_block;
  const int made = kAtOnce * a.branches;
  for (int place = 0; place < a.width; place += kAtOnce * kLanes) {
    Vector sums[kMostPlanarBranches * kAtOnce][kLanes];  // [branch and vector][channel]
    for (int c = 0; c < kLanes; ++c) {
      Vector own[kMostPlanarBranches * kAtOnce] = {};
      if (c < count) {
        planar_sums<1, kAtOnce>(a, x + c * a.x_block + place, first + c, own, kAtOnce, kAtOnce);
      }
      for (int i = 0; i < made; ++i) sums[i][c] = own[i];
    }
    for (int i = 0; i < made; ++i) {
      transpose(sums[i]);
      const int from = place + i % kAtOnce * kLanes, pixels = a.width - from;
      const Index branch = i / kAtOnce * a.blocks + block;
      const Index to = y * a.out_row + branch * a.out_block + from * kLanes;
      for (int p = 0; p < kLanes && p < pixels; ++p) {
        put(a.out, a.out_wide, to + p * kLanes, sums[i][p]);
      }
    }
  }
}

void pyramid_planar(const PyramidArgs& args) {
  const PyramidArgs a = args;  // a copy, which no store can change
#if defined(HALF)
  if (!a.turned) return FLOATS()->pyramid_planar(a);
#else
  for (int channel = a.block; !a.turned && channel < a.block_end; ++channel) {
    pyramid_planes(a, channel);
  }
#endif
  for (int block = a.block; a.turned && block < a.block_end; ++block) {
    for (int y = a.row; y < a.row_end; ++y) turned_part(a, y, block);
  }
}

}  // namespace
}  // namespace espnetv2
