// espnetv2-run: what a network sees in a picture, and how long it takes.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "espnetv2.h"
#include "ppm.h"

namespace {

constexpr const char* kUse =
    "use: espnetv2-run MODEL [PICTURE.ppm] [--size HxW] [--threads N] [--out OUT.ppm]\n"
    "                  [--benchmark RUNS] [--profile]\n";
constexpr float kLeastScore = 0.3f;
constexpr float kLeastShare = 0.005f;

struct Options {
  std::string model, picture, out;
  int height = 0, width = 0, threads = 1, runs = 0;
  bool profile = false;
};

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

int whole(const std::string& text, const std::string& option) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end || value < 1 || value > 1000000) {
    fail(option + " takes a whole number from 1, not '" + text + "'");
  }
  return static_cast<int>(value);
}

Options options_of(int count, char** words) {
  Options options;
  std::vector<std::string> places;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--profile") {
      options.profile = true;
    } else if (word.compare(0, 2, "--") != 0) {
      places.push_back(word);
    } else {
      if (i + 1 == count) fail(word + " is unknown, or lacks its value\n" + kUse);
      const std::string value = words[++i];
      const size_t cross = value.find('x');
      if (word == "--threads") {
        options.threads = whole(value, word);
      } else if (word == "--benchmark") {
        options.runs = whole(value, word);
      } else if (word == "--out") {
        options.out = value;
      } else if (word == "--size" && cross != std::string::npos) {
        options.height = whole(value.substr(0, cross), word);
        options.width = whole(value.substr(cross + 1), word);
      } else if (word == "--size") {
        fail("--size takes HxW, such as 224x224, not '" + value + "'");
      } else {
        fail(word + " is unknown\n" + kUse);
      }
    }
  }
  if (places.empty() || places.size() > 2) fail(std::string("give one model\n") + kUse);
  options.model = places[0];
  if (places.size() == 2) options.picture = places[1];
  if (options.picture.empty() && !options.runs && !options.profile) {
    fail("give a picture, --benchmark or --profile");
  }
  if (!options.out.empty() && options.picture.empty()) fail("--out needs a picture");
  return options;
}

// ---- the network
// -----------------------------------------------------------------------------------

struct Model {
  explicit Model(const std::string& path) {
    char error[512] = "";
    model.reset(espnetv2_load(path.c_str(), error, sizeof error));
    if (!model) fail(error);
    const char* names = espnetv2_metadata(model.get(), "classes");
    for (const char* start = names; start && *start;) {
      const char* end = std::strchr(start, '\n');
      classes.emplace_back(start, end ? static_cast<size_t>(end - start) : std::strlen(start));
      start = end ? end + 1 : nullptr;
    }
  }

  std::string name(size_t index) const {
    return index < classes.size() ? classes[index] : "class " + std::to_string(index);
  }

  std::unique_ptr<espnetv2_model, void (*)(espnetv2_model*)> model{nullptr, espnetv2_free};
  std::vector<std::string> classes;
};

using Context = std::unique_ptr<espnetv2_context, void (*)(espnetv2_context*)>;

Context open(const Model& model, const Options& options) {
  char error[512] = "";
  Context context(espnetv2_open(model.model.get(), 1, options.height, options.width,
                                options.threads, nullptr, 0, error, sizeof error),
                  espnetv2_close);
  if (!context) fail(error);
  return context;
}

// ---- answers
// ---------------------------------------------------------------------------------------

struct Output {
  Output(const espnetv2_context* context, int index)
      : name(espnetv2_output_name(context, index)),
        bytes(espnetv2_output_type(context, index) == ESPNETV2_UINT8),
        data(espnetv2_output_data(context, index)) {
    const int64_t* sides = espnetv2_output_shape(context, index);
    shape.assign(sides, sides + espnetv2_output_rank(context, index));
  }

  const float* floats() const { return static_cast<const float*>(data); }
  size_t side(size_t index) const { return static_cast<size_t>(shape.at(index)); }

  std::string name;
  bool bytes;
  const void* data;
  std::vector<int64_t> shape;
};

void tell_best(const Model& model, const Output& output) {
  std::vector<float> shares(output.floats(), output.floats() + output.side(1));
  const bool logits = output.name != "probabilities";
  const bool each = espnetv2_metadata(model.model.get(), "multi_label") != nullptr;
  if (logits && each) {
    for (float& share : shares) share = 1 / (1 + std::exp(-share));
  } else if (logits) {
    const float largest = *std::max_element(shares.begin(), shares.end());
    for (float& share : shares) share = std::exp(share - largest);
    const float total = std::accumulate(shares.begin(), shares.end(), 0.0f);
    for (float& share : shares) share /= total;
  }
  std::vector<size_t> order(shares.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t one, size_t other) { return shares[one] > shares[other]; });
  order.resize(std::min<size_t>(order.size(), 5));
  for (const size_t index : order) {
    std::printf("%6.2f %%  %s\n", 100 * shares[index], model.name(index).c_str());
  }
}

// The class of each pixel, where an output says it.
std::vector<uint8_t> classes_of(const Output& output, int& height, int& width) {
  const size_t last = output.shape.size() - 1, area = output.side(last) * output.side(last - 1);
  height = static_cast<int>(output.shape[last - 1]);
  width = static_cast<int>(output.shape[last]);
  const auto* bytes = static_cast<const uint8_t*>(output.data);
  if (output.bytes) return {bytes, bytes + area};
  std::vector<uint8_t> classes(area);
  for (size_t pixel = 0; pixel < area; ++pixel) {
    const float* logits = output.floats() + pixel;
    for (size_t c = 1; c < output.side(1); ++c) {
      if (logits[c * area] > logits[classes[pixel] * area]) {
        classes[pixel] = static_cast<uint8_t>(c);
      }
    }
  }
  return classes;
}

