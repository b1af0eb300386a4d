// espnetv2-run: loads a model, runs it on zeros and tells how long it takes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "espnetv2.h"

int main(int count, char** words) {
  if (count < 4) {
    std::fprintf(stderr, "use: %s MODEL HEIGHT WIDTH [THREADS [RUNS]]\n", words[0]);
    return 2;
  }
  const int height = std::atoi(words[2]), width = std::atoi(words[3]);
  const int threads = count > 4 ? std::atoi(words[4]) : 1,
            runs = count > 5 ? std::atoi(words[5]) : 100;
  char error[512];
  espnetv2_model* model = espnetv2_load(words[1], error, sizeof error);
  espnetv2_context* context =
      model ? espnetv2_open(model, 1, height, width, threads, nullptr, 0, error, sizeof error)
            : nullptr;
  if (!context) {
    std::fprintf(stderr, "%s\n", error);
    espnetv2_free(model);
    return 2;
  }
  std::vector<float> image(static_cast<size_t>(espnetv2_channels(model)) * height * width, 0.5f);
  std::vector<double> times;
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < runs; ++i) {
    const auto start = Clock::now();
    espnetv2_run(context, image.data());
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  std::printf("%s: %.3f ms at least, %.3f ms median of %d; peak %.1f GMAC/s a thread\n",
              espnetv2_instruction_set(), times.front(), times[times.size() / 2], runs,
              espnetv2_peak(0.1) / 1e9);
  const int groups = espnetv2_profile(context, image.data(), nullptr, nullptr);
  std::vector<const char*> names(static_cast<size_t>(groups));
  std::vector<double> spent(names.size()), best(names.size(), 1e9);
  for (int i = 0; i < 50; ++i) {
    espnetv2_profile(context, image.data(), names.data(), spent.data());
    for (size_t g = 0; g < best.size(); ++g) best[g] = std::min(best[g], spent[g]);
  }
  for (size_t g = 0; g < best.size(); ++g) std::printf("%8.1f us  %s\n", 1000 * best[g], names[g]);
  espnetv2_close(context);
  espnetv2_free(model);
  return 0;
}
