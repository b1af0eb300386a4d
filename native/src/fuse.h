// Steps that run faster as one.
#pragma once
#include "program.h"

namespace espnetv2 {

// A map that is enlarged, seen by a depth-wise 3x3 convolution and pooled back to its size: all
// three are linear, so they become one step that never makes the large map.
void fuse_rescaling(Program& program);

}  // namespace espnetv2
