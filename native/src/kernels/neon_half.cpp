#define HALF
#define FLOATS neon_kernels
#define LANES 4
#define TILE_PIXELS 10
#define NAME "neon"
#define TABLE neon_half_kernels
#include "kernels/table.h"
