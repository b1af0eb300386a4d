// For processors that multiply bytes (dot product): the kernels of floats, and this one.
#define BYTES
#define LANES 4
#define TILE_PIXELS 10
#include "kernels/bytes.h"

namespace espnetv2 {

const Kernels* neon_bytes_kernels() {
  static const Kernels table = with_bytes(*neon_kernels(), "dotprod", 128);
  return &table;
}

}  // namespace espnetv2
