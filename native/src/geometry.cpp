#include "geometry.h"

#include <algorithm>
#include <array>
#include <map>

#include "kernels/arguments.h"
#include "shapes.h"

namespace espnetv2 {

std::vector<int32_t> adaptive_windows(int from, int to) {
  std::vector<int32_t> found;
  for (int64_t i = 0; i < to; ++i) {
    found.push_back(static_cast<int32_t>(i * from / to));
    found.push_back(static_cast<int32_t>(((i + 1) * from + to - 1) / to));
  }
  return found;
}

std::vector<int32_t> strided_windows(int from, int to) {
  std::vector<int32_t> found;
  for (int i = 0; i < to; ++i) {
    found.push_back(std::max(2 * i - 1, 0));
    found.push_back(std::min(2 * i + 2, from));
  }
  return found;
}

void neighbours(int from, int to, std::vector<int32_t>& pairs, std::vector<float>& weights) {
  // in float32, as torch does it: the same pixel must win on both sides
  const float scale = to > 1 ? static_cast<float>(from - 1) / static_cast<float>(to - 1) : 0.0f;
  for (int i = 0; i < to; ++i) {
    const float place = scale * static_cast<float>(i);
    const int before = std::min(static_cast<int>(place), from - 1);
    pairs.push_back(before);
    pairs.push_back(std::min(before + 1, from - 1));
    weights.push_back(std::clamp(place - static_cast<float>(before), 0.0f, 1.0f));
  }
}

namespace {

size_t at(int place) { return static_cast<size_t>(place); }

// The first run of pixels whose windows and weights are as those of an even number are.
void find_even(Rescaling& found) {
  const int most = found.most, side = static_cast<int>(found.windows.size()) / 2;
  if (most != 3 && most != 4) return;
  const auto fits = [&](int first, int i) {
    const auto place = static_cast<size_t>(first + i);
    if (found.windows[2 * place] != found.windows[2 * at(first)] + even_window(most, i))
      return false;
    for (int pixel = 0; pixel < most; ++pixel) {
      for (int tap = 0; tap < 3; ++tap) {
        const bool none = found.weights[(place * at(most) + at(pixel)) * 3 + at(tap)] == 0.0f;
        if (!none && !even_weight(most, i, pixel, tap)) return false;
      }
    }
    return true;
  };
  constexpr int kFewest = 8;
  for (int first = 0; first + kFewest <= side; ++first) {
    int count = 0;
    while (first + count < side && fits(first, count)) ++count;
    if (count < kFewest) continue;
    found.even = first;
    found.even_end = first + count / 2 * 2;
    return;
  }
}

}  // namespace

Rescaling rescaling(int side, int large) {
  std::vector<int32_t> pairs;
  std::vector<float> seconds;
  neighbours(side, large, pairs, seconds);
  const std::vector<int32_t> bins = adaptive_windows(large, side);
  std::vector<std::map<int, std::array<double, 3>>> pixels(static_cast<size_t>(side));
  Rescaling found;
  for (size_t i = 0; i < pixels.size(); ++i) {
    const int32_t first = bins[2 * i], end = bins[2 * i + 1];
    for (int32_t pixel = first; pixel < end; ++pixel) {
      for (int32_t tap = 0; tap < 3; ++tap) {
        const int32_t seen = pixel + tap - 1;
        if (seen < 0 || seen >= large) continue;
        const auto place = static_cast<size_t>(seen), own = static_cast<size_t>(tap);
        const double second = seconds[place], share = 1.0 / (end - first);
        pixels[i][pairs[2 * place]][own] += (1 - second) * share;
        pixels[i][pairs[2 * place + 1]][own] += second * share;
      }
    }
    found.windows.push_back(pixels[i].begin()->first);
    found.windows.push_back(pixels[i].rbegin()->first + 1);
    found.most = std::max(found.most, found.windows[2 * i + 1] - found.windows[2 * i]);
  }
  for (size_t i = 0; i < pixels.size(); ++i) {
    // all windows are of one length, and none ends behind the last pixel
    const int32_t first = std::min(found.windows[2 * i], side - found.most);
    found.windows[2 * i] = first;
    found.windows[2 * i + 1] = first + found.most;
    for (int32_t pixel = first; pixel < first + found.most; ++pixel) {
      const auto weights = pixels[i][pixel];
      for (const double weight : weights) found.weights.push_back(static_cast<float>(weight));
    }
  }
  find_even(found);
  return found;
}

void find_windows(Operation& operation, const Storage& in, const Storage& out) {
  switch (operation.step->kind) {
    case Step::Kind::rescale: {
      const Size& size = operation.step->size;
      Rescaling rows = rescaling(in.height, scaled(in.height, size));
      Rescaling columns = rescaling(in.width, scaled(in.width, size));
      operation.rows_at = std::move(rows.windows);
      operation.row_weights = std::move(rows.weights);
      operation.columns_at = std::move(columns.windows);
      operation.column_weights = std::move(columns.weights);
      operation.even = columns.even;
      operation.even_end = columns.even_end;
      break;
    }
    case Step::Kind::resize:
      neighbours(in.height, out.height, operation.rows_at, operation.row_weights);
      neighbours(in.width, out.width, operation.columns_at, operation.column_weights);
      for (int32_t& column : operation.columns_at) column *= in.lanes;
      break;
    case Step::Kind::mean:
    case Step::Kind::row_mean:
    case Step::Kind::adapt:
      operation.rows_at = adaptive_windows(in.height, out.height);
      operation.columns_at = adaptive_windows(in.width, out.width);
      break;
    case Step::Kind::maximum:
      operation.rows_at = strided_windows(in.height, out.height);
      operation.columns_at = strided_windows(in.width, out.width);
      break;
    default:
      break;
  }
}

void find_enlargement(Operation& operation, const Storage& in, int height, int width) {
  neighbours(in.height, height, operation.rows_at, operation.row_weights);
  std::vector<int32_t> pairs;
  neighbours(in.width, width, pairs, operation.column_weights);
  const int lanes = in.lanes, columns = (width + lanes - 1) / lanes * lanes;
  operation.column_weights.resize(static_cast<size_t>(columns), 0.0f);
  for (int x = 0; x < columns; ++x) {
    const auto first = static_cast<size_t>(x / lanes * lanes);
    const auto own = static_cast<size_t>(std::min(x, width - 1));
    if (x % lanes == 0) operation.columns_at.push_back(pairs[2 * first]);
    operation.offsets.push_back(pairs[2 * own] - pairs[2 * first]);
  }
}

}  // namespace espnetv2
