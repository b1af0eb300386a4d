// Floats of 16 bits. Of internal linkage, since kernels are compiled once for each instruction set.
#pragma once
#include <cstdint>
#include <cstring>

namespace espnetv2 {

// Of bfloat16: the upper half of a float.
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

#if defined(__aarch64__)

// Of IEEE's: more exact, but none is larger than this.
constexpr float kMostFp16 = 65504;

static inline float float_of_fp16(uint16_t half) {
  __fp16 found = 0;
  std::memcpy(&found, &half, sizeof found);
  return found;
}

static inline uint16_t fp16_of(float value) {
  const float within = value > kMostFp16 ? kMostFp16 : value < -kMostFp16 ? -kMostFp16 : value;
  const auto rounded = static_cast<__fp16>(within);
  uint16_t found = 0;
  std::memcpy(&found, &rounded, sizeof found);
  return found;
}

#endif

}  // namespace espnetv2
