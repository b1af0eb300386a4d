// Kernels that move or combine whole maps: resizing, pooling, gating, gathering, class maps.
#pragma once
#include <cmath>

#include "kernels/vector.h"

namespace espnetv2 {
namespace {

// One pixel of one block between its four neighbours.
INLINE Vector between(const float* above, const float* below, float down, const int32_t* columns,
                      float right) {
  const Vector top = load(above + columns[0]) * (1.0f - right) + load(above + columns[1]) * right;
  const Vector bottom =
      load(below + columns[0]) * (1.0f - right) + load(below + columns[1]) * right;
  return top * (1.0f - down) + bottom * down;
}

void resize(const ResizeArgs& a) {
  for (int y = a.row; y < a.row_end; ++y) {
    for (int c = 0; c < a.blocks; ++c) {
      const float* above = a.x + a.rows[2 * y] * a.x_row + c * a.x_block;
      const float* below = a.x + a.rows[2 * y + 1] * a.x_row + c * a.x_block;
      float* out = a.out + y * a.out_row + c * a.out_block;
      const Vector rise = a.rise ? load(a.rise + c * kLanes) : all(1.0f);
      const Vector fall = a.rise ? load(a.fall + c * kLanes) : all(1.0f);
      for (int x = 0; x < a.width; ++x) {
        const Vector value =
            between(above, below, a.row_weights[y], a.columns + 2 * x, a.column_weights[x]);
        store(out + x * kLanes, slopes(value, rise, fall));
      }
    }
  }
}

void shrink(const ShrinkArgs& a) {
  for (int c = 0; c < a.planes; ++c) {
    for (int y = a.row; y < a.row_end; ++y) {
      const float* middle = a.x + 2 * y * a.x_row + c * a.x_block;
      const float *above = middle - a.x_row, *below = middle + a.x_row;
      float* out = a.out + y * a.out_row + c * a.out_block;
      const auto column = [&](int x) { return above[x] + middle[x] + below[x]; };
      for (int x = 0; x < a.width; ++x) {
        out[x] = (column(2 * x - 1) + column(2 * x) + column(2 * x + 1)) * (1.0f / 9.0f);
      }
    }
  }
}

void window(const WindowArgs& a) {
  for (int c = a.block; c < a.block_end; ++c) {
    for (int y = a.row; y < a.row_end; ++y) {
      const int top = a.rows[2 * y], bottom = a.rows[2 * y + 1];
      for (int x = 0; x < a.width; ++x) {
        const int left = a.columns[2 * x], right = a.columns[2 * x + 1];
        const float* from = a.x + c * a.x_block + top * a.x_row + left * kLanes;
        Vector found = a.largest ? load(from) : zero();
        for (int i = top; i < bottom; ++i, from += a.x_row) {
          for (int j = 0; j < right - left; ++j) {
            const Vector value = load(from + j * kLanes);
            found = a.largest ? (value > found ? value : found) : found + value;
          }
        }
        if (!a.largest) found = found / all(static_cast<float>((bottom - top) * (right - left)));
        if (a.rise) found = slopes(found, load(a.rise + c * kLanes), load(a.fall + c * kLanes));
        store(a.out + y * a.out_row + c * a.out_block + x * kLanes, found);
      }
    }
  }
}

void combine(const CombineArgs& a) {
  for (int y = a.row; y < a.row_end; ++y) {
    for (int c = 0; c < a.blocks; ++c) {
      const float* from = a.x + y * a.x_row + c * a.x_block;
      const float* other = a.other ? a.other + y * a.other_row + c * a.other_block : nullptr;
      float* out = a.out + y * a.out_row + c * a.out_block;
      const Vector gate = a.gate ? load(a.gate + c * a.gate_block) : all(1.0f);
      const Vector scale = a.scale ? load(a.scale + c * kLanes) : all(1.0f);
      const Vector shift = a.scale ? load(a.shift + c * kLanes) : zero();
      const Vector rise = a.rise ? load(a.rise + c * kLanes) : all(1.0f);
      const Vector fall = a.rise ? load(a.fall + c * kLanes) : all(1.0f);
      for (int x = 0; x < a.width; ++x) {
        Vector value = load(from + x * kLanes) * gate;
        if (other) value += load(other + x * kLanes);
        value = slopes(value * scale + shift, rise, fall);
        if (a.logistic) {
          for (int l = 0; l < kLanes; ++l) value[l] = 1.0f / (1.0f + expf(-value[l]));
        }
        store(out + x * kLanes, value);
      }
    }
  }
}

void gather(const GatherArgs& a) {
  for (int y = a.row; y < a.row_end; ++y) {
    const float* from = a.x + y * a.x_row;
    for (int c = 0; c < a.blocks; ++c) {
      const int32_t* lanes = a.from + c * kLanes;
      float* out = a.out + y * a.out_row + c * a.out_block;
      for (int x = 0; x < a.width; ++x) {
        for (int l = 0; l < kLanes; ++l) {
          out[x * kLanes + l] = lanes[l] < 0 ? 0.0f : from[lanes[l] + x * kLanes];
        }
      }
    }
  }
}

// Interpolates the logits of one pixel and keeps the largest; of equal ones the first class.
void class_map(const ClassMapArgs& a) {
  const ResizeArgs& r = a.resize;
  alignas(4 * kLanes) float logits[256 + kLanes];
  for (int y = r.row; y < r.row_end; ++y) {
    const float* above = r.x + r.rows[2 * y] * r.x_row;
    const float* below = r.x + r.rows[2 * y + 1] * r.x_row;
    uint8_t* out = a.out + y * a.out_row;
    for (int x = 0; x < r.width; ++x) {
      for (int c = 0; c < r.blocks; ++c) {
        const Index block = c * r.x_block;
        store(logits + c * kLanes, between(above + block, below + block, r.row_weights[y],
                                           r.columns + 2 * x, r.column_weights[x]));
      }
      int found = 0;
      for (int c = 1; c < a.classes; ++c) {
        if (logits[a.lanes[c]] > logits[a.lanes[found]]) found = c;
      }
      out[x] = static_cast<uint8_t>(found);
    }
  }
}

}  // namespace
}  // namespace espnetv2
