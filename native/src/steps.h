// One step on a share of its rows or parts: what its kernel is given, and the borders that it
// makes.
#pragma once
#include <cstring>

#include "maps.h"

namespace espnetv2 {

// Rows and parts of one call.
struct Share {
  int row, row_end, part, part_end;
};

void run_step(const Maps& maps, const Operation& operation, const Share& share);

inline void clear(char* start, Index bytes) { std::memset(start, 0, static_cast<size_t>(bytes)); }

}  // namespace espnetv2
