#include "detections.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "error.h"

namespace espnetv2 {

namespace {

constexpr std::array<int, 4> kStrides = {8, 16, 32, 64};  // the last two divide evenly
constexpr float kCentreVariance = 0.1f, kSizeVariance = 0.2f;
constexpr Index kLargest = Index{1} << 31;
constexpr Index kBorder = 16;  // floats

Index aligned(Index count) { return (count + kBorder - 1) / kBorder * kBorder; }

// Sides of squares: of six maps and of what would follow.
std::array<int64_t, kLevels + 1> prior_sides(int side, double smallest) {
  // 0.1 is not exact in floating point
  const auto first = static_cast<int64_t>(std::ceil(std::nearbyint(side * smallest * 1e6) / 1e6));
  const auto last = static_cast<int64_t>(std::ceil(side * 21 / 20.0));
  std::array<int64_t, kLevels + 1> sides;
  for (size_t i = 0; i <= kLevels; ++i) {
    sides[i] = first + (last - first) * static_cast<int64_t>(i) / static_cast<int64_t>(kLevels);
  }
  return sides;
}

// Widths and heights in pixels of one cell's priors.
std::array<std::array<double, 2>, kPriorsOfCell> shapes(double side, double next) {
  const double middle = std::sqrt(side * next), two = std::sqrt(2.0), three = std::sqrt(3.0);
  return {{{side, side},
           {middle, middle},
           {side * two, side / two},
           {side / two, side * two},
           {side * three, side / three},
           {side / three, side * three}}};
}

float share(double value) { return static_cast<float>(std::clamp(value, 0.0, 1.0)); }

// Centres of cells along one side; a picture smaller than the stride has one, in its middle.
double centre(int cell, int cells, int side, size_t level) {
  const bool strided = level < kStrides.size();
  const double step = strided ? std::min(kStrides[level], side) / static_cast<double>(side)
                              : 1 / static_cast<double>(cells);
  return (cell + 0.5) * step;
}

// All values joined, in four chains, since each waits for the one before.
template <class Join>
float joined(const float* values, int count, float start, Join join) {
  std::array<float, 4> chains = {start, start, start, start};
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int k = 0; k < 4; ++k) chains[k] = join(chains[k], values[i + k]);
  }
  for (; i < count; ++i) chains[0] = join(chains[0], values[i]);
  return join(join(chains[0], chains[1]), join(chains[2], chains[3]));
}

}  // namespace

std::vector<Prior> priors(const std::array<Sides, kLevels>& maps, const Sides& picture,
                          double smallest) {
  const auto sides = prior_sides(std::min(picture.height, picture.width), smallest);
  std::vector<Prior> made;
  for (size_t level = 0; level < kLevels; ++level) {
    const auto shape =
        shapes(static_cast<double>(sides[level]), static_cast<double>(sides[level + 1]));
    for (int y = 0; y < maps[level].height; ++y) {
      for (int x = 0; x < maps[level].width; ++x) {
        const double down = centre(y, maps[level].height, picture.height, level);
        const double right = centre(x, maps[level].width, picture.width, level);
        for (const auto& [width, height] : shape) {
          made.push_back({share(right), share(down), share(width / picture.width),
                          share(height / picture.height)});
        }
      }
    }
  }
  return made;
}

