// From a camera's picture to a network's input: the same numbers as
// src/espnetv2/data/preprocess.py.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace espnetv2 {

// Rows of red, green and blue bytes.
struct Picture {
  const uint8_t* rgb = nullptr;
  int width = 0, height = 0;
  size_t stride = 0;  // bytes from one row to the next

  const uint8_t* row(int y) const { return rgb + stride * static_cast<size_t>(y); }
};

// How a picture becomes an input: (pixel / unit - mean) / std / divisor.
struct Preprocessing {
  enum class Resize {
    pil,         // anti-aliased on bytes, bit by bit as Pillow does it
    plain,       // bilinear on bytes, which are rounded
    plain_late,  // bilinear on normalised floats
  };
  int height = 0, width = 0;  // of the input; 0 where any will do
  bool center = false;        // the short side is resized and the middle cut out; else stretched
  Resize resize = Resize::pil;
  bool bgr = false;
  std::array<double, 3> mean{}, std{};  // of each plane of the input
  double unit = 255, divisor = 1, crop_share = 0.875;

  // Raises Error where the text is not what `Preprocessing.to_json` writes.
  static Preprocessing of(const std::string& text);

  // Fills `image`, (3, height, width).
  void prepare(const Picture& picture, int height, int width, float* image) const;

 private:
  std::array<std::array<float, 256>, 3> normalized() const;
};

// Colours of classes, and black for all that have none.
struct Palette {
  std::array<std::array<uint8_t, 3>, 256> colours{};

  // Raises Error where the text is no list of colours.
  static Palette of(const std::string& text);
  void paint(const uint8_t* classes, size_t count, uint8_t* rgb) const;
};

}  // namespace espnetv2
