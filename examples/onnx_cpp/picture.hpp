// Pictures: reading PPM, and resizing them as the networks saw them in training.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "json.hpp"

// Rows of RGB pixels, 0 to 255; floats, since not every resizing rounds.
struct Picture {
  int height = 0, width = 0;
  std::vector<float> values;  // [height][width][3]

  float& at(int y, int x, int c) { return values[(static_cast<std::size_t>(y) * width + x) * 3 + c]; }
  float at(int y, int x, int c) const {
    return values[(static_cast<std::size_t>(y) * width + x) * 3 + c];
  }
};

inline Picture empty_picture(int height, int width) {
  return {height, width, std::vector<float>(static_cast<std::size_t>(height) * width * 3)};
}

// One number of a PPM header; a comment runs from '#' to the end of its line.
inline int read_ppm_number(std::istream& file) {
  while (file >> std::ws && file.peek() == '#') {
    std::string comment;
    std::getline(file, comment);
  }
  int number = 0;
  file >> number;
  return number;
}

inline Picture read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  file >> magic;
  if (magic != "P6") throw std::runtime_error(path + " is not a binary PPM picture (P6)");
  int width = read_ppm_number(file), height = read_ppm_number(file), top = read_ppm_number(file);
  file.get();
  if (!file || width <= 0 || height <= 0 || top != 255) {
    throw std::runtime_error(path + " has no sound PPM header with 8 bits a channel");
  }
  Picture picture = empty_picture(height, width);
  std::vector<unsigned char> bytes(picture.values.size());
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error(path + " ends too early");
  std::copy(bytes.begin(), bytes.end(), picture.values.begin());
  return picture;
}

// What one pixel of the result is made of, along one axis.
struct Taps {
  int first = 0;
  std::vector<double> shares;
};

// A triangle that is as wide as the shrinking asks for: anti-aliased, as Pillow does it.
inline std::vector<Taps> smooth_taps(int length, int count) {
  double step = static_cast<double>(length) / count, reach = std::max(1.0, step);
  std::vector<Taps> all(count);
  for (int i = 0; i < count; ++i) {
    double centre = (i + 0.5) * step, sum = 0;
    int first = std::max(0, static_cast<int>(centre - reach + 0.5));
    int stop = std::min(length, static_cast<int>(centre + reach + 0.5));
    all[i].first = first;
    for (int x = first; x < stop; ++x) {
      double share = std::max(0.0, 1 - std::abs((x - centre + 0.5) / reach));
      all[i].shares.push_back(share);
      sum += share;
    }
    // Pillow's shares have 22 binary digits, which decides where halves fall
    for (double& share : all[i].shares) share = std::floor(share / sum * 4194304 + 0.5) / 4194304;
  }
  return all;
}

// The two nearest pixels, however much the picture shrinks.
inline std::vector<Taps> plain_taps(int length, int count) {
  std::vector<Taps> all(count);
  for (int i = 0; i < count; ++i) {
    double place = std::max(0.0, (i + 0.5) * length / count - 0.5);
    int low = std::min(static_cast<int>(place), length - 1);
    double share = low + 1 < length ? place - low : 0;
    all[i].first = low;
    all[i].shares = {1 - share};
    if (low + 1 < length) all[i].shares.push_back(share);
  }
  return all;
}

inline float rounded(double value) {  // halves to even, as numpy and torch do
  return static_cast<float>(std::clamp(std::nearbyint(value), 0.0, 255.0));
}

inline float rounded_up(double value) {  // halves upwards, as Pillow does
  return static_cast<float>(std::clamp(std::floor(value + 0.5), 0.0, 255.0));
}

inline Picture resized(const Picture& from, int height, int width, bool smooth) {
  auto taps = smooth ? smooth_taps : plain_taps;
  auto keep = [smooth](double value) { return smooth ? rounded_up(value) : static_cast<float>(value); };
  auto across = taps(from.width, width), down = taps(from.height, height);
  Picture wide = empty_picture(from.height, width), to = empty_picture(height, width);
  for (int y = 0; y < from.height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (std::size_t t = 0; t < across[x].shares.size(); ++t)
          sum += across[x].shares[t] * from.at(y, across[x].first + static_cast<int>(t), c);
        wide.at(y, x, c) = keep(sum);
      }
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (std::size_t t = 0; t < down[y].shares.size(); ++t)
          sum += down[y].shares[t] * wide.at(down[y].first + static_cast<int>(t), x, c);
        to.at(y, x, c) = keep(sum);
      }
  return to;
}

inline Picture cropped(const Picture& from, int top, int left, int height, int width) {
  Picture to = empty_picture(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) to.at(y, x, c) = from.at(top + y, left + x, c);
  return to;
}

// The whole picture at the network's size, or its middle if the network was trained on that.
inline Picture fitted(const Picture& picture, int height, int width, const Json& spec) {
  bool smooth = spec["resize"].text == "pil";
  if (!smooth || spec["fit"].text == "stretch") return resized(picture, height, width, smooth);
  double share = spec["crop_share"].number;
  double scale = std::max(std::floor(height / share) / picture.height,
                          std::floor(width / share) / picture.width);
  int high = std::max(height, static_cast<int>(picture.height * scale + 1e-6));
  int wide = std::max(width, static_cast<int>(picture.width * scale + 1e-6));
  int top = static_cast<int>(std::nearbyint((high - height) / 2.0));
  int left = static_cast<int>(std::nearbyint((wide - width) / 2.0));
  return cropped(resized(picture, high, wide, true), top, left, height, width);
}
