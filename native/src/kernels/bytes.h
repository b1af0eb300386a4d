// The tile where the processor multiplies bytes: 1x1 convolutions whose weights the file holds in 8
// bits. Their input is rounded to bytes row by row, [granule of channels][pixel][channel], and
// multiplied by quads of neighbouring channels (VNNI, NEON's dot product) or by granules of 64
// (AMX).
#pragma once
#include "kernels/blocks.h"

namespace espnetv2 {
namespace {

#if defined(AMX)
constexpr Index kGranule = 64;  // input channels of one multiplication
#else
constexpr Index kGranule = 16;
#endif

#if defined(__aarch64__)
constexpr int kByteZero = 128;  // what `store` takes off
#else
constexpr int kByteZero = 0;
#endif

// How many rows are rounded at a time: their bytes should stay in the nearest caches.
INLINE int rows_together(const ConvArgs& a) {
  const Index rows = kByteRoom / (a.width * a.bytes_step);
  return rows < 1 ? 1 : static_cast<int>(rows);
}

// Blocks of input channels, from the first to the one behind the last.
struct Sources {
  int first, end;
};

// Those that this thread's tiles read; tiles go by groups of channels, and what they read does too.
INLINE Sources sources_of(const ConvArgs& a) {
  Index first = static_cast<Index>(a.sources) * kLanes, last = 0;
  for (int i = a.tile; i < a.tile_end; ++i) {
    if (a.tiles[i].depth == 0) continue;
    const int32_t* granules = a.granules + a.tiles[i].entry;
    const Index least = granules[0], most = granules[a.tiles[i].depth - 1];
    first = least < first ? least : first;
    last = most > last ? most : last;
  }
  const auto end = static_cast<int>((last + kGranule) / kLanes);
  return {static_cast<int>(first / kLanes), end < a.sources ? end : a.sources};
}

void round_rows(const ConvArgs& a, const Sources& sources, int row, int row_end) {
  const Vector inverse = all(a.inverse), zero = all(a.zero);
  const Index step = a.x_step;  // a copy, which no store can change
  const int width = a.width;
  uint8_t* line = a.bytes;
  for (int y = row; y < row_end; ++y, line += width * a.bytes_step) {
    for (int source = sources.first; source < sources.end; ++source) {
      const Value* x = map(a.x) + y * a.x_row + a.offsets[source];
      const Index channel = static_cast<Index>(source) * kLanes, own = channel % kGranule;
      uint8_t* to = line + (channel - own) * width + own;
      for (int p = 0; p < width; ++p, x += step, to += kGranule) {
        store(to, load(x) * inverse + zero);
      }
    }
  }
}

INLINE Vector scaled(const Spot& s, const float* factor, int block, Integers sum) {
  const Vector value = __builtin_convertvector(sum, Vector);
  return value * load(factor + block * kLanes) + load(s.bias + block * kLanes);
}

#if defined(AMX)

struct alignas(64) ByteShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// As `block_tile`; granules lie `width` pixels apart.
template <int kTiles, int kBlocks>
void byte_tile(const Spot& s, const float* factor, const uint8_t* x, Index width, int pixels) {
  alignas(64) int32_t sums[kTiles][kBlocks][kPixelsOfTile][kLanes];
  multiply_tiles(s, x, kGranule, width, sums);
  for (int b = 0; b < kBlocks; ++b) {
    Vector own[kTiles * kPixelsOfTile];
    for (int p = 0; p < pixels; ++p) {
      const int32_t* sum = sums[p / kPixelsOfTile][b][p % kPixelsOfTile];
      own[p] = scaled(s, factor, b, load_integers(sum));
    }
    finish_block(s, b, own, pixels);
  }
}

constexpr int kHalfPixels = kPixelsOfTile, kMostPixels = 2 * kPixelsOfTile;

template <int kBlocks>
INLINE void byte_tiles(const Spot& s, const float* factor, const uint8_t* x, Index width,
                       int pixels) {
  if (pixels > kHalfPixels) return byte_tile<2, kBlocks>(s, factor, x, width, pixels);
  byte_tile<1, kBlocks>(s, factor, x, width, pixels);
}

INLINE void begin_bytes() {
  const ByteShapes shapes;
  _tile_loadconfig(&shapes);
}
INLINE void end_bytes() { _tile_release(); }

#else

#if defined(__AVX512F__)

constexpr int kHalfPixels = 7, kMostPixels = 14;

// Adds what a granule of some pixels gives.
template <int kPixels, int kBlocks>
INLINE void add_granule(const uint8_t* x, const uint8_t* w, Integers (&sum)[kPixels][kBlocks]) {
#pragma GCC unroll 1
  for (int quad = 0; quad < kGranule / 4; ++quad) {
    __m512i weight[kBlocks];
    UNROLL for (int b = 0; b < kBlocks; ++b) {
      weight[b] = _mm512_load_si512(w + b * kGranule * kLanes + quad * 4 * kLanes);
    }
    UNROLL for (int p = 0; p < kPixels; ++p) {
      int32_t four;
      memcpy(&four, x + p * kGranule + 4 * quad, sizeof four);
      const __m512i values = _mm512_set1_epi32(four);
      UNROLL for (int b = 0; b < kBlocks; ++b) {
        sum[p][b] = (Integers)_mm512_dpbusd_epi32((__m512i)sum[p][b], values, weight[b]);
      }
    }
  }
}

#else

constexpr int kHalfPixels = 4, kMostPixels = 8;

template <int kQuad, int kPixels, int kBlocks>
INLINE void add_quad(const int8x16_t (&values)[kPixels], const uint8_t* w,
                     Integers (&sum)[kPixels][kBlocks]) {
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    const auto* own = reinterpret_cast<const int8_t*>(w) + b * kGranule * kLanes;
    const int8x16_t weight = vld1q_s8(own + kQuad * 4 * kLanes);
    UNROLL for (int p = 0; p < kPixels; ++p) {
      sum[p][b] = (Integers)vdotq_laneq_s32((int32x4_t)sum[p][b], weight, values[p], kQuad);
    }
  }
}

template <int kPixels, int kBlocks>
INLINE void add_granule(const uint8_t* x, const uint8_t* w, Integers (&sum)[kPixels][kBlocks]) {
  int8x16_t values[kPixels];
  UNROLL for (int p = 0; p < kPixels; ++p) {
    values[p] = vreinterpretq_s8_u8(vld1q_u8(x + p * kGranule));
  }
  add_quad<0>(values, w, sum);
  add_quad<1>(values, w, sum);
  add_quad<2>(values, w, sum);
  add_quad<3>(values, w, sum);
}

#endif

// Pixels beyond the width are multiplied like the others, and not stored. Granules lie `width`
// pixels apart.
template <int kPixels, int kBlocks>
void byte_tile(const Spot& s, const float* factor, const uint8_t* x, Index width, int pixels) {
  const auto* w = reinterpret_cast<const uint8_t*>(s.weights);
  Integers sum[kPixels][kBlocks];
  UNROLL for (int p = 0; p < kPixels; ++p) {
    UNROLL for (int b = 0; b < kBlocks; ++b) sum[p][b] = Integers{};
  }
#pragma GCC unroll 1
  for (int i = 0; i < s.depth; ++i, w += kBlocks * kGranule * kLanes) {
    add_granule(x + s.offsets[i] * width, w, sum);
  }
  UNROLL for (int b = 0; b < kBlocks; ++b) {
    Vector own[kPixels];
    UNROLL for (int p = 0; p < kPixels; ++p) own[p] = scaled(s, factor, b, sum[p][b]);
    finish_block(s, b, own, pixels);
  }
}

template <int kBlocks>
INLINE void byte_tiles(const Spot& s, const float* factor, const uint8_t* x, Index width,
                       int pixels) {
  if (pixels > kHalfPixels) return byte_tile<kMostPixels, kBlocks>(s, factor, x, width, pixels);
  byte_tile<kHalfPixels, kBlocks>(s, factor, x, width, pixels);
}

INLINE void begin_bytes() {}
INLINE void end_bytes() {}

#endif

// Where a row lies whose bytes are there already, or else where it was rounded to.
INLINE const uint8_t* bytes_of_row(const ConvArgs& a, int row) {
  return a.x_row_bytes ? static_cast<const uint8_t*>(a.x) + row * a.x_row_bytes : a.bytes;
}

void conv_bytes(const ConvArgs& a) {
  begin_bytes();
  const int together = rows_together(a);
  const Sources sources = sources_of(a);
  const Index bytes_row = a.x_row_bytes ? a.x_row_bytes : a.width * a.bytes_step;
  for (int row = a.row; row < a.row_end; row += together) {
    const int end = row + together < a.row_end ? row + together : a.row_end;
    if (a.x_row_bytes == 0) round_rows(a, sources, row, end);
    for (int i = a.tile; i < a.tile_end; ++i) {
      const Tile& t = a.tiles[i];
      Spot s = spot_of(a, t);
      s.offsets = a.granules + t.entry;
      const float* factor = a.factor + static_cast<Index>(t.block) * kLanes;
      const uint8_t* line = bytes_of_row(a, row);
      for (int y = row; y < end; ++y, line += bytes_row) {
        for (int first = 0; first < a.width; first += kMostPixels) {
          const int left = a.width - first, pixels = left < kMostPixels ? left : kMostPixels;
          move(a, t, y, first, s);
          const uint8_t* x = line + first * kGranule;
          t.blocks == 2 ? byte_tiles<2>(s, factor, x, a.width, pixels)
                        : byte_tiles<1>(s, factor, x, a.width, pixels);
        }
      }
    }
  }
  end_bytes();
}

}  // namespace

#if defined(BASE)

// Kernels of maps of the same values, with this one.
const Kernels* TABLE() {
  static const Kernels table = [] {
    Kernels own = *BASE();
    own.name = NAME;
    own.conv_bytes = conv_bytes;
    own.granule = static_cast<int>(kGranule);
    own.byte_zero = kByteZero;
    return own;
  }();
  return &table;
}

#endif

}  // namespace espnetv2