DetectionPlan DetectionPlan::of(const Output& output, const std::vector<int>& heights,
                                const std::vector<int>& widths) {
  DetectionPlan plan;
  std::array<Sides, kLevels> maps;
  Index count = 0;
  for (size_t level = 0; level < kLevels; ++level) {
    const auto scores = static_cast<size_t>(output.tensors[level]);
    const auto offsets = static_cast<size_t>(output.tensors[level + kLevels]);
    maps[level] = {heights[scores], widths[scores]};
    require(heights[offsets] == heights[scores] && widths[offsets] == widths[scores],
            "scores and offsets of boxes are of unlike maps");
    plan.firsts[level] = static_cast<int>(count);
    count += static_cast<Index>(kPriorsOfCell) * maps[level].height * maps[level].width;
    require(count * output.values < kLargest, "the picture is too large");
  }
  plan.firsts[kLevels] = static_cast<int>(count);
  plan.settings = output.suppression;
  plan.priors = espnetv2::priors(maps, {heights[kImage], widths[kImage]}, plan.settings.smallest);
  plan.classes = output.values - 1;
  plan.candidates = static_cast<int>(std::min<Index>(plan.settings.per_class, count));
  const Index found = static_cast<Index>(plan.classes) * plan.candidates;
  require(found * 8 < kLargest, "there are too many classes of boxes");
  plan.boxes = static_cast<int>(std::min<Index>(plan.settings.most, found));
  const auto in_floats = [](Index bytes) {
    return aligned((bytes + static_cast<Index>(sizeof(float)) - 1) /
                   static_cast<Index>(sizeof(float)));
  };
  plan.image = aligned(count * plan.classes) + in_floats(count) + aligned(plan.classes) +
               aligned(found * static_cast<Index>(sizeof(Found) / sizeof(float)));
  return plan;
}

Index DetectionPlan::scratch() const {
  const Index found = static_cast<Index>(classes) * candidates;
  return aligned(2 * std::max<Index>(static_cast<Index>(priors.size()), found));
}

Detections::Detections(const DetectionPlan& plan, float* memory) : plan_(plan) {
  const auto count = static_cast<Index>(plan.priors.size());
  shares_ = memory;
  memory += aligned(count * plan.classes);
  alive_ = reinterpret_cast<uint8_t*>(memory);
  memory += aligned((count + 3) / 4);
  counts_ = reinterpret_cast<int32_t*>(memory);
  memory += aligned(plan.classes);
  found_ = reinterpret_cast<Found*>(memory);
}

void Detections::score(const Kernels& kernels, const Head& head, size_t level, int row, int end,
                       float* scratch) const {
  // a share above the threshold is no further below the largest than this, so that most priors,
  // which are sure to see background, need no exponentials
  const double threshold = plan_.settings.score_threshold;
  const float farthest = static_cast<float>(std::log(threshold) - 1e-3);
  const int classes = plan_.classes;
  const auto count = static_cast<Index>(plan_.priors.size());
  float* values = scratch;
  for (int y = row; y < end; ++y) {
    Index pixel = y * head.row;
    Index prior = plan_.firsts[level] + static_cast<Index>(kPriorsOfCell) * y * head.width;
    for (int x = 0; x < head.width; ++x, pixel += head.pixel) {
      const int32_t* channel = head.channels;
      for (int box = 0; box < kPriorsOfCell; ++box, ++prior, channel += classes + 1) {
        const float background = head.value(pixel + channel[0]);
        for (int c = 0; c < classes; ++c) values[c] = head.value(pixel + channel[c + 1]);
        const float best = joined(values, classes, values[0],
                                  [](float one, float other) { return std::max(one, other); });
        alive_[prior] = !(best - background < farthest);
        if (!alive_[prior]) continue;
        const float largest = std::max(best, background);
        kernels.exponentials(values, classes, largest);
        const float total =
            std::exp(background - largest) + joined(values, classes, 0.0f, std::plus<float>());
        for (int c = 0; c < classes; ++c) shares_[c * count + prior] = values[c] / total;
      }
    }
  }
}

// The best, sorted, and their end. First those go that are in a lower step of score than any of
// them: sorting is what takes time.
Detections::Candidate* Detections::best(Candidate* first, Candidate* end, Index wanted) {
  if (end - first > wanted) {
    const auto step = [](const Candidate& candidate) {  // 128 of them halve a score
      uint32_t bits;
      std::memcpy(&bits, &candidate.score, sizeof bits);
      return std::min<size_t>((0x3f800000u - std::min(bits, 0x3f800000u)) >> 16, 1023);
    };
    std::array<Index, 1024> counts{};
    for (const Candidate* one = first; one != end; ++one) ++counts[step(*one)];
    size_t last = 0;
    for (Index found = counts[0]; found < wanted; found += counts[last]) ++last;
    end = std::remove_if(first, end, [&](const Candidate& one) { return step(one) > last; });
  }
  Candidate* kept = first + std::min(end - first, wanted);
  std::partial_sort(first, kept, end);
  return kept;
}

