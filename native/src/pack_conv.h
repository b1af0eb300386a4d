// Weights of convolutions that mix channels, as `pack` takes them in.
#pragma once
#include <vector>

#include "pack.h"

namespace espnetv2 {

// `also` is where the second map lies, if there is one; `channels` of the output's lanes; `corner`
// of an enlargement, or -1. Sets the bias only where bytes are multiplied, whose zero it takes in.
void pack_conv(const Program& program, const Step& step, const Place& in, const Place* also,
               const std::vector<int>& channels, int corner, const Kernels& kernels,
               Weights& weights, Packed& packed);

// Of planes: weights are [depth][outputs of a tile], and a tile's block is its first output.
void pack_planar(const Program& program, const Step& step, const Place* also, Weights& weights,
                 Packed& packed);

}  // namespace espnetv2
