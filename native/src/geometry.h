// Which input pixels an output pixel is made of, for pooling and resizing.
#pragma once
#include <cstdint>
#include <vector>

#include "plan.h"

namespace espnetv2 {

// First and end of each window of adaptive pooling from `from` to `to` pixels.
std::vector<int32_t> adaptive_windows(int from, int to);

// The same for windows of 3 at stride 2, cut at the borders.
std::vector<int32_t> strided_windows(int from, int to);

// The two neighbours of each pixel of a bilinear resize with aligned corners, and the weight of
// the second.
void neighbours(int from, int to, std::vector<int32_t>& pairs, std::vector<float>& weights);

// Writes the numbers that pooling and resizing need into an operation.
void find_windows(Operation& operation, const Storage& in, const Storage& out);

// Those of a resize to a size that is no storage's.
void find_neighbours(Operation& operation, const Storage& in, int height, int width);

}  // namespace espnetv2
