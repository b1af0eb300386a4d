// What a network gives: vectors, maps, classes of pixels, probabilities and boxes.
#pragma once
#include "maps.h"

namespace espnetv2 {

class Outputs {
 public:
  explicit Outputs(const Maps& maps) : maps_(maps) {}

  // Rows of an output; of boxes, classes or nothing.
  void give(const Operation& operation, int row, int end) const;

 private:
  size_t number(const Output& output) const;
  uint8_t* given(const Operation& operation, size_t which) const;
  void copy(const Operation& operation, float* to, int row, int end) const;
  void enlarge(const Operation& operation, uint8_t* to, int row, int end) const;
  void boxes(const Operation& operation, int row, int end) const;

  const Maps& maps_;
};

}  // namespace espnetv2
