// What a kernel is given. Plain data: each instruction set compiles its own kernels, and nothing
// that is compiled twice may cross the border between them.
//
// Maps are `void`: their values are floats or halves, as the kernels say (`Kernels::bytes`), and
// all distances count values.
#pragma once
#include <cstddef>
#include <cstdint>

namespace espnetv2 {

using Index = std::ptrdiff_t;

// Neighbouring output blocks that share what they read, so that they are computed together.
struct Tile {
  int32_t block;   // the first
  int32_t blocks;  // 1 or 2
  int32_t depth;   // multiply-adds of one output, but for those of the second map
  int32_t entry;   // where its offsets begin
  Index weight;    // where its weights begin: [depth][blocks][lanes], or as `conv_blocks` says
};

// Any convolution that mixes channels: out = slopes(bias + sum_i w_i x[offset_i] + residual).
// Offsets reach every tap and every input channel from the window of one output pixel, so
// kernel size, dilation, groups, shuffles and concatenations are all the same loop.
struct ConvArgs {
  const void* x;  // window of output row 0, pixel 0
  Index x_row;    // between windows of neighbouring output rows
  Index x_step;   // between windows of neighbouring output pixels
  void* out;
  Index out_row, out_block, out_step;
  bool out_wide;          // the result is floats, whatever other maps are
  const int32_t* places;  // where each output pixel lies, instead of out_step; or null
  const void* residual;   // added before the slopes; or null
  Index residual_row, residual_block;
  const void* also;  // a second map, which every tile reads after the first one; or null
  Index also_row;
  int also_depth;
  const int32_t* also_offsets;
  const Tile* tiles;
  const int32_t* offsets;
  const float* weights;
  const float* bias;  // of each output lane
  const float* rise;  // slopes for positive and negative values; both null for none
  const float* fall;
  int width;
  int row, row_end, tile, tile_end;
  Index x_odd, out_odd;  // of planes: from a row's even pixels to its odd ones; 0 for natural order
  Index out_room;        // of such a line of pixels; zeros fill it up. 0 where nobody reads them

