// The tile where the processor multiplies whole blocks of bfloat16: pixels times 16 input channels
// times 16 output channels in one instruction (AMX), or pairs of input channels (AVX-512 BF16,
// NEON BF16); or IEEE's halves of eight output channels (NEON FP16).
#pragma once
#include "kernels/tile.h"

namespace espnetv2 {
namespace {

#if defined(AMX)

constexpr int kPixelsOfTile = 16, kTogether = 16, kEach = 2;

// Sums in tiles 0 to 3, [pixels][output blocks]; pixels in 4 and 5, weights in 6 and 7.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 32, 32, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 8, 8};
};

// The sums of up to 32 pixels, `step` inputs apart, and one or two output blocks: of bfloat16, or
// of bytes, whose sums are integers. Offsets are times `spread`.
template <int kTiles, int kBlocks, class Input, class Sum>
INLINE void multiply_tiles(const Spot& s, const Input* x, Index step, Index spread,
                           Sum (&sums)[kTiles][kBlocks][kPixelsOfTile][kLanes]) {
  constexpr bool kBytes = sizeof(Input) == 1;
  constexpr Index kWeights = 1024 / (kBytes ? 1 : 2);  // bytes of a tile, that bfloat16s half fill
  const auto* w = reinterpret_cast<const uint8_t*>(s.weights);
  const Index stride = step * static_cast<Index>(sizeof(Input));
  _tile_zero(0);
  if (kBlocks > 1) _tile_zero(1);
  if (kTiles > 1) _tile_zero(2);
  if (kTiles > 1 && kBlocks > 1) _tile_zero(3);
#pragma GCC unroll 1
  for (int i = 0; i < s.depth; ++i, w += kBlocks * kWeights) {
    const Input* from = x + s.offsets[i] * spread;
    _tile_loadd(4, from, stride);
    _tile_loadd(6, w, 64);
    if (kBlocks > 1) _tile_loadd(7, w + kWeights, 64);
    if (kTiles > 1) _tile_loadd(5, from + kPixelsOfTile * step, stride);
    if constexpr (kBytes) {
      _tile_dpbusd(0, 4, 6);
      if (kBlocks > 1) _tile_dpbusd(1, 4, 7);
      if (kTiles > 1) _tile_dpbusd(2, 5, 6);
      if (kTiles > 1 && kBlocks > 1) _tile_dpbusd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      if (kBlocks > 1) _tile_dpbf16ps(1, 4, 7);
      if (kTiles > 1) _tile_dpbf16ps(2, 5, 6);
      if (kTiles > 1 && kBlocks > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums[0][0], 64);
  if (kBlocks > 1) _tile_stored(1, sums[0][kBlocks - 1], 64);
  if (kTiles > 1) _tile_stored(2, sums[kTiles - 1][0], 64);
  if (kTiles > 1 && kBlocks > 1) _tile_stored(3, sums[kTiles - 1][kBlocks - 1], 64);
}

// Up to 32 neighbouring pixels of one or two output blocks. Pixels beyond the width are read and
// multiplied like the others, and not stored.
template <int kTiles, int kBlocks>
void block_tile(const Spot& s, int pixels) {
  alignas(64) float sums[kTiles][kBlocks][kPixelsOfTile][kLanes];
  multiply_tiles(s, map(s.x), s.x_step, 1, sums);
  for (int b = 0; b < kBlocks; ++b) {
    const Vector bias = load(s.bias + b * kLanes);
    Vector own[kTiles * kPixelsOfTile];
    for (int p = 0; p < pixels; ++p) {
      own[p] = load(sums[p / kPixelsOfTile][b][p % kPixelsOfTile]) + bias;
    }
    finish_block(s, b, own, pixels);
  }
}

void conv_blocks(const ConvArgs& a) {
  const TileShapes shapes;
  _tile_loadconfig(&shapes);
  constexpr int kMost = 2 * kPixelsOfTile;
  for (int i = a.tile; i < a.tile_end; ++i) {
    const Tile& t = a.tiles[i];
    Spot s = spot_of(a, t);
    for (int y = a.row; y < a.row_end; ++y) {
      for (int first = 0; first < a.width; first += kMost) {
        const int pixels = a.width - first < kMost ? a.width - first : kMost;
        move(a, t, y, first, s);
        if (pixels > kPixelsOfTile) {
          t.blocks == 2 ? block_tile<2, 2>(s, pixels) : block_tile<2, 1>(s, pixels);
        } else {
          t.blocks == 2 ? block_tile<1, 2>(s, pixels) : block_tile<1, 1>(s, pixels);
        }
      }
    }
  }
  _tile_release();
}

constexpr auto kConvBlocks = conv_blocks;

#elif defined(PAIRS)

constexpr int kTogether = 2, kEach = 2;

// Adds the products of a pair of inputs, which is the same for all lanes, and weights of each lane.
#if defined(__AVX512BF16__)
typedef __m512bh Pairs;
INLINE Pairs load_pairs(const uint16_t* p) { return (Pairs)_mm512_load_si512(p); }
INLINE Vector add_pairs(Vector sum, Pairs weights, int32_t pair) {
  return _mm512_dpbf16_ps(sum, weights, (Pairs)_mm512_set1_epi32(pair));
}
#else
typedef bfloat16x8_t Pairs;
INLINE Pairs load_pairs(const uint16_t* p) { return vreinterpretq_bf16_u16(vld1q_u16(p)); }
INLINE Vector add_pairs(Vector sum, Pairs weights, int32_t pair) {
  const bfloat16x4_t both = vreinterpret_bf16_s32(int32x2_t{pair, 0});
  return (Vector)vbfdotq_lane_f32((float32x4_t)sum, weights, both, 0);
}
#endif

template <int kStep, int kPixels, int kBlocks>
void pair_tile(const Spot& s) {
  const auto* w = reinterpret_cast<const uint16_t*>(s.weights);
  const Index step = kStep ? kStep : s.x_step;
  Vector sum[kPixels][kBlocks];
  begin(s, sum);
  for (Source from(s); from.is_there(); from.next(s)) {
#pragma GCC unroll 1
    for (int i = 0; i < from.depth; ++i, w += kBlocks * 2 * kLanes) {
      const Value* x = map(from.x) + from.offsets[i];
      Pairs weight[kBlocks];
      UNROLL for (int b = 0; b < kBlocks; ++b) weight[b] = load_pairs(w + b * 2 * kLanes);
      UNROLL for (int p = 0; p < kPixels; ++p) {
        int32_t pair;
        memcpy(&pair, x + p * step, sizeof pair);
        UNROLL for (int b = 0; b < kBlocks; ++b) {
          sum[p][b] = add_pairs(sum[p][b], weight[b], pair);
        }
      }
    }
  }
  finish(s, sum);
}

template <int kStep, int... kBefore>
constexpr TileFunctions pair_tiles(std::integer_sequence<int, kBefore...>) {
  return {{nullptr, pair_tile<kStep, kBefore + 1, 1>...},
          {nullptr, pair_tile<kStep, kBefore + 1, 2>...},
          kStep ? pair_tile<kStep ? kStep : kLanes, kWidePixels, 1> : nullptr,
          static_cast<int>(sizeof...(kBefore))};
}
constexpr TileFunctions kPairTiles = pair_tiles<kLanes>(Widths());
// Whoever skips pixels is seldom: narrow ones will do.
constexpr TileFunctions kStridedPairTiles = pair_tiles<0>(std::make_integer_sequence<int, 7>());

void conv_blocks(const ConvArgs& a) {
  conv_by(a, a.x_step == kLanes ? kPairTiles : kStridedPairTiles);
}

constexpr auto kConvBlocks = conv_blocks;

#elif defined(FP16)

constexpr int kTogether = 4, kEach = 1;
constexpr int kTerms = 8;  // times four inputs: products that are added up in halves

// Halves of the outputs of one or two blocks.
template <int kBlocks>
using Outputs = std::conditional_t<kBlocks == 2, float16x8_t, float16x4_t>;

// Adds the products of one of a pixel's four inputs. Compilers would copy that one first, and go
// pixel by pixel, where each product waits for the one before.
template <int kInput>
INLINE void add_product(float16x8_t& sum, float16x8_t weight, float16x4_t inputs) {
  asm volatile("fmla %0.8h, %1.8h, %2.h[%3]" : "+w"(sum) : "w"(weight), "x"(inputs), "i"(kInput));
}
template <int kInput>
INLINE void add_product(float16x4_t& sum, float16x4_t weight, float16x4_t inputs) {
  asm volatile("fmla %0.4h, %1.4h, %2.h[%3]" : "+w"(sum) : "w"(weight), "x"(inputs), "i"(kInput));
}
template <int kInput, int kPixels, class Sums>
INLINE void add_products(Sums (&sum)[kPixels], Sums weight, const float16x4_t (&inputs)[kPixels]) {
  UNROLL for (int p = 0; p < kPixels; ++p) add_product<kInput>(sum[p], weight, inputs[p]);
}

INLINE Vector block_of(float16x8_t outputs, int block) {
  return (Vector)vcvt_f32_f16(block ? vget_high_f16(outputs) : vget_low_f16(outputs));
}
INLINE Vector block_of(float16x4_t outputs, int) { return (Vector)vcvt_f32_f16(outputs); }

template <int kStep, int kPixels, int kBlocks>
void fp16_tile(const Spot& s) {
  using Sums = Outputs<kBlocks>;
  const auto* w = reinterpret_cast<const Sums*>(s.weights);
  const Index step = kStep ? kStep : s.x_step;
  Vector sum[kPixels][kBlocks];
  begin(s, sum);
  for (Source from(s); from.is_there(); from.next(s)) {
    for (int first = 0; first < from.depth; first += kTerms) {
      const int end = first + kTerms < from.depth ? first + kTerms : from.depth;
      Sums part[kPixels];
      UNROLL for (int p = 0; p < kPixels; ++p) part[p] = Sums{};
#pragma GCC unroll 1
      for (int i = first; i < end; ++i, w += 4) {
        const Value* x = map(from.x) + from.offsets[i];
        float16x4_t inputs[kPixels];
        UNROLL for (int p = 0; p < kPixels; ++p) {
          inputs[p] = vreinterpret_f16_u16(vld1_u16(x + p * step));
        }
        add_products<0>(part, w[0], inputs);
        add_products<1>(part, w[1], inputs);
        add_products<2>(part, w[2], inputs);
        add_products<3>(part, w[3], inputs);
      }
      UNROLL for (int p = 0; p < kPixels; ++p) {
        UNROLL for (int b = 0; b < kBlocks; ++b) sum[p][b] += block_of(part[p], b);
      }
    }
  }
  finish(s, sum);
}

template <int kStep, int... kBefore>
constexpr TileFunctions fp16_tiles(std::integer_sequence<int, kBefore...>) {
  return {{nullptr, fp16_tile<kStep, kBefore + 1, 1>...},
          {nullptr, fp16_tile<kStep, kBefore + 1, 2>...},
          nullptr,
          static_cast<int>(sizeof...(kBefore))};
}
// Sums in halves and in floats, inputs and weights of so many pixels stay in registers.
using Fp16Widths = std::make_integer_sequence<int, 7>;
constexpr TileFunctions kFp16Tiles = fp16_tiles<kLanes>(Fp16Widths());
constexpr TileFunctions kStridedFp16Tiles = fp16_tiles<0>(Fp16Widths());

void conv_blocks(const ConvArgs& a) {
  conv_by(a, a.x_step == kLanes ? kFp16Tiles : kStridedFp16Tiles);
}

constexpr auto kConvBlocks = conv_blocks;

#else

constexpr void (*kConvBlocks)(const ConvArgs&) = nullptr;
constexpr int kTogether = 0, kEach = 0;

#endif

}  // namespace
}  // namespace espnetv2
