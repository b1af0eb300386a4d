#define HALF
#define FLOATS neon_kernels
#define LANES 4
#define TILE_PIXELS 10
#define NAME "neon_bf16"
#define TABLE neon_bf16_kernels
#include "kernels/table.h"
