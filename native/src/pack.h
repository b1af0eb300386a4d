// Weights in the order in which the kernels read them.
#pragma once
#include <vector>

#include "channels.h"
#include "kernels/arguments.h"
#include "memory.h"
#include "program.h"

namespace espnetv2 {

// One multiply-add of an output: which input lane, seen through which tap.
struct Reach {
  int32_t lane;
  int16_t down, right;  // of the window's middle, in input pixels
};

// A step's weights, as places in `Weights::data`.
struct Packed {
  std::vector<Tile> tiles;
  std::vector<Reach> reach;        // of the tiles' entries, or of the taps of one block
  std::vector<int32_t> taps;       // of each branch of a pyramid,
  std::vector<int32_t> dilations;  // and what `PyramidArgs` says of it
  int also_depth = 0;              // so many of `reach`, the last ones, are of the second map
  bool blocks = false;             // weights are for `Kernels::conv_blocks`
  bool bytes = false;              // or for `conv_bytes`: `reach` is of all input blocks, and
  std::vector<int32_t> granules;   // of the tiles' entries, where a pixel's bytes begin
  bool whole_blocks = false;  // granules are blocks, so that a map of bytes may be read as it is
  Index factor = -1;          // of each output lane
  Index weights = -1, bias = -1, scale = -1, shift = -1, rise = -1, fall = -1;
};

// The floats of all steps behind one another, each on a border of 64 bytes.
class Weights {
 public:
  // For about so many.
  explicit Weights(size_t expected = 0) : data_(expected) {}

  // Room for so many zeros; the pointer holds until the next call.
  float* add(Index count, Index* place);
  const float* at(Index place) const { return place < 0 ? nullptr : data_.data() + place; }

 private:
  Index used_ = 0;
  Floats data_;
};

// Packs one step, several times for an enlargement: one for each corner of a doubled pixel.
std::vector<Packed> pack(const Program& program, const std::vector<Place>& places, const Step& step,
                         const Kernels& kernels, Weights& weights);

}  // namespace espnetv2
