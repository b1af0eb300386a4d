#define HALF
#define BYTES
#define BASE neon_fp16_kernels
#define LANES 4
#define TILE_PIXELS 10
#define NAME "dotprod_fp16"
#define TABLE neon_bytes_fp16_kernels
#include "kernels/bytes.h"
