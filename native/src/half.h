// bfloat16: the upper half of a float. Of internal linkage, since kernels are compiled once for
// each instruction set.
#pragma once
#include <cstdint>
#include <cstring>

namespace espnetv2 {

static inline float float_of(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float found = 0;
  std::memcpy(&found, &bits, sizeof found);
  return found;
}

// Rounds to nearest, ties to even; what is no number stays none.
static inline uint16_t half_of(float value) {
  if (value != value) return 0x7fc0;
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace espnetv2
