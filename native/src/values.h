// What the values of a map are: floats, those of the network's precision, or bytes.
#pragma once
#include <utility>

#include "plan.h"

namespace espnetv2 {

// Bytes of a value, and the only step that reads the map, where it is one of bytes.
std::pair<int, const Step*> find_values(const Network& network, const Plan& plan, Name storage);

}  // namespace espnetv2
