// compare MODEL INPUT OUTPUT BATCH HEIGHT WIDTH [THREADS]: runs a model on the floats of one file
// and writes all outputs, one after the other, to another; prints type, size in bytes and name.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "espnetv2.h"

namespace {

int fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  return 2;
}

bool read(const char* path, std::vector<float>& floats) {
  std::FILE* file = std::fopen(path, "rb");
  if (!file) return false;
  const size_t got = std::fread(floats.data(), sizeof(float), floats.size(), file);
  const bool whole = got == floats.size() && std::fgetc(file) == EOF;
  std::fclose(file);
  return whole;
}

size_t bytes_of(const espnetv2_context* context, int index) {
  size_t bytes = espnetv2_output_type(context, index) == ESPNETV2_UINT8 ? 1 : sizeof(float);
  for (int i = 0; i < espnetv2_output_rank(context, index); ++i) {
    bytes *= static_cast<size_t>(espnetv2_output_shape(context, index)[i]);
  }
  return bytes;
}

bool write(const char* path, const espnetv2_context* context) {
  std::FILE* file = std::fopen(path, "wb");
  if (!file) return false;
  bool written = true;
  for (int i = 0; i < espnetv2_outputs(context); ++i) {
    const size_t bytes = bytes_of(context, i);
    written &= std::fwrite(espnetv2_output_data(context, i), 1, bytes, file) == bytes;
    std::printf("%d %zu %s\n", espnetv2_output_type(context, i), bytes,
                espnetv2_output_name(context, i));
  }
  return std::fclose(file) == 0 && written;
}

}  // namespace

int main(int count, char** words) {
  if (count < 7) return fail("use: compare MODEL INPUT OUTPUT BATCH HEIGHT WIDTH [THREADS]");
  const int batch = std::atoi(words[4]), height = std::atoi(words[5]), width = std::atoi(words[6]);
  const int threads = count > 7 ? std::atoi(words[7]) : 1;
  char error[512] = "";
  espnetv2_model* model = espnetv2_load(words[1], error, sizeof error);
  if (!model) return fail(error);
  espnetv2_context* context =
      espnetv2_open(model, batch, height, width, threads, nullptr, 0, error, sizeof error);
  if (!context) return fail(error);
  std::vector<float> image(static_cast<size_t>(batch) * espnetv2_channels(model) * height * width);
  if (!read(words[2], image)) return fail("the input is missing or of another size");
  std::printf("%s\n", espnetv2_instruction_set_of(model));
  espnetv2_run(context, image.data());
  const bool written = write(words[3], context);
  espnetv2_close(context);
  espnetv2_free(model);
  return written ? 0 : fail("the output cannot be written");
}
