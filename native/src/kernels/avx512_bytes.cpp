#define BYTES
#define BASE avx512_kernels
#define LANES 16
#define TILE_PIXELS 14
#define NAME "vnni"
#define TABLE avx512_bytes_kernels
#include "kernels/bytes.h"
