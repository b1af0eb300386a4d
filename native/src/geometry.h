// Which input pixels an output pixel is made of, for pooling and resizing.
#pragma once
#include <cstdint>
#include <vector>

namespace espnetv2 {

// First and end of each window of adaptive pooling from `from` to `to` pixels.
std::vector<int32_t> adaptive_windows(int from, int to);

// The same for windows of 3 at stride 2, cut at the borders.
std::vector<int32_t> strided_windows(int from, int to);

// The two neighbours of each pixel of a bilinear resize with aligned corners, and the weight of
// the second.
void neighbours(int from, int to, std::vector<int32_t>& pairs, std::vector<float>& weights);

}  // namespace espnetv2
