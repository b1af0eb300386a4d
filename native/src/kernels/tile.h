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

template <int kPixels, int kBlocks, int kStep>
INLINE void multiply(const Spot& s, Vector (&sum)[kPixels][kBlocks]) {
  const float* w = s.weights;
  const Index step = kStep ? kStep : s.x_step;
#pragma GCC unroll 1
  for (int i = 0; i < s.depth; ++i) {
    const float* x = s.x + s.offsets[i];
    Vector weight[kBlocks];
    UNROLL for (int b = 0; b < kBlocks; ++b) weight[b] = load(w + b * kLanes);
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

template <int kBlocks, int kStep, int... kPixels>
constexpr TileFunction tile_of(int pixels, std::integer_sequence<int, kPixels...>) {
  constexpr TileFunction table[] = {tile<kPixels + 1, kBlocks, kStep>...};
  return table[pixels - 1];
}

template <int kBlocks>
INLINE TileFunction tile_for(Index step, int pixels) {
  constexpr auto all_widths = std::make_integer_sequence<int, kTilePixels>();
  switch (step) {
    case kLanes:
      return tile_of<kBlocks, kLanes>(pixels, all_widths);
    case 2 * kLanes:
      return tile_of<kBlocks, 2 * kLanes>(pixels, all_widths);
    case 2:
      return tile_of<kBlocks, 2>(pixels, all_widths);
    case 1:
      return tile_of<kBlocks, 1>(pixels, all_widths);
    default:
      return tile_of<kBlocks, 0>(pixels, all_widths);
  }
}

// One row of one tile, in parts of nearly equal width.
INLINE void tile_row(const ConvArgs& a, const Tile& t, Spot& s, int y) {
  const float* x = a.x + y * a.x_row;
  float* out = a.out + y * a.out_row + t.block * a.out_block;
  const float* residual =
      a.residual ? a.residual + y * a.residual_row + t.block * a.residual_block : nullptr;
  const Parts parts(a.width, kTilePixels);
  int pixels = parts.size + (parts.wider > 0);
  TileFunction run = t.blocks == 2 ? tile_for<2>(a.x_step, pixels) : tile_for<1>(a.x_step, pixels);
  for (int first = 0, part = 0; first < a.width; first += pixels, ++part) {
    if (part == parts.wider && part > 0) {
      pixels = parts.size;
      run = t.blocks == 2 ? tile_for<2>(a.x_step, pixels) : tile_for<1>(a.x_step, pixels);
    }
    s.x = x + first * a.x_step;
    s.out = a.places ? out : out + first * a.out_step;
    s.places = a.places ? a.places + first : nullptr;
    s.residual = residual ? residual + first * kLanes : nullptr;
    run(s);
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
    for (int y = a.row; y < a.row_end; ++y) tile_row(a, t, s, y);
  }
}

}  // namespace
}  // namespace espnetv2
