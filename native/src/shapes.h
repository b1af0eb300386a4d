// Height and width of every tensor.
#pragma once
#include <utility>
#include <vector>

#include "program.h"

namespace espnetv2 {

// Raises Error where steps do not fit each other at this size of the image.
std::pair<std::vector<int>, std::vector<int>> shapes(const Program& program, int height, int width);

// How far a step reads beyond the pixel that it makes; 0 for the pixel alone.
int reach(const Step& step);

// Whether a step reads, of `name`, only the row that it makes.
bool reads_its_row_only(const Step& step, Name name);

// A side at another size.
int scaled(int side, const Size& size);

// The tensors that a step reads.
std::vector<Name> reads(const Step& step);

}  // namespace espnetv2
