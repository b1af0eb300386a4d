#include "picture.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "error.h"
#include "json.h"

namespace espnetv2 {

namespace {

constexpr int kLongest = 1 << 15;
constexpr int kBits = 22;  // of Pillow's weights behind the point
constexpr size_t kPlanes = 3;

// ---- as Pillow resizes: each new pixel is a weighted mean of all that it covers -----------------

// Which old pixels a range of new ones is made of, along one side.
struct Taps {
  std::vector<int> firsts, counts;
  std::vector<int32_t> weights;  // `most` of each pixel
  size_t most = 0;

  // New pixels `from` to `from + count` of `whole`, which replace `old` ones.
  Taps(int old, double whole, double from, int count) {
    const double scale = old / whole, reach = std::max(scale, 1.0), inverse = 1.0 / reach;
    most = static_cast<size_t>(std::ceil(reach)) * 2 + 1;
    weights.assign(most * static_cast<size_t>(count), 0);
    std::vector<double> shares(most);
    for (int i = 0; i < count; ++i) {
      const double center = (from + i + 0.5) * scale;
      const int first = std::max(static_cast<int>(center - reach + 0.5), 0);
      const int end = std::min(static_cast<int>(center + reach + 0.5), old);
      double total = 0;
      for (int k = 0; k < end - first; ++k) {
        const double distance = std::fabs((k + first - center + 0.5) * inverse);
        total += shares[static_cast<size_t>(k)] = std::max(1.0 - distance, 0.0);
      }
      int used = 0;
      for (int k = 0; k < end - first; ++k) {
        const double share = shares[static_cast<size_t>(k)] / total;
        const auto weight = static_cast<int32_t>(0.5 + share * (1 << kBits));
        weights[most * static_cast<size_t>(i) + static_cast<size_t>(k)] = weight;
        if (weight != 0) used = k + 1;
      }
      firsts.push_back(first);
      counts.push_back(used);
    }
  }

  const int32_t* of(size_t pixel) const { return weights.data() + most * pixel; }
};

uint8_t rounded(int32_t sum) {
  return static_cast<uint8_t>(std::min((sum + (1 << (kBits - 1))) >> kBits, 255));
}

void across_row(const uint8_t* row, const Taps& taps, uint8_t* to) {
  for (size_t x = 0; x < taps.firsts.size(); ++x, to += kPlanes) {
    const int32_t* weights = taps.of(x);
    const uint8_t* from = row + kPlanes * static_cast<size_t>(taps.firsts[x]);
    int32_t red = 0, green = 0, blue = 0;
    for (int k = 0; k < taps.counts[x]; ++k, from += kPlanes) {
      red += weights[k] * from[0];
      green += weights[k] * from[1];
      blue += weights[k] * from[2];
    }
    to[0] = rounded(red);
    to[1] = rounded(green);
    to[2] = rounded(blue);
  }
}

// A part of a picture that is resized to `whole_height` x `whole_width`.
struct Part {
  double whole_height, whole_width, top, left;
  int height, width;
};

// Weighted means of rows: `row_of(k)` is the k-th of `count`.
template <class Rows>
void blend(int count, const int32_t* weights, const Rows& row_of, std::vector<int32_t>& sums,
           uint8_t* to) {
  std::fill(sums.begin(), sums.end(), 0);
  for (int k = 0; k < count; ++k) {
    const uint8_t* from = row_of(k);
    const int32_t weight = weights[k];
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * from[i];
  }
  for (size_t i = 0; i < sums.size(); ++i) to[i] = rounded(sums[i]);
}

template <class Done>
void rows_first(const Picture& picture, const Taps& down, const Taps& across, const Done& done) {
  const size_t row = kPlanes * across.firsts.size();
  // as many rows as one new row needs, each in the place that its number says
  std::vector<uint8_t> kept(row * down.most), made(row);
  std::vector<int32_t> sums(row);
  const auto kept_row = [&](int y) {
    return kept.data() + row * (static_cast<size_t>(y) % down.most);
  };
  int next = 0;
  for (size_t y = 0; y < down.firsts.size(); ++y) {
    const int first = down.firsts[y], count = down.counts[y];
    for (next = std::max(next, first); next < first + count; ++next) {
      across_row(picture.row(next), across, kept_row(next));
    }
    blend(count, down.of(y), [&](int k) { return kept_row(first + k); }, sums, made.data());
    done(y, made.data());
  }
}

template <class Done>
void columns_first(const Picture& picture, const Taps& down, const Taps& across, const Done& done) {
  std::vector<int32_t> sums(kPlanes * static_cast<size_t>(picture.width));
  std::vector<uint8_t> tall(sums.size()), made(kPlanes * across.firsts.size());
  for (size_t y = 0; y < down.firsts.size(); ++y) {
    const int first = down.firsts[y];
    blend(
        down.counts[y], down.of(y), [&](int k) { return picture.row(first + k); }, sums,
        tall.data());
    across_row(tall.data(), across, made.data());
    done(y, made.data());
  }
}

template <class Done>
void resample(const Picture& picture, const Part& part, const Done& done) {
  const Taps down(picture.height, part.whole_height, part.top, part.height);
  const Taps across(picture.width, part.whole_width, part.left, part.width);
  // Pillow 13 begins with the columns where the height shrinks by more than twice what the width
  // does; bytes are rounded in between, so the order shows
  const double shorter = picture.height - part.whole_height;
  if (shorter > 0 && shorter > 2 * (picture.width - part.whole_width)) {
    columns_first(picture, down, across, done);
  } else {
    rows_first(picture, down, across, done);
  }
}

// Where the new picture lies in the resized old one, as torchvision's Resize and CenterCrop.
Part part_of(const Preprocessing& spec, const Picture& picture, int height, int width) {
  if (!spec.center) {
    return {static_cast<double>(height), static_cast<double>(width), 0, 0, height, width};
  }
  const double scale = std::max(std::trunc(height / spec.crop_share) / picture.height,
                                std::trunc(width / spec.crop_share) / picture.width);
  const double tall = std::max<double>(height, std::trunc(picture.height * scale + 1e-6));
  const double wide = std::max<double>(width, std::trunc(picture.width * scale + 1e-6));
  // nearbyint rounds halves to even, as Python does
  return {tall,   wide, std::nearbyint((tall - height) / 2), std::nearbyint((wide - width) / 2),
          height, width};
}

// ---- bilinear of two neighbours a side, in float32 as torch does it
// ------------------------------

// Rounded once, as by the processors that torch runs on.
float fused(float a, float b, float c) {
  return static_cast<float>(static_cast<double>(a) * b + c);
}

struct Neighbours {
  std::vector<int> firsts, seconds;
  std::vector<float> shares;  // of the second

