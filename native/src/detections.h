// From a detector's raw outputs to boxes: softmax, decoding and non-maximum suppression, the same
// numbers as `Boxes` of src/espnetv2/deploy/outputs.py.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/arguments.h"
#include "program.h"

namespace espnetv2 {

constexpr size_t kLevels = 6;     // maps that a detector predicts from
constexpr int kPriorsOfCell = 6;  // boxes that start at one pixel of a map

// A box, in shares of the picture.
struct Prior {
  float x, y, width, height;  // of the centre
};

// Height and width of a map, or of a picture.
struct Sides {
  int height, width;
};

// As src/espnetv2/tasks/priors.py makes them.
std::vector<Prior> priors(const std::array<Sides, kLevels>& maps, const Sides& picture,
                          double smallest);

// An output of boxes at one size: where it starts from, and where it works in the arena.
struct DetectionPlan {
  std::vector<Prior> priors;
  std::array<int, kLevels + 1> firsts{};  // prior of each map, and the end
  Suppression settings;
  int classes = 0;     // without background
  int candidates = 0;  // of a class, that take part
  int boxes = 0;       // that are given
  Index start = 0;     // in the arena
  Index image = 0;     // floats that one image of a batch works in

  // Raises Error where scores and offsets are of unlike maps.
  static DetectionPlan of(const Output& output, const std::vector<int>& heights,
                          const std::vector<int>& widths);

  // Floats that a thread works in.
  Index scratch() const;
};

// A map of scores or offsets in memory.
struct Head {
  const void* at = nullptr;       // the first pixel
  NumberOfHalf number = nullptr;  // of a value that is a half; null for floats
  Index row = 0, pixel = 0;       // distances
  int width = 0;
  const int32_t* channels = nullptr;  // distance of each from the pixel

  float value(Index place) const {
    return number ? number(static_cast<const uint16_t*>(at)[place])
                  : static_cast<const float*>(at)[place];
  }
};

// A box that no better one of its class overlaps.
struct Found {
  float score;
  std::array<float, 4> corners;
};

// What is known of one image: three steps, each shared by the threads in its own way.
class Detections {
 public:
  Detections(const DetectionPlan& plan, float* memory);

  // First: the shares of the classes, in rows of one map.
  void score(const Kernels& kernels, const Head& head, size_t level, int row, int end,
             float* scratch) const;

  // Then: the boxes of a class that no better one overlaps.
  void suppress(const std::array<Head, kLevels>& offsets, int label, float* scratch) const;

  // Last: the best of all classes.
  void give(float* boxes, float* scores, int64_t* labels, float* scratch) const;

 private:
  struct Candidate {
    float score;
    int32_t place;

    bool operator<(const Candidate& other) const {  // the better one comes first
      return score != other.score ? score > other.score : place < other.place;
    }
  };

  static Candidate* best(Candidate* first, Candidate* end, Index wanted);
  std::array<float, 4> decode(const std::array<Head, kLevels>& offsets, int prior) const;
  bool overlap(const std::array<float, 4>& one, const std::array<float, 4>& other) const;

  const DetectionPlan& plan_;
  float* shares_;    // of each class, its priors
  uint8_t* alive_;   // whether a prior has a class above the threshold
  int32_t* counts_;  // of each class
  Found* found_;     // of each class, room for all its candidates
};

}  // namespace espnetv2