  // Where bytes are multiplied: x becomes round(x * inverse + zero), from 0 to 255.
  float inverse, zero;
  const float* factor;      // of each output lane, from sums to floats
  int sources;              // blocks of input channels, which `offsets` reach
  const int32_t* granules;  // of the tiles' entries: where their inputs lie in a pixel's bytes
  uint8_t* bytes;           // room for rows of them, and for kSparePixels more
  Index bytes_step;         // of a pixel: a multiple of the granule
  Index x_row_bytes;        // of a map of bytes, which need no rounding; else 0
};

constexpr Index kByteRoom = Index{1} << 15;  // bytes of the rows that are rounded at a time
constexpr int kSparePixels = 32;

// What the kernels have in common that go over the rows of a map.
struct MapArgs {
  const void* x;
  Index x_row, x_block;
  void* out;
  Index out_row, out_block;
  bool out_wide;      // `out` is floats, whatever other maps are
  const float* rise;  // slopes of the result; null for none
  const float* fall;
  int blocks, width;  // of `out`
  int row, row_end;
};

constexpr int kMostDilation = 4;
constexpr int kMostOutputs = 4;         // of a tile of planes
constexpr int kMostPlanarBranches = 4;  // of a pyramid of planes

// Depth-wise convolutions of one map: the branches of a unit, whose sums run on, or a plain one,
// a pool, or a sum over several maps that lie side by side. Branch b of block c lies at block
// b * blocks + c of the result, where `blocks` is of one branch.
struct PyramidArgs : MapArgs {
  bool x_wide;  // `x` is floats
  Index x_step;
  int branches;
  const int32_t* taps;       // of each branch
  const int32_t* dilations;  // of each branch of 3x3 windows, up to kMostDilation; else 0
  const int32_t* offsets;    // [branch][tap]
  const float* weights;      // [block][branch][tap][lanes]
  const float* bias;         // [block][branch][lanes], as are the slopes and
  const float* scale;        // what is applied when storing; null for none
  const float* shift;
  bool running;    // branches add up
  bool out_bytes;  // the result becomes round(result * inverse + zero), from 0 to 255
  float inverse, zero;
  int block, block_end;
  int channels;  // of planes, which are the blocks then, unless
  bool turned;   // the result lies in blocks of lanes
};

// Bilinear interpolation between two rows and two columns.
struct ResizeArgs : MapArgs {
  const int32_t* rows;       // above and below of each output row
  const float* row_weights;  // of the one below
  const int32_t* columns;    // left and right, in floats
  const float* column_weights;
};

// Where an even number of pixels is enlarged twice, windows are of 3 pixels, where one and a half
// times, of 4, and they follow each other: where the i-th one begins, counted from the first one,
// and whether a pixel of it may weigh anything for a tap.
static constexpr int even_window(int pixels, int i) { return pixels == 3 ? i : i / 2 * 2; }
static constexpr bool even_weight(int pixels, int i, int pixel, int tap) {
  const int middle = pixel - (pixels == 4 ? i % 2 : 0);
  return middle - 1 <= tap && tap <= middle + 1;
}

// A depth-wise 3x3 convolution between an enlargement and pooling back to the size before: both
// are sums over windows of the map itself, with weights for each tap.
struct RescaleArgs : MapArgs {
  const int32_t* rows;       // first and end of each output row's window
  const float* row_weights;  // [row][of the window][3]
  const int32_t* columns;    // the same
  const float* column_weights;
  int window_rows, window_columns;  // of every window
  int even, even_end;               // columns whose windows are as `even_window` says, or none
  const float* weights;             // [block][3][3][lanes]
  const float* bias;                // [block][lanes]
};

// Means of 3x3 pixels at every other pixel, plane by plane: each is a block of floats.
struct ShrinkArgs : MapArgs {
  Index x_odd;  // as `ConvArgs::x_odd`
};

// Means, or maxima, over windows that may differ from output to output.
struct WindowArgs : MapArgs {
  const int32_t* rows;     // first and end of each output row
  const int32_t* columns;  // the same
  bool largest;
  int block, block_end;
};

// out = slopes((x * gate + other) * scale + shift), or the logistic function of x.
struct CombineArgs : MapArgs {
  const void* gate;  // one value a lane; or null
  Index gate_block;
  const void* other;  // or null
  Index other_row, other_block;
  const float* scale;  // or null
  const float* shift;
  bool logistic;
};

// Each output block is put together of lanes of several input blocks.
struct GatherArgs : MapArgs {
  const int32_t* counts;   // input blocks of each output block
  const int32_t* sources;  // where these begin, in floats
  const int32_t* picks;    // [source][lane]: which of its lanes comes here; negative for none
};

constexpr int kStrip = 128;          // columns that `planes` enlarges at a time, and
constexpr int kPlane = kStrip + 32;  // the most pixels that those are made of

// A map of logits, enlarged: as planes of floats, or as the class of the largest.
struct PlanesArgs {
  const void* x;
  Index x_row, x_block;
  int x_blocks, x_width;
  bool x_wide;           // `x` is floats
  const int32_t* lanes;  // of each class
  int classes;
  const int32_t* rows;          // above and below of each output row
  const float* row_weights;     // of the one below
  const int32_t* firsts;        // of `lanes` neighbouring output columns: the first one they read
  const int32_t* picks;         // [column]: the left neighbour, from that first one on
  const float* column_weights;  // of the right one
  float* scratch;               // `kPlane` floats a lane, then two strips a class
  float* planes;                // or null
  Index plane;
  uint8_t* largest;  // or null
  int width;
  int row, row_end;
};

using HalfOfNumber = uint16_t (*)(float);
using NumberOfHalf = float (*)(uint16_t);

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  int lanes;  // channels of a block
  int bytes;  // of a value of a map: 4 for floats, 2 for halves: bfloat16 or IEEE's
  void (*conv)(const ConvArgs&);
  // The same where every offset is of `together` neighbouring input channels, a pair or a block:
  // weights are halves, [depth][blocks][pairs of input channels][lanes][2] or, where `each` is 1,
  // [depth][input channels][blocks][lanes]. Null where the processor has nothing that multiplies
  // so.
  void (*conv_blocks)(const ConvArgs&);
  bool reads_also;  // whether it takes a second map
  // A 1x1 convolution of bytes: weights are [depth][blocks][quads of input channels][lanes][4],
  // where an entry is a granule of input channels. Null as above.
  void (*conv_bytes)(const ConvArgs&);
  void (*pyramid)(const PyramidArgs&);
  // The same of maps that lie plane by plane.
  void (*conv_planar)(const ConvArgs&);
  void (*pyramid_planar)(const PyramidArgs&);
  // So many neighbouring floats, even and odd ones apart.
  void (*part)(const float* from, float* even, float* odd, int count);
  void (*resize)(const ResizeArgs&);
  void (*rescale)(const RescaleArgs&);
  void (*shrink)(const ShrinkArgs&);
  void (*window)(const WindowArgs&);
  void (*combine)(const CombineArgs&);
  void (*gather)(const GatherArgs&);
  void (*planes)(const PlanesArgs&);
  // Each x becomes e^(x - largest), to a unit or two in the last place; none is larger.
  void (*exponentials)(float* values, int count, float largest);
  double (*peak)(double seconds);  // multiply-adds a second of one thread, registers only
  int granule;                     // of `conv_bytes`
  int together, each;              // of `conv_blocks`
  int byte_zero;                   // what `conv_bytes` takes off its inputs' bytes
  HalfOfNumber half;               // what a map holds for a number, and
  NumberOfHalf number;             // the other way round; null where it holds floats
};

const Kernels* plain_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* neon_kernels();

const Kernels* avx512_bytes_kernels();
const Kernels* avx512_bytes_half_kernels();  // whose maps are bfloat16
const Kernels* neon_bytes_kernels();
const Kernels* neon_bytes_bf16_kernels();  // whose maps are bfloat16
const Kernels* neon_bytes_fp16_kernels();  // whose maps are IEEE's halves

// Those whose maps are bfloat16.
const Kernels* plain_half_kernels();
const Kernels* avx2_half_kernels();
const Kernels* avx512_half_kernels();
const Kernels* amx_kernels();
const Kernels* neon_half_kernels();
const Kernels* neon_bf16_kernels();
const Kernels* neon_fp16_kernels();  // whose halves are IEEE's

}  // namespace espnetv2
