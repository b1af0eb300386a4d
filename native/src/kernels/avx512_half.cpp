#define HALF
#define FLOATS avx512_kernels
#define LANES 16
#define TILE_PIXELS 14
#define NAME "avx512"
#define TABLE avx512_half_kernels
#include "kernels/table.h"
