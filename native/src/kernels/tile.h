// The tile: up to 14 pixels times two blocks of output channels, or 28 times one, held in registers
// while the input channels go by. Nearly all multiply-adds of these networks happen in `multiply`.
#pragma once
#include <utility>

#include "kernels/vector.h"

namespace espnetv2 {
namespace {

// One tile at one place.
struct Spot {
  const void* x;
  const int32_t* offsets;
  const float* weights;
  int depth;
  const void* also;  // read when `x` is done; or null
  const int32_t* also_offsets;
  int also_depth;
  const float* bias;
  const float* rise;
  const float* fall;
  const Value* residual;
  Index residual_block;
  void* out;
  Index out_block, out_step;
  bool out_wide;
  const int32_t* places;
  Index x_step;
};

// What a tile reads: its map, then the second one.
struct Source {
  const void* x;
  const int32_t* offsets;
  int depth;
  explicit Source(const Spot& s) : x(s.x), offsets(s.offsets), depth(s.depth) {}
  bool is_there() const { return depth; }
  void next(const Spot& s) {
    depth = x == s.also ? 0 : s.also_depth;
    x = s.also;
    offsets = s.also_offsets;
  }
};

constexpr int kAhead = 2048;  // floats

template <int kPixels, int kBlocks, int kStep, class In>
INLINE void multiply(const Spot& s, Vector (&sum)[kPixels][kBlocks]) {
  const float* w = s.weights;
  const Index step = kStep ? kStep : s.x_step;
  for (Source from(s); from.is_there(); from.next(s)) {
#pragma GCC unroll 1
    for (int i = 0; i < from.depth; ++i) {
      const In* x = static_cast<const In*>(from.x) + from.offsets[i];
      Vector weight[kBlocks];
      UNROLL for (int b = 0; b < kBlocks; ++b) weight[b] = load(w + b * kLanes);
      // many weights come from afar and are read once a run: ask for them early
      if (kBlocks > 1) {
        UNROLL for (int b = 0; b < kBlocks; ++b) __builtin_prefetch(w + kAhead + b * kLanes);
      }
      w += kBlocks * kLanes;
      UNROLL for (int p = 0; p < kPixels; ++p) {
        const float value = number(x[p * step]);
        UNROLL for (int b = 0; b < kBlocks; ++b) sum[p][b] += weight[b] * value;
      }
    }
  }
}

template <int kPixels, int kBlocks>
INLINE void begin(const Spot& s, Vector (&sum)[kPixels][kBlocks]) {
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    const Vector bias = load(s.bias + b * kLanes);
    UNROLL for (int p = 0; p < kPixels; ++p) sum[p][b] = bias;
  }
}

#if defined(HALF) || defined(BYTES)

template <class Out>
INLINE void finish_pixels(const Spot& s, int b, const Vector* sum, int pixels) {
  const Vector rise = s.rise ? load(s.rise + b * kLanes) : all(1.0f);
  const Vector fall = s.rise ? load(s.fall + b * kLanes) : all(1.0f);
  const Value* residual = s.residual ? s.residual + b * s.residual_block : nullptr;
  Out* const out = static_cast<Out*>(s.out) + b * s.out_block;
  const int32_t* const places = s.places;  // copies, which no store can change
  const Index step = s.out_step;
#pragma GCC unroll 1
  for (int p = 0; p < pixels; ++p) {
    const Vector value = residual ? sum[p] + load(residual + p * kLanes) : sum[p];
    store(out + (places ? places[p] : p * step), slopes(value, rise, fall));
  }
}

// The same for all widths, since rounding takes much code.
__attribute__((noinline)) void finish_block(const Spot& s, int b, const Vector* sum, int pixels) {
  s.out_wide ? finish_pixels<float>(s, b, sum, pixels) : finish_pixels<Value>(s, b, sum, pixels);
}

template <class Out, int kPixels, int kBlocks>
INLINE void store_all(const Spot& s, const Vector (&sum)[kPixels][kBlocks]) {
  Out* const out = static_cast<Out*>(s.out);  // copies, which no store can change
  const Index out_block = s.out_block, step = s.out_step;
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    UNROLL for (int p = 0; p < kPixels; ++p) store(out + b * out_block + p * step, sum[p][b]);
  }
}

template <int kPixels, int kBlocks>
INLINE void finish(const Spot& s, Vector (&sum)[kPixels][kBlocks]) {
  if constexpr (kPixels >= kTilePixels) {  // nearly all are; these stay in registers
    if (!s.places && s.rise) {
      if (s.residual) {
        UNROLL for (int b = 0; b < kBlocks; ++b) {
          const Value* residual = s.residual + b * s.residual_block;
          UNROLL for (int p = 0; p < kPixels; ++p) sum[p][b] += load(residual + p * kLanes);
        }
      }
      UNROLL for (int b = 0; b < kBlocks; ++b) {
        const Vector rise = load(s.rise + b * kLanes), fall = load(s.fall + b * kLanes);
        UNROLL for (int p = 0; p < kPixels; ++p) sum[p][b] = slopes(sum[p][b], rise, fall);
      }
      s.out_wide ? store_all<float>(s, sum) : store_all<Value>(s, sum);
      return;
    }
  }
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    Vector own[kPixels];
    UNROLL for (int p = 0; p < kPixels; ++p) own[p] = sum[p][b];
    finish_block(s, b, own, kPixels);
  }
}

