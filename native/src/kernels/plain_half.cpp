#define HALF
#define FLOATS plain_kernels
#define LANES 4
#define TILE_PIXELS 6
#define NAME "plain"
#define TABLE plain_half_kernels
#include "kernels/table.h"