  Neighbours(int old, int count) {
    const float scale = static_cast<float>(old) / static_cast<float>(count);
    for (int i = 0; i < count; ++i) {
      const float place = std::max(fused(scale, static_cast<float>(i) + 0.5f, -0.5f), 0.0f);
      const int first = std::min(static_cast<int>(place), old - 1);
      firsts.push_back(first);
      seconds.push_back(std::min(first + 1, old - 1));
      shares.push_back(std::clamp(place - static_cast<float>(first), 0.0f, 1.0f));
    }
  }
};

// One plane of the new picture; `before` is done to each old byte and `after` to each new value.
template <class Before, class After>
void interpolate(const Picture& picture, size_t channel, const Neighbours& down,
                 const Neighbours& across, float* plane, const Before& before, const After& after) {
  for (size_t y = 0; y < down.firsts.size(); ++y) {
    const uint8_t* upper = picture.row(down.firsts[y]) + channel;
    const uint8_t* lower = picture.row(down.seconds[y]) + channel;
    const float below = down.shares[y], above = 1 - below;
    for (size_t x = 0; x < across.firsts.size(); ++x) {
      const auto first = kPlanes * static_cast<size_t>(across.firsts[x]);
      const auto second = kPlanes * static_cast<size_t>(across.seconds[x]);
      const float right = across.shares[x], left = 1 - right;
      const float up =
          fused(above * left, before(upper[first]), above * right * before(upper[second]));
      const float most = fused(below * left, before(lower[first]), up);
      *plane++ = after(fused(below * right, before(lower[second]), most));
    }
  }
}

// ---- the header
// -----------------------------------------------------------------------------------

std::array<double, 3> three(const Json& value, const char* name) {
  const std::vector<Json>& list = value.at(name).list();
  require(list.size() == kPlanes, std::string("the preprocessing has not three of '") + name + "'");
  return {list[0].number(), list[1].number(), list[2].number()};
}

double positive(const Json& value, const char* name) {
  const double number = value.at(name).number();
  require(number > 0, std::string("the preprocessing has no sound '") + name + "'");
  return number;
}

}  // namespace

Preprocessing Preprocessing::of(const std::string& text) {
  const Json value = Json::parse(text);
  Preprocessing spec;
  if (value.has("size")) {
    const std::vector<Json>& size = value.at("size").list();
    require(size.size() == 2, "the preprocessing has no sound 'size'");
    spec.height = static_cast<int>(size[0].integer(1, kLongest));
    spec.width = static_cast<int>(size[1].integer(1, kLongest));
  }
  const std::string &fit = value.at("fit").text(), &resize = value.at("resize").text(),
                    &order = value.at("order").text();
  require(fit == "stretch" || fit == "center", "the preprocessing fits in an unknown way");
  require(resize == "pil" || resize == "plain" || resize == "plain-late",
          "the preprocessing resizes in an unknown way");
  require(order == "rgb" || order == "bgr", "the preprocessing has an unknown order of channels");
  spec.center = fit == "center";
  spec.bgr = order == "bgr";
  if (resize != "pil") spec.resize = resize == "plain" ? Resize::plain : Resize::plain_late;
  spec.mean = three(value, "mean");
  spec.std = three(value, "std");
  for (const double one : spec.std) require(one != 0, "the preprocessing divides by zero");
  spec.unit = positive(value, "unit");
  spec.divisor = positive(value, "divisor");
  spec.crop_share = positive(value, "crop_share");
  require(spec.crop_share >= 1e-3 && spec.crop_share <= 1,
          "the preprocessing has no sound 'crop_share'");
  return spec;
}

// What each byte becomes in each plane, before the divisor.
std::array<std::array<float, 256>, 3> Preprocessing::normalized() const {
  std::array<std::array<float, 256>, 3> table;
  for (size_t plane = 0; plane < kPlanes; ++plane) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const float value = static_cast<float>(byte) / static_cast<float>(unit);
      table[plane][byte] =
          (value - static_cast<float>(mean[plane])) / static_cast<float>(std[plane]);
    }
  }
  return table;
}

