// The tile: up to 14 pixels times two blocks of output channels, held in registers while the
// input channels go by. Nearly all multiply-adds of these networks happen in `multiply`.
#pragma once
#include <utility>

#include "kernels/vector.h"

namespace espnetv2 {
namespace {

// One tile at one place.
struct Spot {
  const float* x;
  const int32_t* offsets;
  const float* weights;
  int depth;
  const float* bias;
  const float* rise;
  const float* fall;
  const float* residual;
  Index residual_block;
  float* out;
  Index out_block, out_step;
  const int32_t* places;
  Index x_step;
};

constexpr int kAhead = 512;  // floats

template <int kPixels, int kBlocks, int kStep>
INLINE void multiply(const Spot& s, Vector (&sum)[kPixels][kBlocks]) {
  const float* w = s.weights;
  const Index step = kStep ? kStep : s.x_step;
#pragma GCC unroll 1
  for (int i = 0; i < s.depth; ++i) {
    const float* x = s.x + s.offsets[i];
    Vector weight[kBlocks];
    UNROLL for (int b = 0; b < kBlocks; ++b) weight[b] = load(w + b * kLanes);
    // weights come from afar and are read once a run: ask for them early
    UNROLL for (int b = 0; b < kBlocks; ++b) __builtin_prefetch(w + kAhead + b * kLanes);
    w += kBlocks * kLanes;
    UNROLL for (int p = 0; p < kPixels; ++p) {
      const float value = x[p * step];
      UNROLL for (int b = 0; b < kBlocks; ++b) sum[p][b] += weight[b] * value;
    }
  }
}

template <int kPixels, int kBlocks, int kStep>
void tile(const Spot& s) {
  Vector sum[kPixels][kBlocks];
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    const Vector bias = load(s.bias + b * kLanes);
    UNROLL for (int p = 0; p < kPixels; ++p) sum[p][b] = bias;
  }
  multiply<kPixels, kBlocks, kStep>(s, sum);
  if (s.residual) {
    UNROLL for (int b = 0; b < kBlocks; ++b) {
      UNROLL for (int p = 0; p < kPixels; ++p) {
        sum[p][b] += load(s.residual + b * s.residual_block + p * kLanes);
      }
    }
  }
  if (s.rise) {
    UNROLL for (int b = 0; b < kBlocks; ++b) {
      const Vector rise = load(s.rise + b * kLanes), fall = load(s.fall + b * kLanes);
      UNROLL for (int p = 0; p < kPixels; ++p) sum[p][b] = slopes(sum[p][b], rise, fall);
    }
  }
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    UNROLL for (int p = 0; p < kPixels; ++p) {
      const Index place = s.places ? s.places[p] : p * s.out_step;
      store(s.out + b * s.out_block + place, sum[p][b]);
    }
  }
}

using TileFunction = void (*)(const Spot&);

// The functions for every width, so that a tile of any width is one call.
template <int kBlocks, int kStep, class = std::make_integer_sequence<int, kTilePixels>>
struct Tiles;

template <int kBlocks, int kStep, int... kBefore>
struct Tiles<kBlocks, kStep, std::integer_sequence<int, kBefore...>> {
  static constexpr TileFunction of_width[] = {nullptr, tile<kBefore + 1, kBlocks, kStep>...};
};

template <int kBlocks>
INLINE const TileFunction* tiles_for(Index step) {
  switch (step) {
    case kLanes:
      return Tiles<kBlocks, kLanes>::of_width;
    case 2 * kLanes:
      return Tiles<kBlocks, 2 * kLanes>::of_width;
    case 2:
      return Tiles<kBlocks, 2>::of_width;
    case 1:
      return Tiles<kBlocks, 1>::of_width;
    default:
      return Tiles<kBlocks, 0>::of_width;
  }
}

// One row of one tile, in parts of nearly equal width.
INLINE void tile_row(const ConvArgs& a, const Tile& t, const TileFunction* of_width, Spot& s,
                     int y) {
  const float* x = a.x + y * a.x_row;
  float* out = a.out + y * a.out_row + t.block * a.out_block;
  const float* residual =
      a.residual ? a.residual + y * a.residual_row + t.block * a.residual_block : nullptr;
  const Parts parts(a.width, kTilePixels);
  for (int first = 0, part = 0; first < a.width; ++part) {
    const int pixels = parts.size + (part < parts.wider);
    s.x = x + first * a.x_step;
    s.out = a.places ? out : out + first * a.out_step;
    s.places = a.places ? a.places + first : nullptr;
    s.residual = residual ? residual + first * kLanes : nullptr;
    of_width[pixels](s);
    first += pixels;
  }
}

// Tiles outside, rows inside: a tile's weights stay in the nearest cache for all rows of a band.
void conv(const ConvArgs& a) {
  for (int i = a.tile; i < a.tile_end; ++i) {
    const Tile& t = a.tiles[i];
    const Index lane = static_cast<Index>(t.block) * kLanes;
    Spot s{};
    s.offsets = a.offsets + t.entry;
    s.weights = a.weights + t.weight;
    s.depth = t.depth;
    s.bias = a.bias + lane;
    s.rise = a.rise ? a.rise + lane : nullptr;
    s.fall = a.fall ? a.fall + lane : nullptr;
    s.residual_block = a.residual_block;
    s.out_block = a.out_block;
    s.out_step = a.out_step;
    s.x_step = a.x_step;
    const TileFunction* of_width = t.blocks == 2 ? tiles_for<2>(a.x_step) : tiles_for<1>(a.x_step);
    for (int y = a.row; y < a.row_end; ++y) tile_row(a, t, of_width, s, y);
  }
}

}  // namespace
}  // namespace espnetv2
