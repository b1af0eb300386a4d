// fuzz SEED COUNT SECONDS MODEL...: loads COUNT damaged or invented model files and runs those that
// load. Built with sanitizers, which stop it at the first fault; it stops itself where a file takes
// too long, where one is refused without a word, and where more threads give other bits.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "espnetv2.h"
#include "mutations.h"
#include "programs.h"

namespace {

struct Size {
  int batch, height, width;
};

constexpr Size kSizes[] = {{1, 1, 1}, {1, 7, 33}, {1, 64, 64}, {2, 64, 64}, {2, 19, 40}};
constexpr size_t kMostMemory = 64u << 20;  // of a context that is run
constexpr unsigned kMostSeconds = 60;      // for one file

struct Counts {
  int tried = 0, loaded = 0, opened = 0, too_large = 0;
};

size_t bytes_of(const espnetv2_context* context, int index) {
  size_t bytes = espnetv2_output_type(context, index) == ESPNETV2_UINT8 ? 1 : sizeof(float);
  for (int i = 0; i < espnetv2_output_rank(context, index); ++i) {
    bytes *= static_cast<size_t>(espnetv2_output_shape(context, index)[i]);
  }
  return bytes;
}

bool refused(const char* error) {
  if (*error) return true;
  std::fprintf(stderr, "a file or size was refused without a message\n");
  return false;
}

// What a context gives; `sound` turns false where there is neither a result nor a message.
std::string results(const espnetv2_model* model, const Size& size, int threads, Counts& counts,
                    bool& sound) {
  char error[256] = "";
  const size_t room =
      espnetv2_arena_size(model, size.batch, size.height, size.width, threads, error, sizeof error);
  if (room == 0) {
    sound = refused(error);
    return "";
  }
  if (room > kMostMemory) {
    ++counts.too_large;
    return "";
  }
  espnetv2_context* context = espnetv2_open(model, size.batch, size.height, size.width, threads,
                                            nullptr, 0, error, sizeof error);
  if (!context) {
    sound = refused(error);
    return "";
  }
  ++counts.opened;
  // exactly as many as the engine may read
  std::vector<float> image(static_cast<size_t>(espnetv2_channels(model)) * size.batch *
                           size.height * size.width);
  for (size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i * 37 % 101) / 50 - 1;
  std::string found;
  for (int run = 0; run < 2; ++run) {
    espnetv2_run(context, image.data());
    found.clear();
    for (int i = 0; i < espnetv2_outputs(context); ++i) {
      found.append(static_cast<const char*>(espnetv2_output_data(context, i)),
                   bytes_of(context, i));
    }
  }
  espnetv2_close(context);
  return found;
}

bool survives(const std::string& file, Counts& counts) {
  // on the heap and without room behind: reading on is a fault
  const std::vector<char> bytes(file.begin(), file.end());
  char error[256] = "";
  ++counts.tried;
  espnetv2_model* model = espnetv2_load_memory(bytes.data(), bytes.size(), error, sizeof error);
  if (!model) return refused(error);
  ++counts.loaded;
  bool sound = true;
  for (const Size& size : kSizes) {
    const std::string one = results(model, size, 1, counts, sound);
    const std::string three = results(model, size, 3, counts, sound);
    if (!one.empty() && !three.empty() && one != three) {
      std::fprintf(stderr, "three threads give other bits at %dx%dx%d\n", size.batch, size.height,
                   size.width);
      sound = false;
    }
  }
  espnetv2_free(model);
  return sound;
}

std::string read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// So that a fault can be looked at.
void keep(const std::string& file) {
  const char* path = std::getenv("FUZZ_KEEP");
  if (path) std::ofstream(path, std::ios::binary) << file;
}

}  // namespace

int main(int count, char** words) {
  if (count < 5) {
    std::fprintf(stderr, "use: fuzz SEED COUNT SECONDS MODEL...\n");
    return 2;
  }
  const auto seed = static_cast<unsigned>(std::atoi(words[1]));
  const int wanted = std::atoi(words[2]);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(words[3]));
  std::vector<std::string> files;
  for (int i = 4; i < count; ++i) files.push_back(read(words[i]));
  Counts mutants, inventions;
  for (int i = 0; i < wanted && std::chrono::steady_clock::now() < end; ++i) {
    Random random(seed * 1000003u + static_cast<unsigned>(i));  // each by itself, to be found again
    const bool invented = random.chance(3);
    std::string file = invented ? random_model(random) : mutate(random.pick(files), random);
    if (invented && random.chance(4)) file = mutate(file, random);
    keep(file);
    alarm(kMostSeconds);
    if (!survives(file, invented ? inventions : mutants)) {
      std::fprintf(stderr, "seed %u, file %d\n", seed, i);
      return 1;
    }
  }
  alarm(0);
  for (const auto& [what, c] : {std::pair{"mutants", mutants}, {"inventions", inventions}}) {
    std::printf("%s: %d tried, %d loaded, %d contexts run, %d too large to run\n", what, c.tried,
                c.loaded, c.opened, c.too_large);
  }
  return 0;
}
