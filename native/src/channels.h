// Where the channels of a tensor lie: in which storage, block and lane.
#pragma once
#include <cstdint>
#include <vector>

#include "program.h"

namespace espnetv2 {

// A tensor's blocks inside of its storage. Concatenations cost nothing, because what they join
// lies in their storage from the start; shuffles only rename lanes.
struct Place {
  Name storage = kNone;  // the tensor that owns it
  int block = 0;         // the first
  int blocks = 0;
  bool planar = false;        // plane by plane: a channel a block, of one lane;
  bool parted = false;        // and the odd pixels of a row behind the even ones
  std::vector<int32_t> lane;  // of each channel, from the first block on

  // In blocks of so many lanes, of which a plane has one.
  int lanes(int whole) const { return planar ? 1 : whole; }

  // The channel of every lane, or -1.
  std::vector<int> channels(int lanes) const;
};

// Adds copies to a program where two concatenations want the same tensor, and turns sums of
// several maps into one map.
void arrange(Program& program);

// Places for all tensors of an arranged program. Raises Error where maps that are added have
// their channels at different lanes.
std::vector<Place> place_channels(const Program& program, int lanes);

}  // namespace espnetv2
