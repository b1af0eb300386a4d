#define HALF
#define BYTES
#define BASE neon_bf16_kernels
#define LANES 4
#define TILE_PIXELS 10
#define NAME "dotprod_bf16"
#define TABLE neon_bytes_bf16_kernels
#include "kernels/bytes.h"
