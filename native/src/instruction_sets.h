// Which kernels this processor can run; one binary holds all of an architecture's.
#pragma once
#include <string>
#include <vector>

#include "kernels/arguments.h"

namespace espnetv2 {

// Best first; the plain ones, which run everywhere, are last. `half` for maps of bfloat16.
std::vector<const Kernels*> usable_kernels(bool half);

// The best, or those that the environment variable ESPNETV2_NATIVE_ISA names.
// Raises Error where it names none that this processor can run.
const Kernels& best_kernels(bool half);

}  // namespace espnetv2