void tell_classes(const Model& model, const Output& output, const std::string& out) {
  int height = 0, width = 0;
  const auto classes = classes_of(output, height, width);
  std::vector<size_t> counts(256), order(256);
  for (const uint8_t index : classes) ++counts[index];
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t one, size_t other) { return counts[one] > counts[other]; });
  for (const size_t index : order) {
    const float share = static_cast<float>(counts[index]) / static_cast<float>(classes.size());
    if (share < kLeastShare) break;
    std::printf("%6.2f %%  %s\n", 100 * share, model.name(index).c_str());
  }
  if (out.empty()) return;
  Ppm painted(width, height);
  char error[512] = "";
  if (!espnetv2_paint(model.model.get(), classes.data(), classes.size(), painted.rgb.data(), error,
                      sizeof error)) {
    fail(error);
  }
  write_ppm(painted, out);
}

void frame(Ppm& picture, int left, int top, int right, int bottom) {
  const auto dot = [&](int x, int y) {
    if (x < 0 || y < 0 || x >= picture.width || y >= picture.height) return;
    uint8_t* at = &picture.rgb[3 * (static_cast<size_t>(y) * picture.width + x)];
    at[0] = 255;
    at[1] = at[2] = 32;
  };
  for (int thick = 0; thick < 2; ++thick) {
    for (int x = left; x <= right; ++x) dot(x, top + thick), dot(x, bottom - thick);
    for (int y = top; y <= bottom; ++y) dot(left + thick, y), dot(right - thick, y);
  }
}

void tell_boxes(const Model& model, const espnetv2_context* context, Ppm picture,
                const std::string& out) {
  const Output boxes(context, 0), scores(context, 1), labels(context, 2);
  for (size_t i = 0; i < scores.side(1) && scores.floats()[i] >= kLeastScore; ++i) {
    const float* box = boxes.floats() + 4 * i;
    int corners[4];
    for (int k = 0; k < 4; ++k) {
      const int side = k % 2 ? picture.height : picture.width;
      corners[k] = static_cast<int>(std::lround(box[k] * static_cast<float>(side)));
    }
    const auto label = static_cast<size_t>(static_cast<const int64_t*>(labels.data)[i]);
    std::printf("%6.2f %%  %s  %d %d %d %d\n", 100 * scores.floats()[i], model.name(label).c_str(),
                corners[0], corners[1], corners[2], corners[3]);
    frame(picture, corners[0], corners[1], corners[2], corners[3]);
  }
  if (!out.empty()) write_ppm(picture, out);
}

void tell(const Model& model, const espnetv2_context* context, const Ppm& picture,
          const std::string& out) {
  const Output first(context, 0);
  const size_t rank = first.shape.size();
  if (first.name == "boxes" && espnetv2_outputs(context) == 3) {
    tell_boxes(model, context, picture, out);
  } else if (rank == 4 || first.bytes) {
    tell_classes(model, first, out);
  } else if (rank == 2) {
    if (!out.empty()) fail("--out is for class maps and boxes; leave it out");
    tell_best(model, first);
  } else {
    fail("the model gives raw scores and offsets; export it with --output decoded");
  }
}

// ---- measuring
// -------------------------------------------------------------------------------------

void benchmark(espnetv2_context* context, const float* image, int runs) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const auto start = Clock::now();
    espnetv2_run(context, image);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  std::printf("%s: %.3f ms at least, %.3f ms median of %d; peak %.1f GMAC/s a thread\n",
              espnetv2_instruction_set(), times.front(), times[times.size() / 2], runs,
              espnetv2_peak(0.1) / 1e9);
}

void profile(espnetv2_context* context, const float* image) {
  const auto groups = static_cast<size_t>(espnetv2_profile(context, image, nullptr, nullptr));
  std::vector<const char*> names(groups);
  std::vector<double> spent(groups), best(groups, 1e9);
  for (int i = 0; i < 50; ++i) {
    espnetv2_profile(context, image, names.data(), spent.data());
    for (size_t g = 0; g < groups; ++g) best[g] = std::min(best[g], spent[g]);
  }
  for (size_t g = 0; g < groups; ++g) std::printf("%8.1f us  %s\n", 1000 * best[g], names[g]);
}

void run(Options options) {
  const Model model(options.model);
  const Ppm picture = options.picture.empty() ? Ppm(1, 1) : read_ppm(options.picture);
  if (!options.height) espnetv2_size(model.model.get(), &options.height, &options.width);
  if (!options.height && options.picture.empty()) fail("the model takes any size; give --size HxW");
  if (!options.height) options.height = picture.height, options.width = picture.width;
  const Context context = open(model, options);
  const size_t area = static_cast<size_t>(options.height) * static_cast<size_t>(options.width);
  std::vector<float> image(area * static_cast<size_t>(espnetv2_channels(model.model.get())), 0.5f);
  if (!options.picture.empty()) {
    char error[512] = "";
    const size_t stride = 3 * static_cast<size_t>(picture.width);
    if (!espnetv2_prepare(model.model.get(), picture.rgb.data(), picture.width, picture.height,
                          stride, options.height, options.width, image.data(), error,
                          sizeof error)) {
      fail(error);
    }
    espnetv2_run(context.get(), image.data());
    tell(model, context.get(), picture, options.out);
  }
  if (options.runs) benchmark(context.get(), image.data(), options.runs);
  if (options.profile) profile(context.get(), image.data());
}

}  // namespace

int main(int count, char** words) {
  try {
    run(options_of(count, words));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return 0;
}
