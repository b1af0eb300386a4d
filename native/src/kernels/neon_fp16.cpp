#define HALF
#define FLOATS neon_kernels
#define LANES 4
#define TILE_PIXELS 10
#define NAME "neon_fp16"
#define TABLE neon_fp16_kernels
#include "kernels/table.h"
