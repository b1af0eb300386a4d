// For processors that multiply bytes (VNNI), but no tiles: the kernels of floats, and this one.
#define BYTES
#define LANES 16
#define TILE_PIXELS 14
#include "kernels/bytes.h"

namespace espnetv2 {

const Kernels* avx512_bytes_kernels() {
  static const Kernels table = with_bytes(*avx512_kernels(), "vnni");
  return &table;
}

}  // namespace espnetv2
