#define HALF
#define FLOATS avx512_kernels
#define AMX
#define LANES 16
#define TILE_PIXELS 14
#define NAME "amx"
#define TABLE amx_kernels
#include "kernels/table.h"