#else

template <int kPixels, int kBlocks>
INLINE void finish(const Spot& s, Vector (&sum)[kPixels][kBlocks]) {
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
  // copies, which no store can change
  float* const out = static_cast<float*>(s.out);
  const int32_t* const places = s.places;
  const Index out_block = s.out_block, step = s.out_step;
  if (places) {
    UNROLL for (int b = 0; b < kBlocks; ++b) {
      UNROLL for (int p = 0; p < kPixels; ++p) store(out + b * out_block + places[p], sum[p][b]);
    }
    return;
  }
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    UNROLL for (int p = 0; p < kPixels; ++p) store(out + b * out_block + p * step, sum[p][b]);
  }
}

#endif

template <int kPixels, int kBlocks, int kStep, class In>
void tile(const Spot& s) {
  Vector sum[kPixels][kBlocks];
  begin(s, sum);
  multiply<kPixels, kBlocks, kStep, In>(s, sum);
  finish(s, sum);
}

using TileFunction = void (*)(const Spot&);

constexpr int kWidePixels = 2 * kTilePixels;

// The functions for every width, so that a tile of any width is one call, and for the widest one of
// a single block, or null.
struct TileFunctions {
  TileFunction single[kTilePixels + 1], twin[kTilePixels + 1], wide;
  int most;  // pixels of the others
};

template <int kStep, class In, int... kBefore>
constexpr TileFunctions tiles_of(std::integer_sequence<int, kBefore...>) {
  return {{nullptr, tile<kBefore + 1, 1, kStep, In>...},
          {nullptr, tile<kBefore + 1, 2, kStep, In>...},
          tile<kWidePixels, 1, kStep, In>,
          kTilePixels};
}

using Widths = std::make_integer_sequence<int, kTilePixels>;

template <int kStep, class In>
constexpr TileFunctions kTiles = tiles_of<kStep, In>(Widths());

// Whether a convolution reads planes, which are floats: there neighbours lie side by side.
INLINE bool of_planes(Index step) { return step < 4; }

// A tile's place in a step; `move` says at which pixel.
INLINE Spot spot_of(const ConvArgs& a, const Tile& t) {
  const Index lane = static_cast<Index>(t.block) * kLanes;
  Spot s{};
  s.offsets = a.offsets + t.entry;
  s.weights = a.weights + t.weight;
  s.depth = t.depth;
  s.also_offsets = a.also_offsets;
  s.also_depth = a.also_depth;
  s.bias = a.bias + lane;
  s.rise = a.rise ? a.rise + lane : nullptr;
  s.fall = a.fall ? a.fall + lane : nullptr;
  s.residual_block = a.residual_block;
  s.out_block = a.out_block;
  s.out_step = a.out_step;
  s.out_wide = a.out_wide;
  s.x_step = a.x_step;
  return s;
}

INLINE void move(const ConvArgs& a, const Tile& t, int y, int first, Spot& s) {
  s.x = moved(a.x, of_planes(a.x_step), y * a.x_row + first * a.x_step);
  const Index place = y * a.out_row + t.block * a.out_block + (a.places ? 0 : first * a.out_step);
  s.out = moved(a.out, a.out_wide, place);
  s.places = a.places ? a.places + first : nullptr;
  if (a.also) s.also = map(a.also) + y * a.also_row + first * kLanes;
  if (!a.residual) return;
  s.residual = map(a.residual) + y * a.residual_row + t.block * a.residual_block + first * kLanes;
}

// Tiles outside, rows inside: a tile's weights stay in the nearest cache for all rows of a band.
INLINE void conv_by(const ConvArgs& a, const TileFunctions& tiles) {
  const int wide = tiles.wide ? a.width / kWidePixels * kWidePixels : 0;
  const Parts all(a.width, tiles.most), rest(a.width - wide, tiles.most);
  for (int i = a.tile; i < a.tile_end; ++i) {
    const Tile& t = a.tiles[i];
    Spot s = spot_of(a, t);
    const bool twin = t.blocks == 2;
    const Parts& parts = twin ? all : rest;
    for (int y = a.row; y < a.row_end; ++y) {
      int first = 0;
      for (; !twin && first < wide; first += kWidePixels) {
        move(a, t, y, first, s);
        tiles.wide(s);
      }
      for (int part = 0; first < a.width; ++part) {
        const int pixels = parts.size + (part < parts.wider);
        move(a, t, y, first, s);
        (twin ? tiles.twin : tiles.single)[pixels](s);
        first += pixels;
      }
    }
  }
}

#if !defined(BYTES)
INLINE const TileFunctions* tiles_for(Index step) {
#if defined(HALF)
  if (of_planes(step)) return &kTiles<0, float>;
#endif
#if defined(PAIRS) || defined(FP16)
  return nullptr;  // all else goes by blocks
#else
  if (step == kLanes) return &kTiles<kLanes, Value>;
  return &kTiles<0, Value>;
#endif
}

void conv(const ConvArgs& a) { conv_by(a, *tiles_for(a.x_step)); }
#endif

}  // namespace
}  // namespace espnetv2
