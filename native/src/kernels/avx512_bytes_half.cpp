// For processors that multiply bytes and pairs of bfloat16, but no tiles.
#define HALF
#define BYTES
#define LANES 16
#define TILE_PIXELS 14
#include "kernels/bytes.h"

namespace espnetv2 {

const Kernels* avx512_bytes_half_kernels() {
  static const Kernels table = with_bytes(*avx512_half_kernels(), "vnni_bf16");
  return &table;
}

}  // namespace espnetv2
