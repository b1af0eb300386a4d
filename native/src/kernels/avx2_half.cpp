#define HALF
#define FLOATS avx2_kernels
#define LANES 8
#define TILE_PIXELS 6
#define NAME "avx2"
#define TABLE avx2_half_kernels
#include "kernels/table.h"