void Preprocessing::prepare(const Picture& picture, int to_height, int to_width,
                            float* image) const {
  auto table = normalized();
  const auto last = static_cast<float>(divisor);
  const size_t area = static_cast<size_t>(to_height) * static_cast<size_t>(to_width);
  const auto channel = [this](size_t plane) { return bgr ? kPlanes - 1 - plane : plane; };
  if (resize == Resize::plain_late) {
    const Neighbours down(picture.height, to_height), across(picture.width, to_width);
    for (size_t plane = 0; plane < kPlanes; ++plane) {
      interpolate(
          picture, channel(plane), down, across, image + area * plane,
          [&](uint8_t byte) { return table[plane][byte]; },
          [&](float value) { return value / last; });
    }
    return;
  }
  for (auto& plane : table) {
    for (float& value : plane) value /= last;
  }
  if (resize == Resize::plain) {
    const Neighbours down(picture.height, to_height), across(picture.width, to_width);
    for (size_t plane = 0; plane < kPlanes; ++plane) {
      interpolate(
          picture, channel(plane), down, across, image + area * plane,
          [](uint8_t byte) { return static_cast<float>(byte); },
          [&](float value) { return table[plane][static_cast<uint8_t>(std::nearbyint(value))]; });
    }
    return;
  }
  resample(picture, part_of(*this, picture, to_height, to_width),
           [&](size_t y, const uint8_t* row) {
             for (size_t plane = 0; plane < kPlanes; ++plane) {
               const size_t width_of_row = static_cast<size_t>(to_width);
               float* to = image + area * plane + width_of_row * y;
               const uint8_t* from = row + channel(plane);
               for (size_t x = 0; x < width_of_row; ++x) to[x] = table[plane][from[kPlanes * x]];
             }
           });
}

Palette Palette::of(const std::string& text) {
  const Json value = Json::parse(text);
  require(value.list().size() <= 256, "the palette has more than 256 colours");
  Palette palette;
  size_t index = 0;
  for (const Json& colour : value.list()) {
    require(colour.list().size() == kPlanes, "a colour of the palette has not three parts");
    for (size_t part = 0; part < kPlanes; ++part) {
      palette.colours[index][part] = static_cast<uint8_t>(colour.list()[part].integer(0, 255));
    }
    ++index;
  }
  return palette;
}

void Palette::paint(const uint8_t* classes, size_t count, uint8_t* rgb) const {
  for (size_t i = 0; i < count; ++i, rgb += kPlanes) {
    const auto& colour = colours[classes[i]];
    std::copy(colour.begin(), colour.end(), rgb);
  }
}

}  // namespace espnetv2
