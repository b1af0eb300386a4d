// Which kernels this processor can run; one binary holds all of an architecture's.
#pragma once
#include <string>
#include <vector>

#include "kernels/arguments.h"

namespace espnetv2 {

// "fp32", "bf16" or "int8".
enum class Precision { floats, halves, bytes };

// Best first; the plain ones, which run everywhere, are last. Kernels for bytes have maps of
// halves where those are multiplied faster than floats, and of floats elsewhere. Halves may be
// IEEE's where all values of the network are `small`.
std::vector<const Kernels*> usable_kernels(Precision precision, bool small);

// The best, or those that the environment variable ESPNETV2_NATIVE_ISA names.
// Raises Error where it names none that this processor can run.
const Kernels& best_kernels(Precision precision, bool small = false);

}  // namespace espnetv2
