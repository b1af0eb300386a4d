// The C border: no exception crosses it.
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "engine.h"
#include "error.h"
#include "espnetv2.h"
#include "instruction_sets.h"

struct espnetv2_model {
  std::shared_ptr<const espnetv2::Model> model;
};

struct espnetv2_context {
  espnetv2::Context context;
};

namespace {

void tell(const char* what, char* error, size_t size) {
  if (error && size) std::snprintf(error, size, "%s", what);
}

// The result of `make`, or nothing and a message.
template <class Make>
auto guarded(char* error, size_t size, const Make& make) -> decltype(make()) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    tell("there is not enough memory", error, size);
  } catch (const std::exception& failure) {
    tell(failure.what(), error, size);
  }
  return {};
}

void check_sizes(const espnetv2_model* model, int batch, int height, int width, int threads) {
  using espnetv2::require;
  require(model != nullptr, "there is no model");
  require(batch >= 1 && batch <= 4096, "the batch must be between 1 and 4096");
  require(height >= 1 && width >= 1 && height <= 32768 && width <= 32768,
          "height and width must be between 1 and 32768");
  require(threads >= 1 && threads <= 256, "threads must be between 1 and 256");
}

espnetv2::Picture picture_of(const uint8_t* rgb, int width, int height, size_t stride) {
  using espnetv2::require;
  require(rgb != nullptr, "there is no picture");
  require(height >= 1 && width >= 1 && height <= 32768 && width <= 32768,
          "a picture's height and width must be between 1 and 32768");
  require(stride >= 3 * static_cast<size_t>(width),
          "the stride of a picture must be at least 3 bytes a pixel");
  return {rgb, width, height, stride};
}

espnetv2_model* load(espnetv2::ModelFile file) {
  return new espnetv2_model{std::make_shared<espnetv2::Model>(std::move(file))};
}

}  // namespace

const char* espnetv2_version(void) { return "0.1.0"; }

const char* espnetv2_instruction_set(void) {
  return guarded(nullptr, 0,
                 [] { return espnetv2::best_kernels(espnetv2::Precision::floats).name; });
}

const char* espnetv2_instruction_set_of(const espnetv2_model* model) {
  return model->model->kernels().name;
}

espnetv2_model* espnetv2_load(const char* path, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    espnetv2::require(path != nullptr, "there is no path");
    return load(espnetv2::ModelFile::read(path));
  });
}

espnetv2_model* espnetv2_load_memory(const void* bytes, size_t size, char* error,
                                     size_t error_size) {
  return guarded(error, error_size, [&] {
    espnetv2::require(bytes != nullptr || size == 0, "there are no bytes");
    return load(espnetv2::ModelFile::of(bytes, size));
  });
}

void espnetv2_free(espnetv2_model* model) { delete model; }

const char* espnetv2_metadata(const espnetv2_model* model, const char* key) {
  const auto& all = model->model->file().all_metadata();
  const auto found = all.find(key);
  return found == all.end() ? nullptr : found->second.c_str();
}

int espnetv2_channels(const espnetv2_model* model) {
  return model->model->network().program.tensors[espnetv2::kImage].channels;
}

size_t espnetv2_arena_size(const espnetv2_model* model, int batch, int height, int width,
                           int threads, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    check_sizes(model, batch, height, width, threads);
    const auto plan = espnetv2::make_plan(model->model->network(), batch, height, width, threads);
    return plan.bytes(threads);
  });
}

espnetv2_context* espnetv2_open(const espnetv2_model* model, int batch, int height, int width,
                                int threads, void* arena, size_t arena_size, char* error,
                                size_t error_size) {
  return guarded(error, error_size, [&]() -> espnetv2_context* {
    check_sizes(model, batch, height, width, threads);
    auto plan = espnetv2::make_plan(model->model->network(), batch, height, width, threads);
    espnetv2::require(!arena || arena_size >= plan.bytes(threads),
                      "the arena is smaller than espnetv2_arena_size says");
    return new espnetv2_context{{model->model, std::move(plan), threads, arena}};
  });
}

void espnetv2_close(espnetv2_context* context) { delete context; }

void espnetv2_run(espnetv2_context* context, const float* image) { context->context.run(image); }

int espnetv2_outputs(const espnetv2_context* context) {
  return static_cast<int>(context->context.results().size());
}

namespace {

const espnetv2::Result& result(const espnetv2_context* context, int index) {
  return context->context.results()[static_cast<size_t>(index)];
}

}  // namespace

const char* espnetv2_output_name(const espnetv2_context* context, int index) {
  return result(context, index).name.c_str();
}

espnetv2_type espnetv2_output_type(const espnetv2_context* context, int index) {
  using Type = espnetv2::Result::Type;
  const Type type = result(context, index).type;
  if (type == Type::numbers) return ESPNETV2_INT64;
  return type == Type::bytes ? ESPNETV2_UINT8 : ESPNETV2_FLOAT32;
}

int espnetv2_output_rank(const espnetv2_context* context, int index) {
  return static_cast<int>(result(context, index).shape.size());
}

const int64_t* espnetv2_output_shape(const espnetv2_context* context, int index) {
  return result(context, index).shape.data();
}

const void* espnetv2_output_data(const espnetv2_context* context, int index) {
  return context->context.result(static_cast<size_t>(index));
}

void espnetv2_size(const espnetv2_model* model, int* height, int* width) {
  const espnetv2::Preprocessing* found = model->model->states_preprocessing();
  *height = found ? found->height : 0;
  *width = found ? found->width : 0;
}

int espnetv2_prepare(const espnetv2_model* model, const uint8_t* rgb, int width, int height,
                     size_t stride, int out_height, int out_width, float* image, char* error,
                     size_t error_size) {
  return guarded(error, error_size, [&] {
    check_sizes(model, 1, out_height, out_width, 1);
    const auto picture = picture_of(rgb, width, height, stride);
    espnetv2::require(image != nullptr, "there is no image to fill");
    model->model->preprocessing().prepare(picture, out_height, out_width, image);
    return 1;
  });
}

int espnetv2_see(espnetv2_context* context, const uint8_t* rgb, int width, int height,
                 size_t stride, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    context->context.see(picture_of(rgb, width, height, stride));
    return 1;
  });
}

int espnetv2_paint(const espnetv2_model* model, const uint8_t* classes, size_t count, uint8_t* rgb,
                   char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    model->model->palette().paint(classes, count, rgb);
    return 1;
  });
}

double espnetv2_peak(double seconds) {
  return guarded(nullptr, 0,
                 [&] { return espnetv2::best_kernels(espnetv2::Precision::floats).peak(seconds); });
}

int espnetv2_profile(espnetv2_context* context, const float* image, const char** names,
                     double* milliseconds) {
  return context->context.profile(image, names, milliseconds);
}