void Detections::suppress(const std::array<Head, kLevels>& offsets, int label,
                          float* scratch) const {
  auto* candidates = reinterpret_cast<Candidate*>(scratch);
  const auto threshold = static_cast<float>(plan_.settings.score_threshold);
  Candidate* end = candidates;
  const auto count = static_cast<int32_t>(plan_.priors.size());
  const float* shares = shares_ + static_cast<Index>(label) * count;
  for (int32_t prior = 0; prior < count; ++prior) {
    if (alive_[prior] && shares[prior] > threshold) *end++ = {shares[prior], prior};
  }
  const Candidate* last = best(candidates, end, plan_.candidates);
  Found* first = found_ + static_cast<Index>(label) * plan_.candidates;
  Found* kept = first;
  for (const Candidate* one = candidates; one != last; ++one) {
    const auto corners = decode(offsets, one->place);
    const bool apart = std::none_of(
        first, kept, [&](const Found& found) { return overlap(found.corners, corners); });
    if (apart) *kept++ = {one->score, corners};
  }
  counts_[label] = static_cast<int32_t>(kept - first);
}

std::array<float, 4> Detections::decode(const std::array<Head, kLevels>& offsets,
                                        int number) const {
  size_t level = 0;
  while (number >= plan_.firsts[level + 1]) ++level;
  const Head& head = offsets[level];
  const int place = number - plan_.firsts[level], cell = place / kPriorsOfCell;
  const Index pixel = cell / head.width * head.row + cell % head.width * head.pixel;
  const int32_t* channel = head.channels + 4 * (place % kPriorsOfCell);
  const Prior& prior = plan_.priors[static_cast<size_t>(number)];
  const float x = head.value(pixel + channel[0]) * kCentreVariance * prior.width + prior.x;
  const float y = head.value(pixel + channel[1]) * kCentreVariance * prior.height + prior.y;
  const float width = std::exp(head.value(pixel + channel[2]) * kSizeVariance) * prior.width / 2;
  const float height = std::exp(head.value(pixel + channel[3]) * kSizeVariance) * prior.height / 2;
  return {x - width, y - height, x + width, y + height};
}

bool Detections::overlap(const std::array<float, 4>& one, const std::array<float, 4>& other) const {
  const float width = std::min(one[2], other[2]) - std::max(one[0], other[0]);
  const float height = std::min(one[3], other[3]) - std::max(one[1], other[1]);
  const float common = std::max(width, 0.0f) * std::max(height, 0.0f);
  const auto area = [](const std::array<float, 4>& box) {
    return (box[2] - box[0]) * (box[3] - box[1]);
  };
  return common / (area(one) + area(other) - common) > static_cast<float>(plan_.settings.overlap);
}

void Detections::give(float* boxes, float* scores, int64_t* labels, float* scratch) const {
  auto* candidates = reinterpret_cast<Candidate*>(scratch);
  Candidate* end = candidates;
  for (int label = 0; label < plan_.classes; ++label) {
    const int first = label * plan_.candidates;
    for (int i = first; i < first + counts_[label]; ++i) *end++ = {found_[i].score, i};
  }
  const Candidate* last = best(candidates, end, plan_.boxes);
  for (int i = 0; i < plan_.boxes; ++i, boxes += 4) {
    const bool real = candidates + i < last;
    scores[i] = real ? candidates[i].score : 0.0f;
    labels[i] = real ? candidates[i].place / plan_.candidates : 0;
    for (size_t k = 0; k < 4; ++k) {
      boxes[k] = real ? std::clamp(found_[candidates[i].place].corners[k], 0.0f, 1.0f) : 0.0f;
    }
  }
}

}  // namespace espnetv2
