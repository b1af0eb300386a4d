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

// What each of `side` pixels, pooled from `large` ones that were enlarged from `side`, is made of
// where a convolution of 3 stands between: first and end of the pixels, and of each of them, so
// many as any needs, what it weighs for each of the 3 taps.
struct Rescaling {
  std::vector<int32_t> windows;
  std::vector<float> weights;
  int most = 0;
  int even = 0, even_end = 0;  // see `RescaleArgs`
};
Rescaling rescaling(int side, int large);

// Writes the numbers that pooling and resizing need into an operation.
void find_windows(Operation& operation, const Storage& in, const Storage& out);

// Those of an output that is enlarged, in the form that the kernel `planes` takes: the columns of
// one vector are named from the first one that it reads.
void find_enlargement(Operation& operation, const Storage& in, int height, int width);

}  // namespace espnetv2
