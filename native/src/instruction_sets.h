// Which kernels this processor can run; one binary holds all of an architecture's.
#pragma once
#include <string>
#include <vector>

#include "kernels/arguments.h"

namespace espnetv2 {

// "fp32", "bf16" or "int8".
enum class Precision { floats, halves, bytes };

// Best first; the plain ones, which run everywhere, are last. Kernels for bytes have maps of
// bfloat16 where tiles of these are multiplied (AMX), and of floats elsewhere.
std::vector<const Kernels*> usable_kernels(Precision precision);

// The best, or those that the environment variable ESPNETV2_NATIVE_ISA names.
// Raises Error where it names none that this processor can run.
const Kernels& best_kernels(Precision precision);

}  // namespace espnetv2
