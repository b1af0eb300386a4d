/* The native inference engine of espnetv2: small networks, fast on CPUs, without dependencies.
 *
 *   char error[256];
 *   espnetv2_model* model = espnetv2_load("model.espnetv2", error, sizeof error);
 *   espnetv2_context* context = espnetv2_open(model, 1, 224, 224, 2, NULL, 0, error, sizeof error);
 *   espnetv2_run(context, image);
 *   const float* logits = espnetv2_output_data(context, 0);
 *   espnetv2_close(context);
 *   espnetv2_free(model);
 *
 * Functions that can fail give NULL (or 0) and write one line of at most error_size bytes, its
 * final zero included, to `error`, which may be NULL. No exception crosses this border.
 *
 * A model never changes: any number of contexts may use it at once, on any threads. A context is
 * for one call at a time.
 */
#ifndef ESPNETV2_H
#define ESPNETV2_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define ESPNETV2_API
#else
#define ESPNETV2_API __attribute__((visibility("default")))
#endif

typedef struct espnetv2_model espnetv2_model;
typedef struct espnetv2_context espnetv2_context;

typedef enum { ESPNETV2_FLOAT32 = 0, ESPNETV2_UINT8 = 1, ESPNETV2_INT64 = 2 } espnetv2_type;

/* Version of this library, such as "0.1.0". */
ESPNETV2_API const char* espnetv2_version(void);

/* The instruction set that models of float32 loaded now will use: "avx512", "avx2", "neon" or "plain". The
 * environment variable ESPNETV2_NATIVE_ISA chooses another one. NULL if it names none of here. */
ESPNETV2_API const char* espnetv2_instruction_set(void);

/* What a model's kernels are compiled for: one of the above; "amx", which models of bfloat16 and
 * int8 use where the processor has it; or, for int8, "vnni_bf16" or "vnni". */
ESPNETV2_API const char* espnetv2_instruction_set_of(const espnetv2_model* model);

/* ---- models ------------------------------------------------------------------------------ */

ESPNETV2_API espnetv2_model* espnetv2_load(const char* path, char* error, size_t error_size);

/* The bytes are copied. */
ESPNETV2_API espnetv2_model* espnetv2_load_memory(const void* bytes, size_t size, char* error,
                                                  size_t error_size);
ESPNETV2_API void espnetv2_free(espnetv2_model* model);

/* A text of the file's header, or NULL: "model", "task", "classes" (one a line), "preprocessing"
 * and "palette" (both JSON), "precision" ("fp32", "bf16" or "int8"), ... */
ESPNETV2_API const char* espnetv2_metadata(const espnetv2_model* model, const char* key);

/* Channels of the image. */
ESPNETV2_API int espnetv2_channels(const espnetv2_model* model);

/* ---- contexts: a model at one size --------------------------------------------------------- */

/* Bytes of memory that a context works in; 0 on failure. */
ESPNETV2_API size_t espnetv2_arena_size(const espnetv2_model* model, int batch, int height,
                                        int width, int threads, char* error, size_t error_size);

/* `threads` counts the caller's. `arena` is NULL, or memory of at least espnetv2_arena_size bytes
 * on a border of 64 that lives as long as the context. */
ESPNETV2_API espnetv2_context* espnetv2_open(const espnetv2_model* model, int batch, int height,
                                             int width, int threads, void* arena, size_t arena_size,
                                             char* error, size_t error_size);
ESPNETV2_API void espnetv2_close(espnetv2_context* context);

/* Image: float (batch, channels, height, width), as the preprocessing of the file's header makes
 * it. Allocates nothing and cannot fail. */
ESPNETV2_API void espnetv2_run(espnetv2_context* context, const float* image);

/* Outputs; the data are overwritten by the next run. */
ESPNETV2_API int espnetv2_outputs(const espnetv2_context* context);
ESPNETV2_API const char* espnetv2_output_name(const espnetv2_context* context, int index);
ESPNETV2_API espnetv2_type espnetv2_output_type(const espnetv2_context* context, int index);
ESPNETV2_API int espnetv2_output_rank(const espnetv2_context* context, int index);
ESPNETV2_API const int64_t* espnetv2_output_shape(const espnetv2_context* context, int index);
ESPNETV2_API const void* espnetv2_output_data(const espnetv2_context* context, int index);

/* ---- pictures: rows of red, green and blue bytes, `stride` bytes from one to the next ------- */

/* Height and width that the model was exported for; 0 and 0 where it names none. */
ESPNETV2_API void espnetv2_size(const espnetv2_model* model, int* height, int* width);

/* Resizes and normalises a picture as the file's header says, into the float image (3, out_height,
 * out_width) that espnetv2_run takes. Gives 1, or 0 and a message. */
ESPNETV2_API int espnetv2_prepare(const espnetv2_model* model, const uint8_t* rgb, int width,
                                  int height, size_t stride, int out_height, int out_width,
                                  float* image, char* error, size_t error_size);

/* espnetv2_prepare and espnetv2_run in one, for a context of batch 1: from a camera's picture to
 * the outputs. Gives 1, or 0 and a message. */
ESPNETV2_API int espnetv2_see(espnetv2_context* context, const uint8_t* rgb, int width, int height,
                              size_t stride, char* error, size_t error_size);

/* Writes the colour of each class to `rgb`, 3 * count bytes. Gives 1, or 0 and a message. */
ESPNETV2_API int espnetv2_paint(const espnetv2_model* model, const uint8_t* classes, size_t count,
                                uint8_t* rgb, char* error, size_t error_size);

/* ---- measuring ----------------------------------------------------------------------------- */

/* Multiply-adds a second in float32 of one thread, with nothing but registers: what the
 * arithmetic of a network can take at the least. */
ESPNETV2_API double espnetv2_peak(double seconds);

/* Milliseconds of each group of steps in one run, and their descriptions; for looking closer.
 * Gives the number of groups; `names` and `milliseconds` may be NULL, or hold that many. */
ESPNETV2_API int espnetv2_profile(espnetv2_context* context, const float* image, const char** names,
                                  double* milliseconds);

#ifdef __cplusplus
}
#endif

#endif
