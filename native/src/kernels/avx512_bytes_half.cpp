#define HALF
#define BYTES
#define BASE avx512_half_kernels
#define LANES 16
#define TILE_PIXELS 14
#define NAME "vnni_bf16"
#define TABLE avx512_bytes_half_kernels
#include "kernels/bytes.h"
