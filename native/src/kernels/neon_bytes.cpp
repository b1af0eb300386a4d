#define BYTES
#define BASE neon_kernels
#define LANES 4
#define TILE_PIXELS 10
#define NAME "dotprod"
#define TABLE neon_bytes_kernels
#include "kernels/bytes.h"
