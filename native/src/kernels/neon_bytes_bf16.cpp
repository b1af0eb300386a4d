// For processors that multiply bytes and pairs of bfloat16.
#define HALF
#define BYTES
#define LANES 4
#define TILE_PIXELS 10
#include "kernels/bytes.h"

namespace espnetv2 {

const Kernels* neon_bytes_bf16_kernels() {
  static const Kernels table = with_bytes(*neon_bf16_kernels(), "dotprod_bf16", 128);
  return &table;
}

}  // namespace espnetv2
