// Which maps lie plane by plane: a channel a block, of one lane. The image does, and so do the maps
// after it whose convolutions are so narrow that blocks of lanes would be filled with zeros.
#pragma once
#include <vector>

#include "program.h"

namespace espnetv2 {

// Of each tensor.
struct PlanarMaps {
  std::vector<bool> planar;
  // A row's even pixels lie first and the odd ones behind: what looks at every other pixel reads
  // neighbours then.
  std::vector<bool> parted;
  // What a pyramid makes that can read planes.
  std::vector<bool> turned;
};

// Of an arranged program.
PlanarMaps find_planar_maps(const Program& program, int lanes);

}  // namespace espnetv2
