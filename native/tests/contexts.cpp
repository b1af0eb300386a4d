// contexts MODEL...: contexts of one model on several threads at once, each with several threads of
// its own, while others open and close; every result must be, bit for bit, that of one thread.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "espnetv2.h"

namespace {

struct Size {
  int batch, height, width;
};

// the last one is large enough for groups of steps that keep a few rows of their maps
constexpr Size kSizes[] = {{1, 64, 96}, {2, 33, 45}, {1, 97, 61}, {1, 300, 520}};
constexpr int kCount = sizeof kSizes / sizeof *kSizes;
constexpr int kCallers = 4, kRounds = 3;

std::vector<float> image_of(const espnetv2_model* model, const Size& size) {
  const int channels = espnetv2_channels(model);
  std::vector<float> image(static_cast<size_t>(size.batch) * channels * size.height * size.width);
  unsigned state = 1;
  for (float& value : image) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) / (1 << 23) - 1;
  }
  return image;
}

size_t bytes_of(const espnetv2_context* context, int index) {
  size_t bytes = espnetv2_output_type(context, index) == ESPNETV2_UINT8 ? 1 : sizeof(float);
  for (int i = 0; i < espnetv2_output_rank(context, index); ++i) {
    bytes *= static_cast<size_t>(espnetv2_output_shape(context, index)[i]);
  }
  return bytes;
}

// All outputs of several runs behind one another; empty if no context could be opened.
std::string results(const espnetv2_model* model, const Size& size, int threads, int runs) {
  char error[256];
  espnetv2_context* context = espnetv2_open(model, size.batch, size.height, size.width, threads,
                                            nullptr, 0, error, sizeof error);
  if (!context) {
    std::fprintf(stderr, "%s\n", error);
    return "";
  }
  const std::vector<float> image = image_of(model, size);
  std::string found;
  for (int run = 0; run < runs; ++run) {
    espnetv2_run(context, image.data());
    for (int i = 0; i < espnetv2_outputs(context); ++i) {
      found.append(static_cast<const char*>(espnetv2_output_data(context, i)),
                   bytes_of(context, i));
    }
  }
  espnetv2_close(context);
  return found;
}

int unlike(const espnetv2_model* model) {
  std::vector<std::string> truth;
  for (const Size& size : kSizes) truth.push_back(results(model, size, 1, kRounds));
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      for (int i = 0; i < kCount; ++i) {
        const auto which = static_cast<size_t>((caller + i) % kCount);
        const std::string found = results(model, kSizes[which], 1 + (caller + i) % 4, kRounds);
        wrong += found.empty() || found != truth[which];
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  return wrong;
}

}  // namespace

int main(int count, char** words) {
  int wrong = 0;
  for (int i = 1; i < count; ++i) {
    char error[256];
    espnetv2_model* model = espnetv2_load(words[i], error, sizeof error);
    if (!model) {
      std::fprintf(stderr, "%s\n", error);
      return 2;
    }
    wrong += unlike(model);
    espnetv2_free(model);
  }
  std::printf("%d models, %d contexts, %d unlike the single thread's\n", count - 1,
              (count - 1) * kCallers * kCount, wrong);
  return wrong != 0;
}
