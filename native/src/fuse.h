// Steps that run faster as one.
#pragma once
#include "program.h"

namespace espnetv2 {

// A map that is enlarged, seen by a depth-wise 3x3 convolution and pooled back to its size: all
// three are linear, so they become one step that never makes the large map.
void fuse_rescaling(Program& program);

// A 1x1 convolution of a map of few channels that is added to another 1x1 convolution, as the
// image's shortcut is: its inputs become inputs of every group of that one.
void fuse_shortcuts(Program& program);

// The mean of a map that is read once more, as one that it gates is, becomes one of means of rows,
// which are made with the map itself.
void split_means(Program& program);

// A map that a convolution reads around its pixels is a band of rows only, if nothing else wants
// it. So what wants it behind a gate reads a copy, or what the image is convolved to once more,
// where the plan finds that to be worthwhile.
void copy_for_later(Program& program);

// What a gate waits for ends a group, since it needs a whole map. So the steps that make what it
// gates, and nothing else, come behind it: they join the group that goes on from there. Once all
// channels have their places, since some take their lanes from what comes later now.
void defer_gated(Program& program);

}  // namespace espnetv2
